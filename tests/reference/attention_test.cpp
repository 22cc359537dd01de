// The attention stage against plain loops over the formula in its header, and at its edges.

#include "reference/stages/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "reference/layers/record.h"
#include "reference/reference.h"
#include "reference/stages/mask.h"
#include "tests/reference/make_case.h"

namespace attn::reference {
namespace {

using test::kReordered;
using test::make_case;
using test::make_mask;
using test::small_core_config;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// The formula, one query row and head at a time, over the keys that the mask lets it see.
struct NaiveRow {
  double lse;
  std::vector<double> out;
};

NaiveRow naive(const Case& c, std::int64_t b, std::int64_t row, std::int64_t head,
               std::int64_t keys_at) {
  const AttentionConfig& config = c.config;
  const Tensor k = logical_keys(c, c.cache);
  const Tensor v = logical_values(c, c.cache);
  const std::int64_t kv_head = head / (config.num_attention_heads / config.num_key_value_heads);
  const std::int64_t d = config.head_dim;
  const std::int64_t dv = config.head_dim_v;
  const RowMask mask = row_mask(c, b, row);

  std::vector<double> weights(static_cast<std::size_t>(c.key_count(b)), 0.0);
  double z = c.has_sinks() ? std::exp(c.weights.at("sinks").value(head)) : 0.0;
  for (std::int64_t key = 0; key < c.key_count(b); ++key) {
    if (!mask.sees(key)) {
      continue;
    }
    double s = 0.0;
    for (std::int64_t i = 0; i < d; ++i) {
      s += c.q.value((row * config.num_attention_heads + head) * d + i) *
           k.value(((keys_at + key) * config.num_key_value_heads + kv_head) * d + i);
    }
    s *= config.softmax_scale();
    if (config.logit_softcap) {
      s = *config.logit_softcap * std::tanh(s / *config.logit_softcap);
    }
    if (config.mask.variant == MaskVariant::kTensor) {
      s += c.mask.value(row * c.mask.dim(1) + key);
    }
    weights[static_cast<std::size_t>(key)] = std::exp(s);
    z += std::exp(s);
  }
  NaiveRow result{std::log(z), std::vector<double>(static_cast<std::size_t>(dv), 0.0)};
  for (std::int64_t key = 0; key < c.key_count(b) && z > 0.0; ++key) {
    for (std::int64_t i = 0; i < dv; ++i) {
      result.out[static_cast<std::size_t>(i)] +=
          weights[static_cast<std::size_t>(key)] / z *
          v.value(((keys_at + key) * config.num_key_value_heads + kv_head) * dv + i);
    }
  }
  return result;
}

void expect_naive(const Case& c) {
  const Trace got = attention(c, Mode::kExact);
  std::int64_t keys_at = 0;
  for (std::int64_t b = 0; b < c.batch(); keys_at += c.key_count(b), ++b) {
    for (std::int64_t i = 0; i < c.row_count(b); ++i) {
      for (std::int64_t head = 0; head < c.config.num_attention_heads; ++head) {
        const std::int64_t row = c.row_begin(b) + i;
        const std::int64_t at = row * c.config.num_attention_heads + head;
        const NaiveRow want = naive(c, b, row, head, keys_at);
        if (std::isinf(want.lse)) {
          EXPECT_EQ(got[Stage::kLse].value(at), want.lse);
        } else {
          EXPECT_NEAR(got[Stage::kLse].value(at), want.lse, kReordered * (1 + std::abs(want.lse)));
        }
        for (std::int64_t j = 0; j < c.config.head_dim_v; ++j) {
          ASSERT_NEAR(got[Stage::kAttnOut].value(at * c.config.head_dim_v + j),
                      want.out[static_cast<std::size_t>(j)], kReordered)
              << "row " << row << ", head " << head << ", channel " << j;
        }
      }
    }
  }
}

const std::vector<test::Sequence> kRagged{{1, 13, 5}, {2, 0, 2}, {3, 6, 9}, {4, 5, 0}, {5, 17, 1}};

TEST(Attention, MatchesTheFormulaUnderEveryMask) {
  for (const MaskAlign align : {MaskAlign::kBottomRight, MaskAlign::kTopLeft}) {
    for (const MaskVariant variant :
         {MaskVariant::kNull, MaskVariant::kCausal, MaskVariant::kChunkedCausal,
          MaskVariant::kSlidingWindowCausal, MaskVariant::kSlidingWindowNoncausal,
          MaskVariant::kTensor}) {
      AttentionConfig config = small_core_config();
      config.mask = make_mask(variant, 3);
      config.mask.align = align;
      expect_naive(make_case(config, kRagged));
    }
  }
}

TEST(Attention, MatchesTheFormulaForEveryGroupSize) {
  for (const auto& [q_heads, kv_heads] :
       {std::pair{1, 1}, {4, 4}, {6, 1}, {6, 2}, {14, 2}, {3, 3}}) {
    AttentionConfig config = small_core_config();
    config.num_attention_heads = q_heads;
    config.num_key_value_heads = kv_heads;
    config.head_dim = 10;
    config.head_dim_v = 6;
    expect_naive(make_case(config, kRagged));
  }
}

TEST(Attention, MatchesTheFormulaWithScaleCapAndSinks) {
  for (const double scale : {0.0, -0.7, 1.3}) {
    AttentionConfig config = small_core_config();
    config.scale = scale;
    config.logit_softcap = 0.9;
    Case c = make_case(config, kRagged);
    c.weights["sinks"] =
        Tensor::from_values(ElementType::kFloat32, {4}, std::vector<double>{-2.0, 0.0, 1.5, 6.0});
    expect_naive(c);
  }
}

TEST(Attention, SomeRowsAreRowsOfAll) {
  const Case c = make_case(small_core_config(), {{1, 200, 150}, {2, 3, 0}, {3, 80, 70}});
  const Tensor k = logical_keys(c, c.cache);
  const Tensor v = logical_values(c, c.cache);
  const auto keys = as_matrix(k, c.total_keys(), c.config.k_width());
  const auto values = as_matrix(v, c.total_keys(), c.config.v_width());
  const Matrix q = decode_matrix(c.q, c.tokens(), c.config.q_width());
  const AttentionResult all = attend(c, q, keys, values, all_rows(c), Rounding(Mode::kExact));
  const std::vector<std::int64_t> some{0, 63, 64, 65, 149, 150, 219};
  Matrix q_some(static_cast<std::int64_t>(some.size()), q.cols());
  for (std::size_t i = 0; i < some.size(); ++i) {
    q_some.row(static_cast<std::int64_t>(i)) = q.row(some[i]);
  }
  const AttentionResult got = attend(c, q_some, keys, values, some, Rounding(Mode::kExact));
  for (std::size_t i = 0; i < some.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i);
    EXPECT_LE((got.out.row(row) - all.out.row(some[i])).cwiseAbs().maxCoeff(), kReordered);
    EXPECT_LE((got.lse.row(row) - all.lse.row(some[i])).cwiseAbs().maxCoeff(), 16 * kReordered);
  }
  EXPECT_EQ(attend(c, Matrix(0, q.cols()), keys, values, {}, Rounding(Mode::kExact)).out.rows(), 0);
}

TEST(Attention, ARowThatSeesNothingIsZero) {
  AttentionConfig config = small_core_config();
  Case c = make_case(config,
                     {{1, 0, 2}, {2, 1, 3}});  // three queries on one key: the first two see none
  const Trace blind = attention(c, Mode::kExact);
  for (const std::int64_t row : {0, 1, 2, 3}) {
    EXPECT_EQ(blind[Stage::kLse].value(row * 4), -kInfinity);
    EXPECT_EQ(blind[Stage::kAttnOut].value(row * 64 + 5), 0.0);
  }
  EXPECT_TRUE(std::isfinite(blind[Stage::kLse].value(4 * 4)));

  const std::vector<double> sinks{-2.0, 0.5, 1.5, 60.0};
  c.weights["sinks"] = Tensor::from_values(ElementType::kFloat32, {4}, sinks);
  const Trace sunk = attention(c, Mode::kExact);
  for (std::int64_t head = 0; head < 4; ++head) {
    EXPECT_EQ(sunk[Stage::kLse].value(head), sinks[static_cast<std::size_t>(head)]);
    EXPECT_EQ(sunk[Stage::kAttnOut].value(head * 16), 0.0);
  }
}

TEST(Attention, OneVisibleKeyGivesItsValue) {
  AttentionConfig config = small_core_config();
  config.mask = make_mask(MaskVariant::kSlidingWindowCausal, 1);
  const Case c = make_case(config, {{1, 7, 7}});
  const Tensor v = logical_values(c, c.cache);
  const Tensor out = attention(c, Mode::kExact)[Stage::kAttnOut];
  for (std::int64_t row = 0; row < 7; ++row) {
    for (std::int64_t head = 0; head < 4; ++head) {
      for (std::int64_t i = 0; i < 16; ++i) {
        EXPECT_EQ(out.value((row * 4 + head) * 16 + i), v.value((row * 2 + head / 2) * 16 + i));
      }
    }
  }
}

TEST(Attention, ScaleZeroIsTheMeanOfWhatIsSeen) {
  AttentionConfig config = small_core_config();
  config.scale = 0.0;
  const Case c = make_case(config, {{1, 9, 9}});
  const Tensor v = logical_values(c, c.cache);
  const Trace got = attention(c, Mode::kExact);
  double sum = 0.0;
  for (std::int64_t row = 0; row < 9; ++row) {
    sum += v.value(row * 32);
    const auto n = static_cast<double>(row + 1);
    EXPECT_NEAR(got[Stage::kAttnOut].value(row * 64), sum / n, kReordered);
    EXPECT_NEAR(got[Stage::kLse].value(row * 4), std::log(n), 4 * 0x1p-52);
  }
}

TEST(Attention, HugeScoresShareTheWeight) {
  AttentionConfig config = small_core_config();
  config.scale = 1e30;
  Case c = make_case(config, {{1, 4, 1}});
  for (std::int64_t key = 0; key < 4; ++key) {  // four equal keys
    for (std::int64_t i = 0; i < 32; ++i) {
      c.cache.k.set_value(c.cache.k_index(0, key) + i, 1.0 + static_cast<double>(i));
    }
  }
  const Tensor v = logical_values(c, c.cache);
  const Tensor out = attention(c, Mode::kExact)[Stage::kAttnOut];
  const double mean = (v.value(0) + v.value(32) + v.value(64) + v.value(96)) / 4.0;
  EXPECT_NEAR(out.value(0), mean, kReordered);
}

/// A windowed core case whose first sequence has ten keys and whose rows see the last three each.
Case windowed() {
  AttentionConfig config = small_core_config();
  config.mask = make_mask(MaskVariant::kSlidingWindowCausal, 3);
  return make_case(config, {{1, 10, 4}, {2, 5, 2}});
}

TEST(Attention, HiddenKeysTakeNoPartWhateverTheirBits) {
  // Rows sit at positions 6 .. 9, so row i of the first sequence sees keys 4+i .. 6+i.
  const Trace clean = attention(windowed(), Mode::kExact);
  for (const double poison : {kNaN, kInfinity, -kInfinity}) {
    Case c = windowed();
    for (const std::int64_t key : {0, 3, 4}) {
      for (std::int64_t i = 0; i < 32; ++i) {
        c.cache.k.set_value(c.cache.k_index(0, key) + i, poison);
        c.cache.v.set_value(c.cache.v_index(0, key) + i, poison);
      }
    }
    const Trace got = attention(c, Mode::kExact);
    for (std::int64_t i = 0; i < got[Stage::kAttnOut].size(); ++i) {
      const double v = got[Stage::kAttnOut].value(i);
      if (i < 64) {  // row 0 sees key 4
        EXPECT_FALSE(std::isfinite(v)) << i;
      } else {
        EXPECT_NEAR(v, clean[Stage::kAttnOut].value(i), kReordered) << i;
      }
    }
  }
}

TEST(Attention, KeysThatATensorMaskHidesTakeNoPart) {
  AttentionConfig config = small_core_config();
  config.mask.variant = MaskVariant::kTensor;
  Case c = make_case(config, {{1, 5, 3}});
  for (std::int64_t row = 0; row < 3; ++row) {
    c.mask.set_value(row * 5 + 2, -kInfinity);  // the third key, between seen ones
  }
  const Trace clean = attention(c, Mode::kExact);
  expect_naive(c);
  for (std::int64_t i = 0; i < 32; ++i) {
    c.cache.k.set_value(c.cache.k_index(0, 2) + i, kNaN);
    c.cache.v.set_value(c.cache.v_index(0, 2) + i, kNaN);
  }
  const Trace got = attention(c, Mode::kExact);
  EXPECT_LE(test::largest_difference(got[Stage::kAttnOut], clean[Stage::kAttnOut]), kReordered);
}

TEST(Attention, NaNInOneQueryRowStaysThere) {
  Case c = windowed();
  c.q.set_value((1 * 4 + 2) * 16 + 3, kNaN);  // row 1, head 2
  const Tensor out = attention(c, Mode::kExact)[Stage::kAttnOut];
  for (std::int64_t i = 0; i < out.size(); ++i) {
    EXPECT_EQ(std::isnan(out.value(i)), i / 16 == 1 * 4 + 2) << i;
  }
}

TEST(Attention, NaNInOneKeyHeadReachesItsGroupOnly) {
  Case c = windowed();
  c.cache.k.set_value(c.cache.k_index(0, 8) + 16,
                      kNaN);  // key 8, kv head 1: rows 2 and 3, heads 2, 3
  const Tensor lse = attention(c, Mode::kExact)[Stage::kLse];
  for (std::int64_t i = 0; i < lse.size(); ++i) {
    const bool reached = (i / 4 == 2 || i / 4 == 3) && i % 4 >= 2;
    EXPECT_EQ(std::isnan(lse.value(i)), reached) << i;
  }
}

TEST(Attention, InfiniteScoreMakesTheRowNaN) {
  Case c = make_case(small_core_config(), {{1, 3, 1}});
  c.q.set_value(0, 1.0);
  c.cache.k.set_value(c.cache.k_index(0, 1), kInfinity);
  const Trace got = attention(c, Mode::kExact);
  EXPECT_TRUE(std::isnan(got[Stage::kAttnOut].value(0)));
  EXPECT_TRUE(std::isfinite(got[Stage::kAttnOut].value(3 * 16)));  // head 3 reads kv head 1
}

}  // namespace
}  // namespace attn::reference
