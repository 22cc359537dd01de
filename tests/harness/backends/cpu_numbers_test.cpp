#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <thread>
#include <vector>

#include "harness/backends/cpu/exp.h"
#include "harness/backends/cpu/linalg.h"
#include "harness/backends/cpu/parallel.h"
#include "harness/backends/cpu/unpack.h"
#include "reference/core/element.h"
#include "reference/core/philox.h"

namespace attn::harness::cpu {
namespace {

std::uint32_t bits(float value) { return std::bit_cast<std::uint32_t>(value); }

TEST(CpuUnpack, EveryHalfAndBfloat16CodeHasTheCoresValueAndComesBack) {
  for (const ElementType type : {ElementType::kFloat16, ElementType::kBFloat16}) {
    for (std::uint32_t i = 0; i <= 0xffff; ++i) {
      const auto code = static_cast<std::uint16_t>(i);
      float value = 0.0f;
      unpack(type, reinterpret_cast<const std::byte*>(&code), 1, &value);
      const double want = decode(type, code);
      if (std::isnan(want)) {
        ASSERT_TRUE(std::isnan(value)) << code;
        continue;
      }
      ASSERT_EQ(bits(value), bits(static_cast<float>(want))) << code;
      std::uint16_t back = 0;
      pack(type, &value, 1, reinterpret_cast<std::byte*>(&back));
      ASSERT_EQ(back, code);
    }
  }
}

/// The code of `value` by this backend and by the core's codec, which rounds from float64.
void expect_same_code(ElementType type, float value) {
  std::uint16_t code = 0;
  pack(type, &value, 1, reinterpret_cast<std::byte*>(&code));
  if (std::isnan(value)) {
    EXPECT_TRUE(std::isnan(decode(type, code))) << value;
  } else {
    EXPECT_EQ(code, encode(type, value)) << element_name(type) << " of " << value;
  }
}

TEST(CpuPack, EveryTieAndItsNeighboursRoundAsTheCoreDoes) {
  for (const ElementType type : {ElementType::kFloat16, ElementType::kBFloat16}) {
    for (std::uint32_t code = 0; code < 0x8000; ++code) {
      const double low = decode(type, code);
      const double high = decode(type, code + 1);
      if (!std::isfinite(low) || !std::isfinite(high)) continue;
      const auto tie = static_cast<float>((low + high) / 2);  // exact: one bit more than the codes
      for (const float sign : {1.0f, -1.0f}) {
        expect_same_code(type, sign * tie);
        expect_same_code(type, sign * std::nextafter(tie, 0.0f));
        expect_same_code(type, sign * std::nextafter(tie, 1e38f));
      }
    }
  }
}

TEST(CpuPack, OverflowSpecialsAndRandomBitsRoundAsTheCoreDoes) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const ElementType type : {ElementType::kFloat16, ElementType::kBFloat16}) {
    for (const float value : {65504.0f, 65519.996f, 65520.0f, 65536.0f, 1e38f, 3.3961776e38f,
                              std::numeric_limits<float>::max(), infinity, 0.0f,
                              std::numeric_limits<float>::denorm_min(), 0x1p-25f, 0x1p-26f,
                              std::numeric_limits<float>::quiet_NaN()}) {
      expect_same_code(type, value);
      expect_same_code(type, -value);
    }
    const RandomStream random(7, "pack");
    for (std::uint64_t i = 0; i < 200000; ++i) {
      expect_same_code(type, std::bit_cast<float>(static_cast<std::uint32_t>(random.bits(i))));
    }
  }
}

double relative_error(float x) {
  const double want = std::exp(static_cast<double>(x));
  return std::abs(static_cast<double>(exp_nonpositive(x)) - want) / want;
}

TEST(CpuExp, KeepsItsDeclaredErrorOnADenseGrid) {
  // Every 61st float32 from -2^-30 (below it the result is 1) to the last one whose result is
  // normal; 61 is odd, so that every low bit pattern of the significand comes up.
  const std::uint32_t last = bits(0x1.5d589ep+6f);
  double worst = 0.0;
  for (std::uint32_t magnitude = bits(0x1p-30f); magnitude <= last; magnitude += 61) {
    worst = std::max(worst, relative_error(-std::bit_cast<float>(magnitude)));
  }
  EXPECT_LE(worst, kExpRelativeError);
  EXPECT_GT(worst, kExpRelativeError / 4) << "a grid that sees no rounding at all measures nothing";
  EXPECT_LE(relative_error(-std::bit_cast<float>(last)), kExpRelativeError);
}

TEST(CpuExp, EdgesAreExact) {
  EXPECT_EQ(exp_nonpositive(0.0f), 1.0f);
  EXPECT_EQ(exp_nonpositive(-0.0f), 1.0f);
  EXPECT_EQ(exp_nonpositive(-87.5f), 0.0f);
  EXPECT_EQ(exp_nonpositive(-1e30f), 0.0f);
  EXPECT_EQ(exp_nonpositive(-std::numeric_limits<float>::max()), 0.0f);
  EXPECT_EQ(exp_nonpositive(-std::numeric_limits<float>::infinity()), 0.0f);
  EXPECT_TRUE(std::isnan(exp_nonpositive(std::numeric_limits<float>::quiet_NaN())));
}

TEST(CpuLinalg, DotAndWeightedRowsAgreeWithFloat64) {
  const RandomStream random(3, "linalg");
  std::uint64_t next = 0;
  for (const std::int64_t n : {8, 16, 64, 72, 256, 1000}) {
    const std::int64_t keys = 13;
    Rows a(1, n);
    Rows b(keys, n);
    std::vector<float> p(static_cast<std::size_t>(keys));
    for (std::int64_t i = 0; i < n; ++i) a.row(0)[i] = static_cast<float>(random.normal(next++));
    for (std::int64_t k = 0; k < keys; ++k) {
      p[static_cast<std::size_t>(k)] = static_cast<float>(random.normal(next++));
      for (std::int64_t i = 0; i < n; ++i) b.row(k)[i] = static_cast<float>(random.normal(next++));
    }
    for (std::int64_t k = 0; k + 4 <= keys; ++k) {
      float got[4];
      dot4(a.row(0), b.row(k), b.stride, a.stride, got);
      for (int c = 0; c < 4; ++c) {
        double want = 0.0, magnitude = 0.0;
        for (std::int64_t i = 0; i < n; ++i) {
          const double term = static_cast<double>(a.row(0)[i]) * b.row(k + c)[i];
          want += term;
          magnitude += std::abs(term);
        }
        // A chain of n / 8 + 3 additions and one product: at most that many roundings of 2^-24.
        const double bound = 0x1p-24 * (static_cast<double>(n) / 8 + 4) * magnitude;
        EXPECT_LE(std::abs(got[c] - want), bound) << n << " " << k + c;
      }
    }
    std::vector<float> y(static_cast<std::size_t>(b.stride), 1.0f);
    add_weighted_rows(p.data(), keys, b.row(0), b.stride, b.stride, y.data());
    for (std::int64_t i = 0; i < n; ++i) {
      double want = 1.0, magnitude = 1.0;
      for (std::int64_t k = 0; k < keys; ++k) {
        const double term = static_cast<double>(p[static_cast<std::size_t>(k)]) * b.row(k)[i];
        want += term;
        magnitude += std::abs(term);
      }
      const double bound = 0x1p-24 * static_cast<double>(keys + 2) * magnitude;
      EXPECT_LE(std::abs(y[static_cast<std::size_t>(i)] - want), bound) << n << " " << i;
    }
  }
}

TEST(CpuParallel, EveryTaskRunsOnceAndExceptionsArrive) {
  for (const int threads : {1, 2, 5}) {
    std::vector<int> hits(1000, 0);
    parallel_for(1000, threads, 1e9, [&](std::int64_t i) { ++hits[static_cast<std::size_t>(i)]; });
    EXPECT_EQ(hits, std::vector<int>(1000, 1)) << threads;
    EXPECT_THROW(parallel_for(100, threads, 1e9,
                              [](std::int64_t i) {
                                if (i == 57) throw std::runtime_error("task 57");
                              }),
                 std::runtime_error);
  }
  parallel_for(0, 4, 1e9, [](std::int64_t) { FAIL(); });
}

TEST(CpuParallel, SmallWorkStaysOnTheCaller) {
  const std::thread::id caller = std::this_thread::get_id();
  parallel_for(8, 4, 1e4, [&](std::int64_t) { EXPECT_EQ(std::this_thread::get_id(), caller); });
}

}  // namespace
}  // namespace attn::harness::cpu
