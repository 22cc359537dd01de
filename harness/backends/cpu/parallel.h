#pragma once

#include <cstdint>
#include <functional>

namespace attn::harness::cpu {

/// Calls task(i) for i = 0 .. tasks - 1 on up to `threads` threads, in no particular order. `work`
/// is the number of float operations of all tasks together: what a started thread would not earn
/// back runs on the caller. The first exception of a task is thrown again.
void parallel_for(std::int64_t tasks, int threads, double work,
                  const std::function<void(std::int64_t)>& task);

}  // namespace attn::harness::cpu
