#include "harness/cli/interrupt.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <string_view>

namespace attn::cli {
namespace {

// Any thread may get the signal, and all ask: a sig_atomic_t is for one thread and its own handler.
std::atomic<bool> g_interrupted = false;
static_assert(std::atomic<bool>::is_always_lock_free, "what a signal handler may write");

void remember(int) {
  g_interrupted = true;
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
  g_interrupted = false;
  set_handler(remember, static_cast<int>(SA_RESETHAND) | SA_RESTART);
}
InterruptGuard::~InterruptGuard() { set_handler(SIG_DFL, 0); }

bool interrupted() { return g_interrupted; }

}  // namespace attn::cli
