#pragma once

namespace attn::cli {

/// While one lives, the first SIGINT is remembered instead of ending the process; the second ends
/// it.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
};

/// True once SIGINT has come. Long loops ask it between cases.
bool interrupted();

}  // namespace attn::cli
