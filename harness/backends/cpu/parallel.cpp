#include "harness/backends/cpu/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace attn::harness::cpu {
namespace {

// Starting and joining a thread costs some 50 microseconds, in which one core does about 4e5 float
// operations.
constexpr double kWorkPerThread = 1e6;

}  // namespace

void parallel_for(std::int64_t tasks, int threads, double work,
                  const std::function<void(std::int64_t)>& task) {
  const auto worth = static_cast<std::int64_t>(std::min(work / kWorkPerThread, 1e6));
  const std::int64_t workers = std::min({tasks, static_cast<std::int64_t>(threads), worth});
  if (workers <= 1) {
    for (std::int64_t i = 0; i < tasks; ++i) task(i);
    return;
  }
  std::atomic<std::int64_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto drain = [&] {
    try {
      for (std::int64_t i = next++; i < tasks; i = next++) task(i);
    } catch (...) {
      next = tasks;
      const std::lock_guard lock(failure_mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> pool;
    for (std::int64_t i = 1; i < workers; ++i) pool.emplace_back(drain);
    drain();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace attn::harness::cpu
