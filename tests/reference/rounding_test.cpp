// One hand-worked case per rounding point of the layer as it runs, bit for bit. bfloat16 has 8
// significant bits: values in [1, 2) are 2^-7 apart, ties go to the even last bit.

#include "reference/stages/rounding.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "reference/stages/attention.h"
#include "reference/stages/kv_cache.h"
#include "reference/stages/output.h"
#include "reference/stages/projection.h"
#include "reference/stages/qk_norm.h"
#include "reference/stages/rope.h"
#include "tests/reference/make_case.h"

namespace attn::reference {
namespace {

using test::indices;

constexpr ElementType kBF16 = ElementType::kBFloat16;
constexpr ElementType kF32 = ElementType::kFloat32;
const Rounding kExact(Mode::kExact);
const Rounding kFaithful(Mode::kFaithful);

/// One head of `head_dim` channels on two hidden ones, bfloat16.
Case one_head(std::int64_t head_dim) {
  Case c;
  c.config.num_attention_heads = 1;
  c.config.num_key_value_heads = 1;
  c.config.head_dim = head_dim;
  c.config.head_dim_v = head_dim;
  c.config.hidden_size = 2;
  c.config.dtype = kBF16;
  c.config.kv_cache.dtype = kBF16;
  c.config.kv_cache.page_size = 4;
  return c;
}

Matrix row(const std::vector<double>& values) {
  return Eigen::Map<const Matrix>(values.data(), 1, static_cast<std::int64_t>(values.size()));
}

Tensor stored(ElementType type, Shape shape, const std::vector<double>& values) {
  return Tensor::from_values(type, std::move(shape), values);
}

TEST(RoundingPoint, ProductAndBiasRoundOneAfterTheOther) {
  Case c = one_head(2);
  c.config.has_bias = true;
  c.weights["q_proj.weight"] = stored(kBF16, {2, 2}, {1.0, 1.0, 1.0, 0.0});
  c.weights["q_proj.bias"] = stored(kBF16, {2}, {1.0, 0.0});
  const Matrix x = row({256.0, 1.0});
  // Channel 0: 256 + 1 = 257 lies between 256 and 258 and goes to 256 (even); + 1 = 257 goes to 256
  // again. A single rounding of 258 would stay 258.
  EXPECT_EQ(project(c, Projection::kQ, x, kFaithful), row({256.0, 256.0}));
  EXPECT_EQ(project(c, Projection::kQ, x, kExact), row({258.0, 256.0}));
}

TEST(RoundingPoint, WeightBoundIsRoundedToTheWeightsType) {
  Case c = one_head(2);
  c.config.clip_qkv = 0.3;
  c.weights["q_proj.weight"] = stored(kBF16, {2, 2}, {1.0, 0.0, -1.0, 0.25});
  // 0.3 = 77 * 2^-8 less 0.2 * 2^-8, so the bound becomes 77 * 2^-8. Three times that, 231 * 2^-8,
  // is a bfloat16; three times 0.3 = 230.4 * 2^-8 would go to 230 * 2^-8.
  EXPECT_EQ(project(c, Projection::kQ, row({3.0, 0.0}), kFaithful),
            row({231 * 0x1p-8, -231 * 0x1p-8}));
  EXPECT_EQ(project(c, Projection::kQ, row({1.0, 0.0}), kExact), row({0.3, -0.3}));
}

TEST(RoundingPoint, ActivationBoundIsRoundedToTheType) {
  Case c = one_head(2);
  c.config.clip_activations = 0.3;
  c.weights["q_proj.weight"] = stored(kBF16, {2, 2}, {1.0, 0.0, 0.25, 0.0});
  EXPECT_EQ(project(c, Projection::kQ, row({1.0, 0.0}), kFaithful), row({0.30078125, 0.25}));
  EXPECT_EQ(project(c, Projection::kQ, row({1.0, 0.0}), kExact), row({0.3, 0.25}));
}

TEST(RoundingPoint, NormEpsIsRoundedToTheType) {
  // eps = 1 + 2^-8 lies between 1 and 1 + 2^-7 and goes to 1. mean(v^2) < 2^-39 does not matter, so
  // the faithful result is v g = 103 * 1.25 * 2^-26 = 515 * 2^-28, which goes up to 516 * 2^-28
  // (515 has ten bits, the candidates are 512 and 516). With eps as it is, v g / sqrt(1.0039) = 514
  // * 2^-28 would be a hair below the tie and go down to 512.
  Case c = one_head(2);
  c.config.rms_norm_eps = 1.0 + 0x1p-8;
  const double v = 103 * 0x1p-26;
  const Tensor gamma = stored(kBF16, {2}, {1.25, 1.25});
  const Matrix y = qk_norm(c.config, gamma, row({v, v}), kFaithful);
  EXPECT_EQ(y, row({516 * 0x1p-28, 516 * 0x1p-28}));
  const Matrix exact = qk_norm(c.config, gamma, row({v, v}), kExact);
  EXPECT_EQ(round_to(kBF16, exact(0, 0)), 512 * 0x1p-28);
}

TEST(RoundingPoint, NormGammaIsRoundedToTheType) {
  // mean(9, 1, 1, 1) = 3 and eps 1: 1/sqrt(4) = 1/2. gamma 1 + 2^-8, stored in float32, goes to 1,
  // and 1.5 * 1 = 1.5; unrounded, 1.5 + 1.5 * 2^-8 would go up to 1.5 + 2^-7.
  Case c = one_head(4);
  c.config.rms_norm_eps = 1.0;
  const double g = 1.0 + 0x1p-8;
  const Tensor gamma = stored(kF32, {4}, {g, g, g, g});
  const Matrix v = row({3.0, 1.0, 1.0, 1.0});
  EXPECT_EQ(qk_norm(c.config, gamma, v, kFaithful), row({1.5, 0.5, 0.5, 0.5}));
  EXPECT_EQ(qk_norm(c.config, gamma, v, kExact), row({1.5 * g, 0.5 * g, 0.5 * g, 0.5 * g}));
}

TEST(RoundingPoint, NormRoundsOnceAfterGamma) {
  // mean(1, 15) = 8 and eps 1: 1/3. 5/3 = 213.33 * 2^-7 goes to 213 * 2^-7 at once. Rounding 1/3
  // first, to 171 * 2^-9, would give 5 * 171 * 2^-9 = 213.75 * 2^-7 and go to 214 * 2^-7.
  Case c = one_head(2);
  c.config.rms_norm_eps = 1.0;
  const Tensor gamma = stored(kBF16, {2}, {5.0, 1.0});
  const double v = std::sqrt(15.0);  // not a bfloat16, but the stage takes any value
  EXPECT_EQ(qk_norm(c.config, gamma, row({1.0, v}), kFaithful)(0, 0), 213 * 0x1p-7);
}

TEST(RoundingPoint, RopeRoundsOneProductAndFusesTheOther) {
  Case c = one_head(2);
  // a = b = 129/128, c = 5/8, s = 25/32.
  //   b s = 3225/4096 = 0.787353515625, between 201/256 and 202/256 and nearer to 202/256 =
  //   0.7890625 a c = 645/1024 = 0.6298828125 re = 645/1024 - 202/256 = -163/1024 = -0.1591796875,
  //   which has 8 bits
  // Two rounded products would give 161/256 - 202/256 = -41/256 = -0.16015625; none, -645/4096,
  // which goes to -161/1024 = -0.1572265625.
  //   im = fma(a, s, r(b c)), b c between 161/256 and 162/256, nearer to 161/256:
  //   3225/4096 + 2576/4096 = 5801/4096 = 1.416..., to 2^-7: 181/128 = 1.4140625; two rounded
  //   products would give 363/256, between 181/128 and 182/128, and go to the even 182/128
  //   = 1.421875.
  const Tensor table = stored(kF32, {1, 2}, {0.625, 0.78125});
  const std::vector<std::int64_t> positions{0};
  const Matrix x = row({129.0 / 128, 129.0 / 128});
  EXPECT_EQ(rotate(c.config, table, x, positions, kFaithful), row({-0.1591796875, 1.4140625}));
  EXPECT_EQ(rotate(c.config, table, x, positions, kExact), row({-645.0 / 4096, 5805.0 / 4096}));
}

TEST(RoundingPoint, RopeTableIsCastToTheType) {
  Case c = one_head(2);
  // sin = 2^-5 (1 + 2^-8) is a tie and goes to 2^-5, so 3 sin = 3 * 2^-5. With the stored entry it
  // would be 3 * 2^-5 + 0.75 * 2^-11 and go up to the next bfloat16, 3 * 2^-5 + 2^-11.
  const Tensor table = stored(kF32, {1, 2}, {1.0, 0x1p-5 * (1.0 + 0x1p-8)});
  const std::vector<std::int64_t> positions{0};
  EXPECT_EQ(rotate(c.config, table, row({3.0, 0.0}), positions, kFaithful), row({3.0, 3 * 0x1p-5}));
}

TEST(RoundingPoint, Float32RopeFusesInFloat32) {
  Case c = one_head(2);
  c.config.dtype = kF32;
  // a c = (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24, less b s = 1: the fused sum keeps the 2^-24, a rounded
  // product would lose it (1 + 2^-11 + 2^-24 is a tie that goes down).
  const double t = 1.0 + 0x1p-12;
  const Tensor table = stored(kF32, {1, 2}, {t, 1.0});
  const std::vector<std::int64_t> positions{0};
  EXPECT_EQ(rotate(c.config, table, row({t, 1.0}), positions, kFaithful)(0, 0), 0x1p-11 + 0x1p-24);
}

TEST(RoundingPoint, FusedSumsAreRoundedOnce) {
  // (1 + 2^-12)^2 + 2^-80 lies just above the float32 tie 1 + 2^-11 + 2^-24 and goes up. Float64
  // cannot hold the 2^-80, and would round the tie down.
  const double t = 1.0 + 0x1p-12;
  EXPECT_EQ(kFaithful.fma(kF32, t, t, 0x1p-80), 1.0 + 0x1p-11 + 0x1p-23);
  EXPECT_EQ(kFaithful.fma(kF32, t, t, 0.0), 1.0 + 0x1p-11);
  EXPECT_EQ(kFaithful.fma(kF32, -t, t, -0x1p-80), -(1.0 + 0x1p-11 + 0x1p-23));
  // 1 + 3 * 2^-8 is a bfloat16 tie that goes up; less 2^-60 it goes down.
  EXPECT_EQ(kFaithful.fma(kBF16, 1.0, 1.0 + 3 * 0x1p-8, -0x1p-60), 1.0 + 0x1p-7);
  EXPECT_EQ(kFaithful.fma(kBF16, 1.0, 1.0 + 3 * 0x1p-8, 0.0), 1.0 + 0x1p-6);
  EXPECT_TRUE(std::isnan(kFaithful.fma(kBF16, 1.0, std::numeric_limits<double>::infinity(),
                                       -std::numeric_limits<double>::infinity())));
  EXPECT_EQ(kFaithful.fma(kBF16, 1.0, std::numeric_limits<double>::infinity(), 1.0),
            std::numeric_limits<double>::infinity());
}

TEST(RoundingPoint, CacheRoundsToItsOwnType) {
  AttentionConfig config = test::small_config();
  config.kv_cache.dtype = kBF16;
  const Case c = test::make_case(config, {{1, 0, 1}});
  const Matrix k =
      Matrix::Constant(1, c.config.k_width(), 1.0 + 3 * 0x1p-9);            // past the tie at 2^-8
  const Matrix v = Matrix::Constant(1, c.config.v_width(), -1.0 - 0x1p-8);  // a tie, to even
  const KvCache after = store(c, k, v, kFaithful);
  const LogicalCache faithful = read_back(c, after, k, v, kFaithful);
  EXPECT_EQ(faithful.k.value(0), 1.0 + 0x1p-7);
  EXPECT_EQ(faithful.v.value(0), -1.0);
  const LogicalCache exact = read_back(c, after, k, v, kExact);
  EXPECT_EQ(exact.k.value(0), 1.0 + 3 * 0x1p-9);
  EXPECT_EQ(exact.v.value(0), -1.0 - 0x1p-8);
}

/// One query of one head with two channels on the given keys (channel 0) and values (channel 0).
AttentionResult attend_to(const std::vector<double>& keys, const std::vector<double>& values,
                          std::optional<double> scale, double q, Rounding r) {
  Case c = one_head(2);
  c.config.entry_point = EntryPoint::kAttention;
  c.config.scale = scale;
  c.input_row_offsets = indices({0, 1});
  c.cache_lengths = indices({static_cast<std::int64_t>(keys.size())});
  Matrix k = Matrix::Zero(static_cast<std::int64_t>(keys.size()), 2);
  Matrix v = k;
  k.col(0) = Eigen::Map<const Eigen::VectorXd>(keys.data(), k.rows());
  v.col(0) = Eigen::Map<const Eigen::VectorXd>(values.data(), v.rows());
  const std::vector<std::int64_t> rows{0};
  return attend(c, row({q, 0.0}), k, v, rows, r);
}

TEST(RoundingPoint, AttentionRoundsItsOutputOnce) {
  // Two equal weights: (1 + 1 + 2^-7) / 2 = 1 + 2^-8, a tie that goes to 1.
  EXPECT_EQ(attend_to({0, 0}, {1.0, 1.0 + 0x1p-7}, 1.0, 1.0, kFaithful).out(0, 0), 1.0);
  EXPECT_EQ(attend_to({0, 0}, {1.0, 1.0 + 0x1p-7}, 1.0, 1.0, kExact).out(0, 0), 1.0 + 0x1p-8);
}

TEST(RoundingPoint, ProbabilitiesAreRoundedForTheValuesAndNotForTheirSum) {
  // Scores 0 and -1: e = 1 and 0.36788, to bfloat16 (steps of 2^-9) 188 * 2^-9 = 0.3671875, and Z =
  // 1.36788. V = (0, 1): 0.3671875 / 1.36788 = 0.26844 = 137.4 * 2^-9, to 137 * 2^-9. Unrounded
  // probabilities give 0.26894 = 137.7 * 2^-9, to 138 * 2^-9; with the sum rounded too, 0.26857, to
  // 138.
  const AttentionResult faithful = attend_to({0, -1}, {0.0, 1.0}, 1.0, 1.0, kFaithful);
  EXPECT_EQ(faithful.out(0, 0), 137 * 0x1p-9);
  EXPECT_EQ(faithful.lse(0, 0),
            static_cast<double>(static_cast<float>(std::log1p(std::exp(-1.0)))));
}

TEST(RoundingPoint, ScaleAndLseAreFloat32) {
  // float32(0.1) * 9 = 0.90000001341, to float32 (steps of 2^-24) 0.9000000357627869 is its
  // neighbour above; 0.1 * 9 would give 0.8999999761581421.
  EXPECT_EQ(attend_to({9}, {1.0}, 0.1, 1.0, kFaithful).lse(0, 0), 0.9000000357627869);
  EXPECT_EQ(attend_to({9}, {1.0}, 0.1, 1.0, kExact).lse(0, 0), 0.1 * 9);
}

TEST(RoundingPoint, OutputRoundsOnce) {
  Case c = one_head(2);
  c.weights["o_proj.weight"] = stored(kBF16, {2, 2}, {1.0, 1.0, 1.0, -1.0});
  // 1 + 2^-8 is a tie and goes to 1; 1 - 2^-8 is a bfloat16.
  EXPECT_EQ(project_output(c, row({1.0, 0x1p-8}), kFaithful), row({1.0, 1.0 - 0x1p-8}));
  EXPECT_EQ(project_output(c, row({1.0, 0x1p-8}), kExact), row({1.0 + 0x1p-8, 1.0 - 0x1p-8}));
}

TEST(RoundingPoint, Float32AndFloat16RoundAsTheirTypesDo) {
  Case c = one_head(2);
  for (const auto& [type, half_ulp] :
       {std::pair{kF32, 0x1p-24}, {ElementType::kFloat16, 0x1p-11}}) {
    c.config.dtype = type;
    c.weights["o_proj.weight"] = stored(type, {2, 2}, {1.0, 1.0, 1.0, 3.0});
    // The half ulp goes to even, three of them up to the next even: 1 + 4 half ulps.
    EXPECT_EQ(project_output(c, row({1.0, half_ulp}), kFaithful), row({1.0, 1.0 + 4 * half_ulp}));
  }
}

}  // namespace
}  // namespace attn::reference
