#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace attn::harness {

/// work(seed) for count seeds from `first`, on all threads (ATTN_GPU_THREADS limits them, which
/// racecheck needs). What it returns is a complaint, "" for none; an exception is one too.
std::vector<std::string> for_each_seed(std::uint64_t first, std::uint64_t count,
                                       const std::function<std::string(std::uint64_t)>& work);

/// A number from the environment, or `otherwise`.
std::uint64_t environment_number(const char* name, std::uint64_t otherwise);

}  // namespace attn::harness
