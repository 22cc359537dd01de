#include "harness/cli/interrupt.h"

#include <unistd.h>

#include <csignal>
#include <string_view>

namespace attn::cli {
namespace {

volatile std::sig_atomic_t g_interrupted = 0;

void remember(int) {
  g_interrupted = 1;
  constexpr std::string_view kMessage =
      "\ninterrupted: the running cases are finished first; Ctrl-C again ends at once\n";
  // Nothing can be done where stderr is closed.
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, kMessage.data(), kMessage.size());
}

void set_handler(void (*handler)(int), int flags) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
}

}  // namespace

// SA_RESETHAND brings the default back after the first signal, so that a second Ctrl-C ends the
// process at once even when a case takes long.
InterruptGuard::InterruptGuard() {
  g_interrupted = 0;
  set_handler(remember, static_cast<int>(SA_RESETHAND) | SA_RESTART);
}
InterruptGuard::~InterruptGuard() { set_handler(SIG_DFL, 0); }

bool interrupted() { return g_interrupted != 0; }

}  // namespace attn::cli
