#include "tests/gpu/seeds.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>

namespace attn::harness {

std::uint64_t environment_number(const char* name, std::uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

std::vector<std::string> for_each_seed(std::uint64_t first, std::uint64_t count,
                                       const std::function<std::string(std::uint64_t)>& work) {
  std::atomic<std::uint64_t> next{first};
  std::mutex mutex;
  std::vector<std::string> complaints;
  std::vector<std::thread> threads;
  const std::uint64_t wanted =
      environment_number("ATTN_GPU_THREADS", std::max(1U, std::thread::hardware_concurrency()));
  for (std::uint64_t t = 0; t < wanted; ++t) {
    threads.emplace_back([&] {
      for (std::uint64_t seed = next++; seed < first + count; seed = next++) {
        std::string complaint;
        try {
          complaint = work(seed);
        } catch (const std::exception& error) {
          complaint = std::string("crashed: ") + error.what();
        }
        if (complaint.empty()) continue;
        const std::lock_guard lock(mutex);
        complaints.push_back("seed " + std::to_string(seed) + ": " + complaint);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return complaints;
}

}  // namespace attn::harness
