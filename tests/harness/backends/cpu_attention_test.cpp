#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "harness/backends/cpu/cpu_backend.h"
#include "tests/harness/backends/naive_attention.h"
#include "tests/harness/backends/test_cases.h"

namespace attn::harness::cpu {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Trace run_cpu(const Case& c, std::int64_t block = 64, int threads = 1) {
  return make_cpu_backend({block, threads})->run(c, all_stages());
}

/// lse and attn_out of `got` against float64 loops over its own q and cache. A score is off by at
/// most the roundings of its chain (D / 8 + 3 additions, a product, the scale, the cap, the shift;
/// exp adds 2^-23) times the sum of its magnitudes; the sums over keys run through at most `keys`
/// additions and three roundings a block. First order, doubled for the rest.
void expect_attention_within_float32(const Case& c, const Trace& got, std::int64_t block,
                                     const std::string& what) {
  const AttentionConfig& f = c.config;
  const std::vector<double> q =
      f.starts_at_attention() ? c.q.values() : got[Stage::kQRope].values();
  const NaiveAttention want = naive_attention(c, q, logical_keys(c, *got.cache).values(),
                                              logical_values(c, *got.cache).values());
  std::int64_t keys = 0;
  for (std::int64_t b = 0; b < c.batch(); ++b) keys = std::max(keys, c.key_count(b));
  const double roundings = static_cast<double>(f.head_dim) / 8 + 10 + static_cast<double>(keys) +
                           3 * std::ceil(static_cast<double>(keys) / static_cast<double>(block));
  const double unit = 2 * 0x1p-24 * roundings;
  const std::vector<double> lse = got[Stage::kLse].values();
  const std::vector<double> out = got[Stage::kAttnOut].values();
  ASSERT_EQ(lse.size(), want.lse.size());
  ASSERT_EQ(out.size(), want.out.size());
  for (std::size_t i = 0; i < lse.size(); ++i) {
    if (std::isinf(want.lse[i])) {
      EXPECT_EQ(lse[i], want.lse[i]) << what << " lse " << i;
    } else {
      EXPECT_LE(std::abs(lse[i] - want.lse[i]), unit * want.lse_scale[i]) << what << " lse " << i;
    }
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    EXPECT_LE(std::abs(out[i] - want.out[i]), unit * want.out_scale[i] + 0x1p-125)
        << what << " attn_out " << i;
  }
}

std::vector<MaskConfig> all_masks() {
  std::vector<MaskConfig> masks;
  for (const MaskAlign align : {MaskAlign::kBottomRight, MaskAlign::kTopLeft}) {
    for (const MaskVariant variant : {MaskVariant::kNull, MaskVariant::kCausal}) {
      masks.push_back({variant, align, {}, {}});
    }
    for (const std::int64_t width : {1, 2, 5, 16, 40}) {
      masks.push_back({MaskVariant::kSlidingWindowCausal, align, width, {}});
      masks.push_back({MaskVariant::kSlidingWindowNoncausal, align, width, {}});
      masks.push_back({MaskVariant::kChunkedCausal, align, {}, width});
    }
  }
  masks.push_back({MaskVariant::kTensor, MaskAlign::kBottomRight, {}, {}});
  return masks;
}

std::string describe(const MaskConfig& mask) {
  return std::string(name_of(mask.variant)) + " " + std::string(name_of(mask.align)) + " " +
         std::to_string(mask.window_size.value_or(mask.chunk_size.value_or(0)));
}

TEST(CpuAttention, EveryMaskAlignmentAndBlockSizeAgreesWithPlainLoops) {
  // More keys than queries, fewer, as many, none of either, and one beyond a page's end.
  const RowPairs rows = {{7, 23}, {9, 4}, {6, 6}, {3, 0}, {0, 11}, {1, 17}};
  for (const MaskConfig& mask : all_masks()) {
    AttentionConfig config = core_config(6, 2, 16);
    config.mask = mask;
    for (const bool sinks : {false, true}) {
      const Case c = random_case(config, rows, 11, sinks);
      for (const std::int64_t block : {1, 3, 16, 64, 1000}) {
        expect_attention_within_float32(
            c, run_cpu(c, block), block,
            describe(mask) + (sinks ? " sinks" : "") + " block " + std::to_string(block));
      }
    }
  }
}

TEST(CpuAttention, GroupsHeadSizesScalesAndCapsAgreeWithPlainLoops) {
  struct Geometry {
    std::int64_t heads, kv_heads, head_dim, head_dim_v;
  };
  for (const Geometry& g : std::vector<Geometry>{{4, 4, 64, 64},
                                                 {7, 1, 6, 10},
                                                 {8, 2, 128, 128},
                                                 {40, 1, 18, 2},
                                                 {6, 3, 96, 33},
                                                 {2, 1, 256, 512},
                                                 {3, 3, 2, 1}}) {
    for (const int feature : {0, 1, 2, 3}) {
      AttentionConfig config = core_config(g.heads, g.kv_heads, g.head_dim);
      config.head_dim_v = g.head_dim_v;
      if (feature == 1) config.logit_softcap = 1.5;
      if (feature == 2) config.scale = 0.0;
      if (feature == 3) config.scale = -0.3;
      const Case c = random_case(config, {{5, 37}, {1, 70}}, 5);
      expect_attention_within_float32(
          c, run_cpu(c, 16), 16,
          std::to_string(g.head_dim) + " feature " + std::to_string(feature));
    }
  }
}

TEST(CpuAttention, SixteenBitCachesAreReadExactly) {
  for (const ElementType type : {ElementType::kBFloat16, ElementType::kFloat16}) {
    AttentionConfig config = core_config(4, 2, 32);
    config.dtype = type;
    config.kv_cache.dtype = type;
    const Case c = random_case(config, {{5, 40}, {2, 2}}, 23);
    expect_attention_within_float32(c, run_cpu(c), 64, std::string(element_name(type)));
  }
}

/// A key that draws all the weight, put at each position in turn: rows that see it return its
/// value.
TEST(CpuAttention, NeedlesAtEveryEdgeOfEveryMaskAreFoundExactlyByTheRowsThatSeeThem) {
  constexpr std::int64_t kQueries = 9, kKeys = 21, kDim = 8;
  for (const MaskConfig& mask : all_masks()) {
    if (mask.variant == MaskVariant::kTensor) continue;
    AttentionConfig config = core_config(1, 1, kDim);
    config.mask = mask;
    config.scale = 1.0;
    config.kv_cache.page_size = 4;
    for (std::int64_t needle = 0; needle < kKeys; ++needle) {
      Case c = random_case(config, {{kQueries, kKeys}}, 3);
      for (std::int64_t i = 0; i < kQueries * kDim; ++i) c.q.set_value(i, 1.0);
      for (std::int64_t p = 0; p < kKeys; ++p) {
        for (std::int64_t d = 0; d < kDim; ++d) {
          c.cache.k.set_value(c.cache.k_index(0, p) + d, p == needle ? 40.0 : 0.0);
          c.cache.v.set_value(c.cache.v_index(0, p) + d, p == needle ? 1000.0 : 1.0);
        }
      }
      const Trace got = run_cpu(c, 4);
      for (std::int64_t i = 0; i < kQueries; ++i) {
        bool sees_needle = false, sees_any = false;
        for (std::int64_t p = 0; p < kKeys; ++p) {
          const bool sees = naive_visible(mask, c.query_position(0, i), p);
          sees_any |= sees;
          sees_needle |= sees && p == needle;
        }
        // e^-320 is 0 in float32; equal scores average ones to exactly 1.
        const double want = sees_needle ? 1000.0 : (sees_any ? 1.0 : 0.0);
        EXPECT_EQ(got[Stage::kAttnOut].value(i * kDim), want)
            << describe(mask) << " needle " << needle << " row " << i;
      }
    }
  }
}

TEST(CpuAttention, RowsThatSeeNothingAreZeroWithLseMinusInfinityOrTheSink) {
  AttentionConfig config = core_config(2, 1, 8);
  for (const bool sinks : {false, true}) {
    const Case c =
        random_case(config, {{5, 2}, {2, 0}}, 9, sinks);  // rows 0..2 and 5, 6 see nothing
    const Trace got = run_cpu(c);
    for (const std::int64_t row : {0, 1, 2, 5, 6}) {
      for (std::int64_t h = 0; h < 2; ++h) {
        EXPECT_EQ(got[Stage::kLse].value(row * 2 + h),
                  sinks ? c.weights.at("sinks").value(h) : -kInfinity);
        for (std::int64_t d = 0; d < 8; ++d) {
          EXPECT_EQ(got[Stage::kAttnOut].value((row * 2 + h) * 8 + d), 0.0);
        }
      }
    }
  }
}

TEST(CpuAttention, AMaskOfMinusInfinityHidesKeys) {
  AttentionConfig config = core_config(2, 1, 8);
  config.mask.variant = MaskVariant::kTensor;
  Case c = random_case(config, {{4, 12}}, 9);
  for (std::int64_t k = 0; k < 12; ++k) {
    c.mask.set_value(k, -kInfinity);                   // row 0 sees nothing
    if (k != 7) c.mask.set_value(12 + k, -kInfinity);  // row 1 sees key 7
    if (k < 6) c.mask.set_value(24 + k, -kInfinity);   // row 2 sees nothing in its first block
    if (k >= 6) c.mask.set_value(36 + k, -kInfinity);  // row 3 nothing in its last
  }
  for (const std::int64_t block : {1, 3, 64}) {
    const Trace got = run_cpu(c, block);
    expect_attention_within_float32(c, got, block, "block " + std::to_string(block));
    EXPECT_EQ(got[Stage::kLse].value(0), -kInfinity);
    EXPECT_EQ(got[Stage::kAttnOut].value(0), 0.0);
    EXPECT_EQ(got[Stage::kAttnOut].value(16), c.cache.v.value(c.cache.v_index(0, 7)));
  }
}

TEST(CpuAttention, HugeScoresDoNotOverflowAndNanStaysInItsRow) {
  AttentionConfig config = core_config(1, 1, 8);
  config.scale = 1e5;
  const Case c = random_case(config, {{6, 30}}, 31);
  expect_attention_within_float32(c, run_cpu(c, 7), 7, "scores of 1e5");

  // A key that the last rows see and the others do not (causal; row i is at position 24 + i): its
  // NaN, in k or in v, stays with them, wherever it lies in its block.
  for (const bool in_values : {false, true}) {
    for (std::int64_t key = 25; key < 30; ++key) {
      Case with_nan = c;
      Tensor& pool = in_values ? with_nan.cache.v : with_nan.cache.k;
      pool.set_value(c.cache.k_index(0, key) + 3, std::numeric_limits<double>::quiet_NaN());
      for (const std::int64_t block : {1, 4, 64}) {
        const Trace got = run_cpu(with_nan, block);
        for (std::int64_t i = 0; i < 6; ++i) {
          const bool sees = key <= 24 + i;
          EXPECT_EQ(std::isnan(got[Stage::kAttnOut].value(i * 8 + 3)), sees) << key << " row " << i;
          EXPECT_EQ(std::isnan(got[Stage::kAttnOut].value(i * 8)), sees && !in_values);
          EXPECT_EQ(std::isnan(got[Stage::kLse].value(i)), sees && !in_values);
        }
      }
    }
  }
}

/// Everything a caller can see, bit for bit.
void expect_same_bits(const Trace& a, const Trace& b, const std::string& what) {
  for (const Stage stage : all_stages()) EXPECT_EQ(a[stage], b[stage]) << what << name_of(stage);
  ASSERT_EQ(a.cache.has_value(), b.cache.has_value());
  EXPECT_EQ(*a.cache, *b.cache) << what << " cache";
}

TEST(CpuAttention, ThreadsRepeatsAndNeighboursDoNotChangeABit) {
  AttentionConfig config = core_config(8, 2, 64);
  for (const MaskConfig& mask :
       {MaskConfig{},
        MaskConfig{MaskVariant::kSlidingWindowCausal, MaskAlign::kBottomRight, 200, {}}}) {
    config.mask = mask;
    // 3e8 float operations: enough for several threads.
    const Case c = random_case(config, {{150, 700}, {1, 900}, {40, 90}}, 17);
    const Trace one = run_cpu(c, 64, 1);
    for (const int threads : {1, 2, 3, 7}) {
      expect_same_bits(one, run_cpu(c, 64, threads), std::to_string(threads) + " threads ");
    }
    // The last row alone (decode) has the bits it has in the batch: no sum depends on its
    // neighbours.
    Case last = c;
    last.input_row_offsets = uint32_tensor({0, 1, 1, 1});
    last.q = Tensor(c.q.type(), {1, 8, 64});
    std::memcpy(last.q.data(), c.q.data() + std::size_t{149} * 8 * 64 * 4, std::size_t{8} * 64 * 4);
    const Trace alone = run_cpu(last);
    for (std::int64_t i = 0; i < 8 * 64; ++i) {
      ASSERT_EQ(alone[Stage::kAttnOut].code(i), one[Stage::kAttnOut].code(149 * 8 * 64 + i))
          << describe(mask) << " " << i;
    }
  }
}

TEST(CpuAttention, LeavesTheCaseAndTheCacheAlone) {
  const Case c = random_case(core_config(4, 2, 16), {{3, 20}, {1, 5}}, 4);
  const Case before = c;
  const Trace got = run_cpu(c);
  EXPECT_EQ(c.cache, before.cache);
  EXPECT_EQ(*got.cache, before.cache);
  EXPECT_EQ(c.q, before.q);
}

}  // namespace
}  // namespace attn::harness::cpu
