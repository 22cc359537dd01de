#include "harness/compare/stage_bounds.h"

#include <gmock/gmock.h>

#include <cmath>
#include <random>

#include "harness/compare/attention_block.h"
#include "harness/compare/attention_bound.h"
#include "harness/compare/attention_rows.h"

// One or two elements per stage, small enough to work the formulas of docs/numerics.md by hand.
// Float32 roundoff is written u, bfloat16's w.

namespace attn::harness {
namespace {

constexpr double kU = 0x1p-24;
constexpr double kW = 0x1p-8;
/// The formulas' terms below 2^-100 and our own 1e-15 are left out of the working.
constexpr double kRelative = 1e-6;

testing::Matcher<double> Near(double want) {
  return testing::DoubleNear(want, std::abs(want) * kRelative);
}

RowMatrix matrix(std::initializer_list<std::initializer_list<double>> rows) {
  RowMatrix m(static_cast<Eigen::Index>(rows.size()),
              static_cast<Eigen::Index>(rows.begin()->size()));
  Eigen::Index r = 0;
  for (const auto& row : rows) {
    Eigen::Index c = 0;
    for (const double v : row) m(r, c++) = v;
    ++r;
  }
  return m;
}

Bounded exact(RowMatrix y) { return {std::move(y), {}, {}, {}}; }

Projection weights(RowMatrix w) {
  Projection p;
  p.weight = std::move(w);
  return p;
}

class StageBounds : public testing::Test {
 protected:
  Arithmetic arithmetic_;
  BoundOptions options_{arithmetic_, true, true};
};

TEST_F(StageBounds, ProjectionOfATap) {
  // x = (3, 1), W = (1, -1): g = 2, A = 4, K = 2, chain 2: min(2, 2 sqrt 2) = 2.
  // S = u (2 * 4 + 2 * 4 / 4) = 10 u; 2 u (2 + 2) = 8 u; float32 rounding u * 2. Together 20 u.
  const Bounded out =
      project(exact(matrix({{3, 1}})), weights(matrix({{1, -1}})), ElementType::kFloat32, options_);
  EXPECT_EQ(out.y(0, 0), 2.0);
  EXPECT_THAT(out.d(0, 0), Near(20 * kU));
  EXPECT_THAT(out.parts[0].total(), Near(20 * kU));
  EXPECT_THAT(out.parts[0].sum, Near(10 * kU));
}

TEST_F(StageBounds, ProjectionWithBiasUsesTheSumAndNotTheResult) {
  // The same with b = -2: y = 0, but g = 2. 10 u + 2 u (0 + 2) = 14 u, and no rounding of 0.
  Projection p = weights(matrix({{1, -1}}));
  p.bias = Eigen::VectorXd::Constant(1, -2.0);
  const Bounded out = project(exact(matrix({{3, 1}})), p, ElementType::kFloat32, options_);
  EXPECT_EQ(out.y(0, 0), 0.0);
  EXPECT_THAT(out.d(0, 0), Near(14 * kU));
  // Rounded before the bias too, in bfloat16: w |g| = 2 w beside the rest.
  arithmetic_.round_twice = true;
  const Bounded twice = project(exact(matrix({{3, 1}})), p, ElementType::kBFloat16, options_);
  EXPECT_THAT(twice.d(0, 0), Near(2 * kW + 14 * kU + 2 * kW * 14 * kU));
}

TEST_F(StageBounds, ProjectionClipsItsAllowance) {
  // y = 2 clipped at 1: what is beyond by more than d stays at c, which may be rounded: w * 1.
  Projection p = weights(matrix({{1, -1}}));
  p.clip_activations = 1.0;
  const Bounded out = project(exact(matrix({{3, 1}})), p, ElementType::kBFloat16, options_);
  EXPECT_EQ(out.y(0, 0), 1.0);
  EXPECT_THAT(out.d(0, 0), Near(kW));
  // Clipped at 2 - 1e-3 the unclipped allowance, near 2 w = 0.0078, keeps all but 1e-3.
  p.clip_activations = 2.0 - 1e-3;
  const double unclipped = 2 * kW + 18 * kU * (1 + kW);
  EXPECT_THAT(project(exact(matrix({{3, 1}})), p, ElementType::kBFloat16, options_).d(0, 0),
              Near(unclipped - 1e-3 + kW * (2.0 - 1e-3)));
}

TEST_F(StageBounds, ProjectionOfRoundedClippedWeights) {
  // c rounded by 1 part in 1000 moves the clipped weight's term 3 * 1 by 0.003.
  Projection p = weights(matrix({{1, -0.5}}));
  p.clipped = matrix({{1, 0}});
  p.clip_error = 1e-3;
  const double without = project(exact(matrix({{3, 1}})), weights(matrix({{1, -0.5}})),
                                 ElementType::kFloat32, options_)
                             .d(0, 0);
  EXPECT_THAT(
      project(exact(matrix({{3, 1}})), p, ElementType::kFloat32, options_).d(0, 0) - without,
      testing::DoubleNear(0.003, 1e-8));  // its own float32 rounding is 0.003 u
}

TEST_F(StageBounds, ProjectionPropagates) {
  // d = (0.1, 0.1), s = d / 10: linear 0.2; 4 sqrt(0.02) + |0.1 - 0.1| = 0.566;
  // 6 sqrt(2e-4) + 1.8 * 0 = 0.0849, the least.
  Bounded x = exact(matrix({{3, 1}}));
  x.d = matrix({{0.1, 0.1}});
  x.s = x.d / 10;
  const Bounded out = project(x, weights(matrix({{1, -1}})), ElementType::kFloat32, options_);
  EXPECT_THAT(out.parts[0].propagation, Near(6 * std::sqrt(2e-4)));
  // Equal signs move together: 6 sqrt(2e-4) + 1.8 * 0.02 is 0.1209.
  const Bounded same = project(x, weights(matrix({{1, 1}})), ElementType::kFloat32, options_);
  EXPECT_THAT(same.parts[0].propagation, Near(6 * std::sqrt(2e-4) + 1.8 * 0.02));
}

TEST_F(StageBounds, NormOfATap) {
  // x = (3, 4), g = 1, eps = 0: ms = 12.5. rho = u (1 + sqrt 2 + 8); d = |y| rho / (1 - rho) + u
  // |y|.
  const Bounded out = normalize(exact(matrix({{3, 4}})), Eigen::VectorXd::Ones(2), 0.0, options_);
  const double y = 3.0 / std::sqrt(12.5);
  EXPECT_DOUBLE_EQ(out.y(0, 0), y);
  EXPECT_THAT(out.d(0, 0), Near(y * kU * (10 + std::sqrt(2.0))));
}

TEST_F(StageBounds, NormWithARoundedEps) {
  // eps 1e-8 is 0 in float16. x = (1e-4, 1e-4): ms = 2e-8 or 1e-8, so y may be larger by sqrt 2.
  arithmetic_.norm_eps = ElementType::kFloat16;
  const Bounded out =
      normalize(exact(matrix({{1e-4, 1e-4}})), Eigen::VectorXd::Ones(2), 1e-8, options_);
  const double y = std::sqrt(0.5);
  EXPECT_DOUBLE_EQ(out.y(0, 0), y);
  EXPECT_THAT(out.d(0, 0), testing::DoubleNear(1.0 - y, 40 * kU));  // (1 + sqrt 2 + 9) u and more
}

TEST_F(StageBounds, NormNeverExceedsItsCap) {
  // d_in far above x: |y| <= sqrt(D) bounds the error by |y| + 1.001 sqrt 2.
  Bounded x = exact(matrix({{1e-9, 0}}));
  x.d = matrix({{1, 1}});
  x.s = x.d;
  const Bounded out = normalize(x, Eigen::VectorXd::Ones(2), 0.0, options_);
  const double cap = out.y(0, 0) + 1.001 * std::sqrt(2.0);
  EXPECT_THAT(out.d(0, 0),
              testing::AllOf(testing::Gt(std::sqrt(2.0)), testing::Lt(cap * (1 + 10 * kU))));
}

TEST_F(StageBounds, RopeOfATap) {
  // (a, b) = (3, 4), cos 0.6, sin 0.8: re = 1.8 - 3.2 = -1.4, im = 2.4 + 2.4 = 4.8.
  // re: 2 u * 5 + 1.4 u; im: 2 u * 4.8 + 4.8 u.
  AttentionConfig config;
  config.head_dim = 2;
  const Bounded out = rotate(exact(matrix({{3, 4}})), matrix({{0.6, 0.8}}), config, options_);
  EXPECT_NEAR(out.y(0, 0), -1.4, 1e-15);
  EXPECT_NEAR(out.y(0, 1), 4.8, 1e-15);
  EXPECT_THAT(out.d(0, 0), Near(11.4 * kU));
  EXPECT_THAT(out.d(0, 1), Near(14.4 * kU));
  // A bfloat16 table and native products: w (5 + 1.01 * 3.2 + 1.4) to first order for re.
  arithmetic_.store = arithmetic_.cos_sin = ElementType::kBFloat16;
  arithmetic_.rope_native = true;
  const Bounded native = rotate(exact(matrix({{3, 4}})), matrix({{0.6, 0.8}}), config, options_);
  const double before = kW * (5 + 1.01 * 3.2) + 10 * kU;
  EXPECT_THAT(native.d(0, 0), Near(before + kW * (1.4 + before)));
}

TEST_F(StageBounds, RopeLeavesOtherChannelsAlone) {
  AttentionConfig config;
  config.head_dim = 4;
  const Bounded out = rotate(exact(matrix({{3, 4, 5, 6}})), matrix({{0.6, 0.8}}), config, options_);
  EXPECT_EQ(out.y(0, 2), 5.0);
  EXPECT_EQ(out.d(0, 2), 0.0);
  EXPECT_EQ(out.d(0, 3), 0.0);
  config.rope.rotary_side = RotarySide::kLast;
  const Bounded last =
      rotate(exact(matrix({{5, 6, 3, 4}})), matrix({{0.6, 0.8}}), config, options_);
  EXPECT_EQ(last.d(0, 0), 0.0);
  EXPECT_THAT(last.d(0, 2), Near(11.4 * kU));
}

TEST_F(StageBounds, CacheOfATapIsExact) {
  arithmetic_.cache = ElementType::kBFloat16;
  const Bounded out = store_in_cache(exact(matrix({{1.0 + 0x1p-8, 3}})), options_);
  EXPECT_TRUE(out.exact());
  EXPECT_EQ(out.y(0, 0), 1.0);  // a tie goes to the even code
  // Converted from unrounded values: the tap's own rounding, u, and the cache's.
  arithmetic_.fused_cache = true;
  EXPECT_THAT(store_in_cache(exact(matrix({{3}})), options_).d(0, 0),
              Near(3 * kU + kW * (3 + 3 * kU)));
}

/// One row and head over keys of head_dim 1.
AttentionBlock one_row(Bounded q, Bounded k, Bounded v) {
  AttentionBlock block;
  block.q = std::move(q);
  block.end_key = k.y.rows();
  block.masks = {{0, block.end_key, {}}};
  block.value_dim = v.y.cols();
  block.keys = [k](std::int64_t, std::int64_t) { return k; };
  block.values = [v](std::int64_t, std::int64_t) { return v; };
  return block;
}

TEST_F(StageBounds, AttentionOfOneKey) {
  // q k = 0: t = 0, and the logit error is exp_rel = 2 u alone. lse = 0:
  // log(e^{2u}) + u (h + 2 sqrt h + 4), h = 1 + 3 + 4 = 8.
  // attn_out: |v - o| = 0, so B = 0. A = 2: S = u (2 sqrt 8 * 2 + 8 * 2); (lerr + 4 u) 2 with
  // lerr = u (8 + 2 sqrt 8 + 4); P: u * min(2, 4 * 2 + 2) = 2 u; out: 2 u.
  options_.deviations = false;
  const AttentionBound bound =
      attend(one_row(exact(matrix({{0}})), exact(matrix({{1}})), exact(matrix({{2}}))), options_);
  EXPECT_EQ(bound.lse.y(0, 0), 0.0);
  const double root = 2 * std::sqrt(8.0);
  EXPECT_THAT(bound.lse.d(0, 0), Near(kU * (2 + 12 + root)));
  EXPECT_EQ(bound.out.y(0, 0), 2.0);
  EXPECT_THAT(bound.out.d(0, 0), Near(kU * (root * 2 + 8 * 2 + (12 + root + 4) * 2 + 2 + 2)));
}

TEST_F(StageBounds, AttentionOfTwoKeysAddsTheLogitsErrors) {
  // t = (0, 0), v = (1, -1): p = 1/2 each, o = 0, |v - o| = 1. ds = 2 u each (exp_rel):
  // B = sum p (e^{2u} - 1) * 1 / sum p e^{-2u} = 2 u to first order.
  options_.deviations = false;
  const AttentionBound bound =
      attend(one_row(exact(matrix({{0}})), exact(matrix({{1}, {1}})), exact(matrix({{1}, {-1}}))),
             options_);
  EXPECT_EQ(bound.out.y(0, 0), 0.0);
  EXPECT_THAT(bound.out.parts[0].scores, testing::DoubleNear(2 * kU, 1e-3 * kU));
}

TEST_F(StageBounds, AttentionWhereAnotherKeyMayWin) {
  // Logits +-1e9: float32 cannot hold them to better than tens, so either key may win. The cap by
  // the hull of the values, |v - o| <= 2, is what the error comes to.
  const AttentionBound bound =
      attend(one_row(exact(matrix({{1e5}})), exact(matrix({{1e4}, {1e4 * (1 - 1e-8)}})),
                     exact(matrix({{1}, {-1}}))),
             options_);
  EXPECT_NEAR(bound.out.y(0, 0), 1.0, 1e-4);  // the logits differ by 10
  EXPECT_GT(bound.out.d(0, 0), 1.9);
  EXPECT_LT(bound.out.d(0, 0), 2.0 + 1e-5);
}

TEST_F(StageBounds, RowsThatSeeNothing) {
  AttentionBlock block = one_row(exact(matrix({{1}})), exact(matrix({{1}})), exact(matrix({{2}})));
  block.masks = {{0, 0, {}}};
  const AttentionBound none = attend(block, options_);
  EXPECT_EQ(none.out.y(0, 0), 0.0);
  EXPECT_EQ(none.out.d(0, 0), 0.0);
  EXPECT_EQ(none.lse.y(0, 0), -std::numeric_limits<double>::infinity());
  block.sinks = {3.0};
  const AttentionBound sink = attend(block, options_);
  EXPECT_EQ(sink.out.d(0, 0), 0.0);
  EXPECT_EQ(sink.lse.y(0, 0), 3.0);
  EXPECT_THAT(sink.lse.d(0, 0), Near(9 * kU));  // 2 u |sink| + u |sink|
}

TEST_F(StageBounds, SinkEntersTheDenominator) {
  // t = 0 and sink 0: p = 1/2, o = v / 2. |v - o| = |o| = 1; ds = 2 u for the key, none for the
  // sink: B = sqrt(sum pw w) sqrt(sum p v^2 - o^2 (1 + 1/2)) = (2 u / sqrt 2) * sqrt(2 - 1.5) = u.
  options_.deviations = false;
  AttentionBlock block = one_row(exact(matrix({{0}})), exact(matrix({{1}})), exact(matrix({{2}})));
  block.sinks = {0.0};
  const AttentionBound bound = attend(block, options_);
  EXPECT_DOUBLE_EQ(bound.out.y(0, 0), 1.0);
  EXPECT_DOUBLE_EQ(bound.lse.y(0, 0), std::log(2.0));
  EXPECT_THAT(bound.out.parts[0].scores, testing::DoubleNear(kU, 1e-3 * kU));
}

TEST_F(StageBounds, ValueErrorsAreWeighed) {
  // p = 1/2 each, dv = (0.1, 0.1), sv = dv / 2, v of both signs: linear 0.1;
  // 4 sqrt(0.005) + 0 = 0.28; 6 sqrt(0.00125) = 0.21: the linear one.
  Bounded v = exact(matrix({{1}, {-1}}));
  v.d = matrix({{0.1}, {0.1}});
  v.s = v.d / 2;
  const AttentionBound bound =
      attend(one_row(exact(matrix({{0}})), exact(matrix({{1}, {1}})), v), options_);
  EXPECT_THAT(bound.out.parts[0].propagation, Near(0.1));
}

/// Attention of a row with one key and a sink in each of two groups of heads, and their projection
/// by weights 1 to one output. Keys are off by the whole of d or not at all, as a code at a tie is.
class TwoGroups : public StageBounds {
 protected:
  static constexpr double kStep = 0.125;  // of the key's code

  static double attended(double key) { return 2.0 / (1.0 + std::exp(-key)); }  // v = 2, sink 0

  AttentionBlock group(double step) const {
    Bounded key = exact(matrix({{0.5}}));
    if (step > 0.0) key.d = key.s = matrix({{step}});
    AttentionBlock block = one_row(exact(matrix({{1}})), key, exact(matrix({{2}})));
    block.sinks = {0.0};
    block.output_weight = matrix({{1}});
    return block;
  }
  Bounded projected(double first_step, double second_step) const {
    const AttentionBound a = attend(group(first_step), options_);
    const AttentionBound b = attend(group(second_step), options_);
    Bounded x = Bounded::zeros(1, 2);
    x.y << a.out.y(0, 0), b.out.y(0, 0);
    x.d << a.out.d(0, 0), b.out.d(0, 0);
    x.s << a.out.s(0, 0), b.out.s(0, 0);
    return project(
        x, weights(matrix({{1, 1}})), ElementType::kFloat32, options_,
        {a.projected.variance + b.projected.variance, a.projected.linear + b.projected.linear});
  }
};

TEST_F(TwoGroups, TwoKeysMayBothLieAtATie) {
  const Bounded out = projected(kStep, kStep);
  EXPECT_NEAR(out.y(0, 0), 2 * attended(0.5), 1e-12);
  const double moved = 2 * (attended(0.5 + kStep) - attended(0.5));
  EXPECT_GE(out.d(0, 0), moved);
  EXPECT_LT(out.d(0, 0), 1.2 * moved);  // e^ds - 1 over 1, and the change of the denominator
}

TEST_F(TwoGroups, OneKeyAtATieMovesTheOutputByItself) {
  const Bounded out = projected(kStep, 1e-9);
  const double moved = attended(0.5 + kStep) - attended(0.5);
  EXPECT_GE(out.d(0, 0), moved);
  EXPECT_LT(out.d(0, 0), 1.2 * moved);
}

TEST_F(StageBounds, JointErrorsAreCappedByTheirLargest) {
  // d = (1, 1) by channels, but no more than 0.5 together; deviation 0.01: six of them, 0.06.
  Bounded x = exact(matrix({{1, 1}}));
  x.d = matrix({{1, 1}});
  x.s = matrix({{0, 0}});
  const auto propagated = [&](double variance, double linear) {
    return project(x, weights(matrix({{1, 1}})), ElementType::kFloat32, options_,
                   {matrix({{variance}}), matrix({{linear}})})
        .parts[0]
        .propagation;
  };
  EXPECT_THAT(propagated(1e-4, 0.5), Near(0.06));
  EXPECT_THAT(propagated(1.0, 0.5), Near(0.5));
  EXPECT_THAT(propagated(1.0, 9.0), Near(2.0));
}

/// A kernel of fp8 products, in float64 but for what it declares to round: queries to e4m3 under a
/// power of two, probabilities times 256 to e4m3, the result to bfloat16. Sums are float32's here:
/// what 14 bits may lose of logits would hide most of it.
class Fp8Products : public StageBounds {
 protected:
  static constexpr Eigen::Index kRows = 6, kKeys = 300, kDim = 64, kValueDim = 16;

  Fp8Products() {
    std::mt19937_64 random(7);
    std::normal_distribution<double> normal;
    for (RowMatrix* m : {&q_, &k_, &v_}) {
      for (double& x : m->reshaped()) x = round_to(ElementType::kBFloat16, normal(random));
    }
    q_.row(1) *= 0x1p-30;  // scales are each row's own
    q_.row(2).setZero();
    arithmetic_.out = ElementType::kBFloat16;
    arithmetic_.probabilities = ElementType::kFloat8E4M3FN;
    arithmetic_.probability_scale = 256.0;
    arithmetic_.e4m3_queries = true;
  }

  static RowMatrix rounded(const RowMatrix& q, int top) {
    RowMatrix out = q;
    for (Eigen::Index r = 0; r < q.rows(); ++r) {
      const double most = q.row(r).cwiseAbs().maxCoeff();
      if (most == 0.0) continue;
      const double up = std::exp2(top - std::floor(std::log2(most)));
      for (double& x : out.row(r)) x = round_to(ElementType::kFloat8E4M3FN, x * up) / up;
    }
    return out;
  }
  static constexpr double kUnrounded = 0.0;
  /// `unit`: what probabilities are multiplied by.
  RowMatrix outputs(const RowMatrix& q, double unit) const {
    RowMatrix out(kRows, kValueDim);
    for (Eigen::Index r = 0; r < kRows; ++r) {
      const Eigen::VectorXd t = kScale * k_ * q.row(r).transpose();
      Eigen::VectorXd p = (t.array() - t.maxCoeff()).exp();
      const double sum = p.sum();
      for (double& x : p) {
        if (unit > 0.0) x = round_to(ElementType::kFloat8E4M3FN, unit * x) / unit;
      }
      out.row(r) = p.transpose() * v_ / sum;
    }
    for (double& x : out.reshaped()) x = round_to(ElementType::kBFloat16, x);
    return out;
  }
  /// Largest |got - exact| / bound.
  double worst(const RowMatrix& got) const {
    AttentionBlock block = one_row(exact(q_), exact(k_), exact(v_));
    block.masks.assign(kRows, {0, kKeys, {}});
    block.scale = kScale;
    const AttentionBound bound = attend(block, {arithmetic_, false, false});
    return ((got - bound.out.y).cwiseAbs().array() / bound.out.d.array()).maxCoeff();
  }

  static constexpr double kScale = 0.25;
  Arithmetic arithmetic_;
  RowMatrix q_{kRows, kDim}, k_{kKeys, kDim}, v_{kKeys, kValueDim};
};

TEST_F(Fp8Products, AreWithinTheBoundWithRoundedQueriesAndWithout) {
  EXPECT_LE(worst(outputs(rounded(q_, 7), 256.0)), 1.0);
  EXPECT_LE(worst(outputs(q_, 256.0)), 1.0);
}

/// What rounding queries does is as small as what rounding probabilities may do: one at a time.
TEST_F(Fp8Products, QueriesAloneWantTheirDeclarationAndScale) {
  arithmetic_.probabilities = ElementType::kFloat32;
  EXPECT_LE(worst(outputs(rounded(q_, 7), kUnrounded)), 1.0);
  EXPECT_GT(worst(outputs(rounded(q_, 0), kUnrounded)), 1.0);   // small queries are coarse or 0
  EXPECT_GT(worst(outputs(rounded(q_, 12), kUnrounded)), 1.0);  // large ones saturate
  EXPECT_GT(worst(outputs(rounded(q_ * 1.0625, 7), kUnrounded)), 1.0);
  arithmetic_.e4m3_queries = false;
  EXPECT_GT(worst(outputs(rounded(q_, 7), kUnrounded)), 1.0);
}

TEST_F(Fp8Products, SmallProbabilitiesWantTheirScale) {
  // One key of probability 1, with value 0, and 300 of 2^-10.4 with value 1.
  RowMatrix k = RowMatrix::Constant(301, 1, -7.2), v = RowMatrix::Constant(301, 1, 1.0);
  k(0, 0) = v(0, 0) = 0.0;
  AttentionBlock block = one_row(exact(matrix({{1}})), exact(k), exact(v));
  const AttentionBound bound = attend(block, {arithmetic_, false, false});
  const double p = std::exp(-7.2), sum = 1.0 + 300 * p;
  const auto error = [&](double unit) {
    const double rounded = round_to(ElementType::kFloat8E4M3FN, p * unit) / unit;
    return std::abs(300 * rounded / sum - bound.out.y(0, 0)) / bound.out.d(0, 0);
  };
  EXPECT_LE(error(256.0), 1.0);
  EXPECT_GT(error(1.0), 1.0);
}

TEST_F(Fp8Products, QueriesThatAreOffAreRoundedWhereTheyMayBe) {
  Bounded q = exact(matrix({{1.0, 0.3}}));
  q.d = matrix({{0.0, 0.02}});
  q.s = q.d;
  const Bounded out = round_queries(q);
  // Times 2^7: 128 and 38.4, of which codes are multiples of 4.
  EXPECT_EQ(out.y(0, 0), 1.0);
  EXPECT_EQ(out.y(0, 1), 40.0 / 128.0);
  for (const double off : {-0.02, -0.01, 0.0, 0.01, 0.02}) {
    const double code = round_to(ElementType::kFloat8E4M3FN, (0.3 + off) * 128.0) / 128.0;
    EXPECT_LE(std::abs(code - out.y(0, 1)), out.d(0, 1));
  }
  EXPECT_LT(out.d(0, 1), 0.02 + 0.3 * 0.3);
}

TEST_F(StageBounds, HiddenNaNDoesNotReachARow) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  AttentionBlock block =
      one_row(exact(matrix({{0}})), exact(matrix({{1}, {nan}})), exact(matrix({{2}, {nan}})));
  block.masks = {{0, 1, {}}};
  EXPECT_EQ(attend(block, options_).out.y(0, 0), 2.0);
  block.masks = {{0, 2, {}}};
  EXPECT_TRUE(std::isnan(attend(block, options_).out.y(0, 0)));
}

/// Products want their columns to match where there is no row too.
TEST(Taps, HaveTheirColumnsWithoutARow) {
  const Bounded none = decode_tap(Tensor(ElementType::kFloat32, {0, 2, 3}), {});
  EXPECT_EQ(none.y.rows(), 0);
  EXPECT_EQ(none.y.cols(), 6);
}

}  // namespace
}  // namespace attn::harness
