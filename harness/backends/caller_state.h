#pragma once

#include <locale.h>
#include <sys/time.h>

#include <cfenv>
#include <string>

namespace attn::harness {

/// Puts back what a call into a foreign library may leave changed and what our own arithmetic and
/// printing depend on: rounding mode, flushing of subnormals and floating-point traps of this
/// thread, its locale and the process's, and the alarm that would end another case.
class CallerState {
 public:
  CallerState();
  ~CallerState();
  CallerState(const CallerState&) = delete;
  CallerState& operator=(const CallerState&) = delete;

 private:
  std::fenv_t arithmetic_{};
  std::string locale_;
  locale_t thread_locale_;
  itimerval alarm_{};
};

}  // namespace attn::harness
