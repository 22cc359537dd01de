#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace attn::cli {

/// Runs work(0) .. work(count - 1) on `jobs` threads and hands the results to emit in order, on the
/// calling thread, as soon as each is its turn. idle(done) is called there about ten times a
/// second. When stop() turns true no further item is begun; those that were begun are still
/// emitted, up to the first that was not. `work` must not throw. Returns how many were emitted.
template <typename Result>
std::size_t run_in_order(std::size_t count, int jobs,
                         const std::function<Result(std::size_t)>& work,
                         const std::function<void(Result)>& emit,
                         const std::function<void(std::size_t)>& idle,
                         const std::function<bool()>& stop) {
  std::mutex mutex;
  std::condition_variable ready;
  std::vector<std::optional<Result>> results(count);
  std::size_t next = 0;
  std::size_t finished = 0;
  std::size_t running = 0;

  const auto worker = [&] {
    std::unique_lock lock(mutex);
    while (next < count && !stop()) {
      const std::size_t index = next++;
      ++running;
      lock.unlock();
      Result result = work(index);
      lock.lock();
      results[index] = std::move(result);
      --running;
      ++finished;
      ready.notify_one();
    }
    ready.notify_one();
  };
  std::vector<std::jthread> threads;
  threads.reserve(static_cast<std::size_t>(jobs));
  for (int i = 0; i < jobs; ++i) threads.emplace_back(worker);

  std::size_t emitted = 0;
  std::unique_lock lock(mutex);
  while (emitted < count) {
    if (results[emitted]) {
      Result result = std::move(*results[emitted]);
      results[emitted++].reset();
      lock.unlock();
      emit(std::move(result));
      lock.lock();
      continue;
    }
    if (running == 0 && stop()) break;
    ready.wait_for(lock, std::chrono::milliseconds(100));
    const std::size_t done = finished;
    lock.unlock();
    idle(done);
    lock.lock();
  }
  return emitted;
}

}  // namespace attn::cli
