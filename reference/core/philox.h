#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace attn {

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11): ten rounds on
/// a 128-bit counter under a 64-bit key.
std::array<std::uint32_t, 4> philox4x32_10(std::array<std::uint32_t, 4> counter,
                                           std::array<std::uint32_t, 2> key);

/// A stream of random numbers that is the same on every compiler and machine: only integer operations
/// and single correctly rounded double operations, no libm. Element i of stream `name` under `seed`
/// does not depend on how many others were drawn.
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::string_view name);

  /// 64 random bits for index i.
  std::uint64_t bits(std::uint64_t i) const;
  /// Uniform on [0, 1), 53 bits.
  double uniform(std::uint64_t i) const;
  /// Uniform on 0 .. n-1 (multiply-shift; bias below 2^-32 for n < 2^32).
  std::uint64_t below(std::uint64_t i, std::uint64_t n) const;
  /// Approximately standard normal: the centred and scaled sum of eight 16-bit integers
  /// (Irwin-Hall; variance exactly 1 up to one rounding, |value| <= 4.9).
  double normal(std::uint64_t i) const;
  /// normal(first), normal(first + 1), ...
  void normals(std::uint64_t first, std::span<double> out) const;

 private:
  std::array<std::uint32_t, 2> key_;
  std::array<std::uint32_t, 2> stream_;
};

}  // namespace attn
