#pragma once

#include <bit>
#include <cstdint>

#include "harness/backends/cpu/fault_switch.h"

namespace attn::harness::cpu {

/// Relative error of one exp_nonpositive, measured over every float32 argument whose result is a
/// normal number: at most 2^-23.4.
inline constexpr double kExpRelativeError = 0x1p-23;

/// e^x for x <= 0 (or NaN, which stays NaN), in float32. Results below 2^-126 are 0, exp(0) is 1.
/// Cody and Waite's reduction x = n ln 2 + r, |r| <= ln(2) / 2, with ln 2 in two parts, then a
/// polynomial in r and an exponent put together from bits; no branches, so that loops vectorise.
inline float exp_nonpositive(float x) {
  constexpr float kSmallest = -0x1.5d589ep+6f;  // the last float32 above ln(2^-126)
  constexpr float kLog2E = 0x1.715476p+0f;
  constexpr float kLn2High = 0x1.62e4p-1f;    // 15 bits: n * kLn2High is exact
  constexpr float kLn2Low = 0x1.7f7d1cp-20f;  // ln 2 - kLn2High
  constexpr float kRound = 0x1.8p23f;         // adding it rounds to an integer

  const float shifted = x * kLog2E + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  // The Taylor series' coefficients: on |r| <= 0.3466 the first term left out, r^8/8!, is 5e-9 of
  // the result, a tenth of a rounding.
  float p = 1.0f / 5040.0f;
  p = p * r + 1.0f / 720.0f;
  p = ATTN_FAULT(exp_of_four_terms) ? 0.0f : p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = (p * r) * r + r;
  // The low bits of `shifted` hold n in two's complement.
  const std::uint32_t exponent = (std::bit_cast<std::uint32_t>(shifted) << 23) + 0x3f800000u;
  const float power = std::bit_cast<float>(exponent);
  const float result = power + power * p;
  const std::uint32_t keep = x < kSmallest ? 0u : ~0u;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(result) & keep);
}

}  // namespace attn::harness::cpu
