#pragma once

#include <cstddef>
#include <cstdint>
#include <random>

namespace attn::history {

/// A seeded source for resampling: std::mt19937_64, whose numbers the C++ standard fixes.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  /// Uniform on 0 .. n-1 for n < 2^32 (multiply-shift; bias below 2^-32).
  std::size_t below(std::size_t n) {
    return static_cast<std::size_t>(((engine_() >> 32) * std::uint64_t{n}) >> 32);
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace attn::history
