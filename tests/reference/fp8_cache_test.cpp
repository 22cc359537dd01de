// float8 caches: what is stored, read back and left alone, for every granularity of scales.

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "reference/reference.h"
#include "reference/stages/attention.h"
#include "reference/stages/kv_cache.h"
#include "tests/reference/make_case.h"

namespace attn::reference {
namespace {

constexpr ElementType kF32 = ElementType::kFloat32;
const Rounding kExact(Mode::kExact);
const Rounding kFaithful(Mode::kFaithful);

/// Two kv heads of two channels under two query heads, one new row after one cached.
Case one_row(ScaleGranularity granularity) {
  AttentionConfig config = test::small_config();
  config.num_attention_heads = 2;
  config.head_dim = config.head_dim_v = 2;
  config.kv_cache.dtype = ElementType::kFloat8E4M3FN;
  config.kv_cache.scale_granularity = granularity;
  return test::make_case(config, {{1, 1, 1}});
}

Matrix row(const std::vector<double>& values) {
  return Eigen::Map<const Matrix>(values.data(), 1, std::ssize(values));
}

/// Row 1, the new one, of a logical cache [2, Hkv, D].
std::vector<double> new_row(const Tensor& logical) {
  const std::vector<double> all = logical.values();
  return {all.begin() + 4, all.end()};
}

TEST(Fp8Cache, WithoutScalesRoundsAndSaturates) {
  const Case c = one_row(ScaleGranularity::kNone);
  const Matrix k = row({1.0625, 1.2, 500, -0.0001});
  const KvCache after = store(c, k, k, kExact);
  // 1.0625, a tie, to 1 (even); 1.2 to 1.25; 500 to 448; 0.0001 below half of 2^-9.
  const std::vector<double> want{1, 1.25, 448, -0.0};
  EXPECT_EQ(new_row(read_back(c, after, k, k, kExact).k), want);
  EXPECT_EQ(new_row(read_back(c, after, k, k, kFaithful).v), want);
}

TEST(Fp8Cache, AScalePerHeadDividesAndMultiplies) {
  Case c = one_row(ScaleGranularity::kHead);
  c.cache.k_scale = Tensor::from_values(kF32, {2}, std::vector<double>{0.5, 3});
  c.cache.v_scale = Tensor::from_values(kF32, {2}, std::vector<double>{4, 0.25});
  const Matrix x = row({1.1, 3, 1.1, 3});
  const LogicalCache got = read_back(c, store(c, x, x, kExact), x, x, kExact);
  // 1.1 / 0.5 = 2.2 to 2.25; 3 / 0.5 = 6; 1.1 / 3 = 0.3667 = 11.7 / 32 to 12 / 32; 1.
  EXPECT_EQ(new_row(got.k), (std::vector<double>{1.125, 3, 1.125, 3}));
  // 1.1 / 4 = 0.275 = 8.8 / 32 to 9 / 32; 3 / 4; 1.1 / 0.25 = 4.4 to 4.5; 12.
  EXPECT_EQ(new_row(got.v), (std::vector<double>{1.125, 3, 1.125, 3}));
}

TEST(Fp8Cache, AScalePerTensor) {
  Case c = one_row(ScaleGranularity::kTensor);
  c.cache.k_scale = Tensor::scalar(kF32, 2);
  c.cache.v_scale = Tensor::scalar(kF32, 0.25);
  const Matrix x = row({1.1, 3, 448, 1000});
  const LogicalCache got = read_back(c, store(c, x, x, kExact), x, x, kExact);
  // 0.55 = 8.8 / 16 to 9 / 16; 1.5; 224; 500 to 448. 4.4 to 4.5; 12; both saturate at 112.
  EXPECT_EQ(new_row(got.k), (std::vector<double>{1.125, 3, 448, 896}));
  EXPECT_EQ(new_row(got.v), (std::vector<double>{1.125, 3, 112, 112}));
}

TEST(Fp8Cache, AScalePerTokenAndHeadIsMadeFromTheRow) {
  const Case c = one_row(ScaleGranularity::kTokenHead);
  const Matrix k = row({7, 0.1, 0, 0});
  const Matrix v = row({0.875, -1.75, 3, 0});
  const KvCache after = store(c, k, v, kExact);
  const std::int64_t slot = c.cache.slot(0, 1);
  // 7 / 448 = 2^-6, a row of zeros 1; 1.75 / 448 = 2^-8; 3 / 448 in float32.
  EXPECT_EQ(after.k_scale.value(2 * slot), 0x1p-6);
  EXPECT_EQ(after.k_scale.value(2 * slot + 1), 1.0);
  EXPECT_EQ(after.v_scale.value(2 * slot), 0x1p-8);
  EXPECT_EQ(after.v_scale.value(2 * slot + 1), static_cast<double>(3.0F / 448.0F));
  const LogicalCache got = read_back(c, after, k, v, kExact);
  // 0.1 * 64 = 6.4 to 6.5.
  EXPECT_EQ(new_row(got.k), (std::vector<double>{7, 6.5 / 64, 0, 0}));
  EXPECT_EQ(new_row(got.v),
            (std::vector<double>{0.875, -1.75, 448 * static_cast<double>(3.0F / 448.0F), 0}));
  // The cached row's scales, and those of every other slot, are as they were.
  for (std::int64_t i = 0; i < after.k_scale.size(); ++i) {
    if (i / 2 != slot) {
      EXPECT_EQ(after.k_scale.code(i), c.cache.k_scale.code(i)) << i;
      EXPECT_EQ(after.v_scale.code(i), c.cache.v_scale.code(i)) << i;
    }
  }
}

TEST(FaithfulFp8Cache, DividesInFloat32AndReadsFloat32) {
  Case c = one_row(ScaleGranularity::kTensor);
  c.cache.k_scale = Tensor::scalar(kF32, 1.0 + 0x1p-12);
  c.cache.v_scale = Tensor::scalar(kF32, 1.0 + 0x1p-23);
  // k: code 1 * (1 + 2^-12) needs no rounding. v = 1.0625 + 2^-23, a float32, over 1 + 2^-23 is
  // 1.0625 - 0.0625 * 2^-23 + ..., below the tie of 1 and 1.125: code 1. In float32 it is the tie
  // itself, which also goes to 1; with 1.1875 (1.125 and 1.25, to even 1.25) the two differ:
  // (1.1875 + 2^-23) / (1 + 2^-23) = 1.1875 - 0.1875 * 2^-23, to 1.125; in float32 1.1875, to 1.25.
  const double tie = 1.1875 + 0x1p-23;
  const Matrix x = row({tie, tie, tie, tie});
  const KvCache exact = store(c, x, x, kExact);
  const KvCache faithful = store(c, x, x, kFaithful);
  const std::int64_t at = c.cache.v_index(0, 1);
  EXPECT_EQ(exact.v.value(at), 1.125);
  EXPECT_EQ(faithful.v.value(at), 1.25);
  // 1.25 * (1 + 2^-23) = 1.25 + 1.25 * 2^-23 in float32 1.25 + 2^-23; 1.125 likewise.
  EXPECT_EQ(new_row(read_back(c, faithful, x, x, kFaithful).v)[0], 1.25 + 0x1p-23);
  EXPECT_EQ(new_row(read_back(c, exact, x, x, kExact).v)[0], 1.125 * (1.0 + 0x1p-23));
}

TEST(FaithfulFp8Cache, ProbabilitiesHaveTheTypeOfTheActivations) {
  // e = 1 and exp(-1) = 0.36788: to bfloat16 0.3671875, to e4m3 it would be 0.375.
  Case c = one_row(ScaleGranularity::kNone);
  c.config.dtype = ElementType::kBFloat16;
  c.config.num_attention_heads = c.config.num_key_value_heads = 1;
  c.config.entry_point = EntryPoint::kAttention;
  c.config.scale = 1.0;
  c.input_row_offsets = test::indices({0, 1});
  c.cache_lengths = test::indices({2});
  Matrix k(2, 2);
  k << 0, 0, -1, 0;
  Matrix v(2, 2);
  v << 0, 0, 1, 0;
  const std::vector<std::int64_t> rows{0};
  const double out = attend(c, row({1.0, 0.0}), k, v, rows, kFaithful).out(0, 0);
  EXPECT_EQ(out, round_to(ElementType::kBFloat16, 0.3671875 / (1.0 + std::exp(-1.0))));
}

TEST(Fp8Cache, ForwardAndMaterializeLeaveTheSameBits) {
  for (const ScaleGranularity granularity :
       {ScaleGranularity::kNone, ScaleGranularity::kTensor, ScaleGranularity::kHead,
        ScaleGranularity::kTokenHead}) {
    AttentionConfig config = test::small_config();
    config.kv_cache.dtype = ElementType::kFloat8E4M3FN;
    config.kv_cache.scale_granularity = granularity;
    const Case c = test::make_case(config, {{1, 5, 3}, {2, 0, 6}, {3, 2, 0}});
    Case materialize_case = c;
    materialize_case.config.entry_point = EntryPoint::kMaterializeKvFromHidden;
    for (const Mode mode : {Mode::kExact, Mode::kFaithful}) {
      const Trace a = forward(c, mode);
      const Trace b = materialize_kv_from_hidden(materialize_case, mode);
      EXPECT_TRUE(*a.cache == *b.cache) << name_of(granularity);
      EXPECT_EQ(a.cache->k == c.cache.k, false);
      // Scales that are the config's stay; those per token are written.
      EXPECT_EQ(a.cache->k_scale == c.cache.k_scale, granularity != ScaleGranularity::kTokenHead);
    }
  }
}

}  // namespace
}  // namespace attn::reference
