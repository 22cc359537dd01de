#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "harness/backends/cpu/exp.h"

namespace attn::harness::cpu {
namespace {

/// Every float32 from -2^-26 to the last whose exponential is a normal number; a thousandth of
/// those nearer to 0, whose result is 1, and of those whose result underflows.
TEST(CpuExpExhaustive, EveryArgumentKeepsTheDeclaredError) {
  const auto bits = [](float x) { return std::bit_cast<std::uint32_t>(x); };
  const std::uint32_t tiny = bits(0x1p-26f);
  const std::uint32_t last = bits(0x1.5d589ep+6f);
  const std::uint32_t infinity = bits(std::numeric_limits<float>::infinity());
  for (std::uint32_t magnitude = 0; magnitude < tiny; magnitude += 997) {
    ASSERT_EQ(exp_nonpositive(-std::bit_cast<float>(magnitude)), 1.0f) << magnitude;
  }
  double worst = 0.0;
  for (std::uint32_t magnitude = tiny; magnitude <= last; ++magnitude) {
    const float x = -std::bit_cast<float>(magnitude);
    const double want = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::abs(static_cast<double>(exp_nonpositive(x)) - want) / want);
  }
  EXPECT_LE(worst, kExpRelativeError);
  for (std::uint32_t magnitude = last + 1; magnitude <= infinity; magnitude += 997) {
    ASSERT_EQ(exp_nonpositive(-std::bit_cast<float>(magnitude)), 0.0f) << magnitude;
  }
  EXPECT_EQ(exp_nonpositive(-std::numeric_limits<float>::infinity()), 0.0f);
}

}  // namespace
}  // namespace attn::harness::cpu
