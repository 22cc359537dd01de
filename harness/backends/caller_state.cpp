#include "harness/backends/caller_state.h"

#include <clocale>

namespace attn::harness {
namespace {

bool is_set(const itimerval& timer) {
  return timer.it_value.tv_sec != 0 || timer.it_value.tv_usec != 0;
}

}  // namespace

CallerState::CallerState()
    : locale_(std::setlocale(LC_ALL, nullptr)), thread_locale_(uselocale(locale_t{})) {
  std::fegetenv(&arithmetic_);
  getitimer(ITIMER_REAL, &alarm_);
}

CallerState::~CallerState() {
  std::fesetenv(&arithmetic_);
  uselocale(thread_locale_);
  if (locale_ != std::setlocale(LC_ALL, nullptr)) std::setlocale(LC_ALL, locale_.c_str());
  itimerval left{};
  getitimer(ITIMER_REAL, &left);
  if (is_set(left) && !is_set(alarm_)) setitimer(ITIMER_REAL, &alarm_, nullptr);
}

}  // namespace attn::harness
