#include "harness/compare/codes.h"

#include <gmock/gmock.h>

#include <cmath>

#include "harness/compare/stage_score.h"
#include "harness/generate/case_spec.h"

// Worked by hand. e4m3 near 1: 0.9375, 1, 1.125, 1.25; the tie of 1 and 1.125 is 1.0625 and goes to
// 1, the even code. e2m1: 0, 0.5, 1, 1.5, 2, 3, 4, 6.

namespace attn::harness {
namespace {

using reference::Projection;

constexpr double kU = 0x1p-24;
const CodeGrid kE4M3(ElementType::kFloat8E4M3FN);
const CodeGrid kE2M1(ElementType::kFloat4E2M1FN);

TEST(CodeGrid, NeighboursAreTheNextCodes) {
  EXPECT_EQ(kE4M3.neighbour(1.0, 1), 1.125);
  EXPECT_EQ(kE4M3.neighbour(1.0, -1), 0.9375);
  EXPECT_EQ(kE4M3.neighbour(-1.0, 1), -0.9375);
  EXPECT_EQ(kE4M3.neighbour(0.0, -1), -0x1p-9);
  EXPECT_EQ(kE4M3.neighbour(-0x1p-9, 1), 0.0);
  EXPECT_EQ(kE4M3.neighbour(448.0, 1), 448.0);
  EXPECT_EQ(kE2M1.neighbour(4.0, 1), 6.0);
  EXPECT_EQ(CodeGrid::int8().neighbour(127.0, 1), 127.0);
  EXPECT_EQ(CodeGrid::int8().neighbour(-3.0, 1), -2.0);
}

TEST(CodeGrid, ATieMayGoEitherWay) {
  EXPECT_EQ(kE4M3.error_at(1.0625, 0.0, 1.0, 1.0), 0.0);
  EXPECT_EQ(kE4M3.error_at(1.0625, 1e-9, 1.0, 1.0), 0.125);
  EXPECT_EQ(kE4M3.error_at(1.06, 1e-9, 1.0, 1.0), 0.0);
  EXPECT_EQ(kE4M3.error_at(2.125, 1e-9, 2.0, 2.0), 0.25);  // the same tie under scale 2
  EXPECT_EQ(CodeGrid::int8().error_at(2.5, 1e-9, 1.0, 2.0), 1.0);
  EXPECT_EQ(kE4M3.error_at(1e6, 1.0, 1.0, 448.0), 0.0);  // saturated
}

TEST(CodeGrid, AnInexactScaleMovesCodeAndValue) {
  // x = 2, scale 1 +- 1/16: 2 / (15/16) = 2.13 is nearest to 2.25, 2 / (17/16) = 1.88 to 1.875, so
  // values lie within [1.875 * 15/16, 2.25 * 17/16] = [1.758, 2.391].
  const ScaleRange scale{1 - 0x1p-4, 1.0, 1 + 0x1p-4};
  EXPECT_DOUBLE_EQ(kE4M3.reachable_error(2.0, 0.0, scale, 2.0), 2.25 * (1 + 0x1p-4) - 2.0);
  EXPECT_DOUBLE_EQ(kE4M3.reachable_error(-2.0, 0.0, scale, -2.0), 2.25 * (1 + 0x1p-4) - 2.0);
}

TEST(CodeGrid, ProbabilityOfAnotherCode) {
  EXPECT_NEAR(kE4M3.flip_probability(1.0625, 1e-6, 1.0), 0.5, 1e-12);
  // The tie is one deviation away: 0.1587 of a normal distribution lies beyond.
  EXPECT_NEAR(kE4M3.flip_probability(1.0625 - 1e-3, 1e-3, 1.0), 0.158655, 1e-6);
  EXPECT_LT(kE4M3.flip_probability(1.0, 1e-3, 1.0), 1e-100);
  EXPECT_EQ(kE4M3.flip_probability(1.0625, 0.0, 1.0), 0.0);
}

/// One row of 64 columns: x[0] = amax, x[1] = `value`, all else 0.
Case case_of(const std::string& quant, double amax, double value,
             const std::string& variant = "attention_with_rope", std::int64_t hidden = 64) {
  Case c = make_case(
      parse_case_spec(R"({"config": {"variant": ")" + variant +
                      R"(", "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
                         "hidden_size": )" +
                      std::to_string(hidden) +
                      R"(, "dtype": "float32", "kv_cache": {"page_size": 4}, "quant": )" + quant +
                      R"(}, "rows": [[0, 1]]})"),
      1);
  for (std::int64_t i = 0; i < c.x.size(); ++i) c.x.set_value(i, 0.0);
  c.x.set_value(0, amax);
  c.x.set_value(1, value);
  return c;
}

QuantisedRows quantise(const Case& c, const Arithmetic& arithmetic = {}) {
  const Bounded x{reference::decode_matrix(c.x, 1, c.config.hidden_size), {}, {}, {}};
  return quantise_rows(c, Projection::kK, x, arithmetic);
}

const char* const kToken =
    R"({"encoding": "float8_e4m3fn", "weight_granularity": "tensor", "activation": "token"})";
const char* const kStatic =
    R"({"encoding": "float8_e4m3fn", "weight_granularity": "tensor", "activation": "static"})";

TEST(QuantisedRows, ATieOfADynamicScale) {
  // amax 336: scale 0.75. 0.796875 / 0.75 is the tie 1.0625.
  const QuantisedRows rows = quantise(case_of(kToken, 336, 0.796875));
  EXPECT_EQ(rows.x.y(0, 0), 336);
  EXPECT_EQ(rows.x.y(0, 1), 0.75);
  ASSERT_FALSE(rows.x.exact());
  EXPECT_EQ(rows.x.d(0, 0), 0.0);
  EXPECT_EQ(rows.x.d(0, 1), 0.125 * 0.75);
  EXPECT_TRUE(quantise(case_of(kToken, 336, 0.79)).x.exact());
  // Within 6 u of the tie, and beyond.
  EXPECT_FALSE(quantise(case_of(kToken, 336, 0.796875 * (1 + 4 * kU))).x.exact());
  EXPECT_TRUE(quantise(case_of(kToken, 336, 0.796875 * (1 + 8 * kU))).x.exact());
}

TEST(QuantisedRows, AGivenPowerOfTwoDividesExactly) {
  Case c = case_of(kStatic, 0.0, 0.53125);  // 0.5 * 1.0625
  for (const char* p : {"q", "k", "v"}) {
    c.weights.at(std::string(p) + "_proj.input_scale").set_value(0, 0.5);
  }
  EXPECT_TRUE(quantise(c).x.exact());
  for (const char* p : {"q", "k", "v"}) {
    c.weights.at(std::string(p) + "_proj.input_scale").set_value(0, 0.75);
  }
  c.x.set_value(1, 0.796875);
  EXPECT_EQ(quantise(c).x.d(0, 1), 0.125 * 0.75);
}

TEST(QuantisedRows, ABlockWhoseScaleLiesAtATie) {
  // nvfp4, input_scale 1, amax 6.375: the block's scale 1.0625 is the tie of 1 and 1.125, and 1 is
  // even. Under 1: 6.375 -> 6. Under 1.125: 5.67 -> 6, 6.75.
  Case c = case_of(R"({"encoding": "nvfp4", "activation": "block"})", 6.375, 1.0);
  for (const char* p : {"q", "k", "v"}) {
    c.weights.at(std::string(p) + "_proj.input_scale").set_value(0, 1.0);
  }
  const QuantisedRows rows = quantise(c);
  EXPECT_EQ(rows.x.y(0, 0), 6.0);
  ASSERT_FALSE(rows.x.exact());
  EXPECT_EQ(rows.x.d(0, 0), 0.75);
  // 1 is 1 under 1, and 1 / 1.125 = 0.89 -> 1, 1.125 under the other.
  EXPECT_EQ(rows.x.d(0, 1), 0.125);
  EXPECT_EQ(rows.x.d.row(0).tail(48).sum(), 0.0);  // the other blocks
}

TEST(QuantisedRows, AnExponentAtAPowerOfTwo) {
  // mxfp4, amax 6: ceil(log2(6 / 6)) = 0, or 1 by a float32 hair. 6: 6 or 3 * 2. 1.5: 1.5, or
  // 0.75 * 2, whose tie 0.75 goes to 1 and may go to 0.5: 2 or 1.
  const QuantisedRows rows =
      quantise(case_of(R"({"encoding": "mxfp4", "activation": "block"})", 6.0, 1.5));
  EXPECT_EQ(rows.x.y(0, 1), 1.5);
  ASSERT_FALSE(rows.x.exact());
  EXPECT_EQ(rows.x.d(0, 0), 0.0);
  EXPECT_EQ(rows.x.d(0, 1), 0.5);
  // Away from the power of two the scale is exact, and so is the quotient at a tie.
  EXPECT_TRUE(
      quantise(case_of(R"({"encoding": "mxfp4", "activation": "block"})", 5.5, 2.5)).x.exact());
}

TEST(QuantisedRows, WholeNumbers) {
  // a = 127: scale 1, and 2.5 is a tie; 127 / a is not taken for exact.
  const QuantisedRows rows =
      quantise(case_of(R"({"encoding": "q8_0", "activation": "int8"})", 127, 2.5, "gguf"));
  EXPECT_EQ(rows.x.y(0, 1), 2.0);
  ASSERT_FALSE(rows.x.exact());
  EXPECT_EQ(rows.x.d(0, 1), 1.0);
}

TEST(QuantisedRows, Float64HasNoTiesButItsOwn) {
  Arithmetic exact;
  exact.scaling = ElementType::kFloat64;
  EXPECT_TRUE(quantise(case_of(kToken, 336, 0.796875 * (1 + 4 * kU)), exact).x.exact());
}

TEST(QuantisedRows, ErrorsOfTheInputComeThrough) {
  // x = 0.75 off by 0.1, its scale too by 1/336 of that: 0.65 .. 0.85 over 0.75 is 0.867 .. 1.133:
  // codes 0.875 .. 1.125, values 0.656 .. 0.844: 0.09375 to either side, and what the scale may be
  // off.
  const Case c = case_of(kToken, 336, 0.75);
  Bounded x{reference::decode_matrix(c.x, 1, 64), {}, {}, {}};
  x.d = x.s = RowMatrix::Constant(1, 64, 0.1);
  x.d(0, 1) = 0.1;
  const QuantisedRows rows = quantise_rows(c, Projection::kK, x, {});
  const double scale = 0.1 / 336;  // relative error of the scale
  EXPECT_NEAR(rows.x.d(0, 1), 0.09375, 1.2 * scale);
  EXPECT_GE(rows.x.d(0, 1), 0.09375);
  // A zero off by 0.1 becomes at most 0.1 and half a gap more.
  EXPECT_NEAR(rows.x.d(0, 5), 0.1, 0.1 * 0x1p-4);
}

TEST(MergedWeights, ACodeAtATie) {
  // v has scale 1, the largest is 2: codes halve, exactly but for odd subnormals.
  Case c = case_of(kStatic, 1, 1);
  for (const auto& [name, scale] : {std::pair{"q_proj", 2.0}, {"k_proj", 0.5}, {"v_proj", 1.0}}) {
    c.weights.at(std::string(name) + ".weight_scale").set_value(0, scale);
  }
  Tensor& w = c.weights.at("v_proj.weight");
  for (std::int64_t i = 0; i < w.size(); ++i) w.set_value(i, 1.5);
  EXPECT_EQ(merged_weight_ties(c, Projection::kV, {}).size(), 0);
  w.set_value(3, 3 * 0x1p-9);  // 1.5 smallest codes: 2 of them, the even one, or 1
  const RowMatrix ties = merged_weight_ties(c, Projection::kV, {});
  ASSERT_GT(ties.size(), 0);
  EXPECT_EQ(ties(0, 3), 2 * 0x1p-9);
  EXPECT_EQ(ties.sum(), ties(0, 3));
  EXPECT_EQ(merged_weight_ties(c, Projection::kQ, {}).size(), 0);  // its own scale
  EXPECT_EQ(merged_weight_ties(c, Projection::kO, {}).size(), 0);  // not merged
}

Case cache_case(const std::string& granularity, double scale) {
  Case c = make_case(parse_case_spec(
                         R"({"config": {"variant": "attention_with_rope", "num_attention_heads": 2,
              "num_key_value_heads": 2, "head_dim": 2, "hidden_size": 64, "dtype": "float32",
              "kv_cache": {"page_size": 4, "dtype": "float8_e4m3fn", "scale_granularity": )" +
                         granularity + R"(}}, "rows": [[3, 1]]})"),
                     1);
  if (c.cache.k_scale.shape().size() == 1) c.cache.k_scale.set_value(0, scale);
  if (c.cache.k_scale.shape().size() == 1) c.cache.k_scale.set_value(1, 2 * scale);
  return c;
}

Bounded row(std::initializer_list<double> values) {
  Bounded x;
  x.y.resize(1, static_cast<Eigen::Index>(values.size()));
  std::copy(values.begin(), values.end(), x.y.data());
  return x;
}

TEST(CodedRows, ATapIsRoundedAsItIs) {
  const CodedRows rows =
      code_rows(cache_case("null", 1), Stage::kCacheK, row({1.0625, 1.06, -500, 0}), {});
  EXPECT_EQ(rows.x.y, row({1.0, 1.0, -448, 0}).y);
  EXPECT_EQ(rows.x.d.sum(), 0.0);
  EXPECT_EQ(rows.flips.sum(), 0.0);
}

TEST(CodedRows, AHeadsOwnScaleDivides) {
  // 0.75 for head 0, 1.5 for head 1: 0.796875 and 1.59375 are ties; 0.75 (1 - 2 u) is none.
  const CodedRows rows =
      code_rows(cache_case("\"head\"", 0.75), Stage::kCacheK, row({0.796875, 0.7, 1.59375, 3}), {});
  EXPECT_EQ(rows.x.y(0, 0), 0.75);
  EXPECT_EQ(rows.x.y(0, 2), 1.5);
  // The neighbour, and code * scale in float32: 2 u of either.
  EXPECT_DOUBLE_EQ(rows.x.d(0, 0), 0.09375 + 2 * kU * (0.75 + 0.09375));
  EXPECT_NEAR(rows.flips(0, 0), 0.5, 1e-9);
  EXPECT_DOUBLE_EQ(rows.x.d(0, 1), 2 * kU * rows.x.y(0, 1));
  // A power of two divides exactly.
  const CodedRows exact =
      code_rows(cache_case("\"head\"", 0.5), Stage::kCacheK, row({0.53125, 0, 1.0625, 0}), {});
  EXPECT_DOUBLE_EQ(exact.x.d(0, 0), 2 * kU * 0.5);
}

TEST(CodedRows, ATokensScaleIsItsLargest) {
  // Head 0: amax 336, scale 0.75. Head 1: zeros, scale 1.
  const CodedRows rows =
      code_rows(cache_case("\"token_head\"", 0), Stage::kCacheK, row({336, 0.7, 0, 0}), {});
  EXPECT_EQ(rows.x.y(0, 0), 336);
  EXPECT_EQ(rows.x.y(0, 1), 0.9375 * 0.75);                    // 0.933 lies nearest to 0.9375
  EXPECT_DOUBLE_EQ(rows.x.d(0, 0), (2 * kU + 0x1p-23) * 336);  // its scale may be a neighbour
  EXPECT_EQ(rows.x.y(0, 2), 0.0);
  EXPECT_EQ(rows.x.d(0, 2), 0.0);
}

TEST(CodedRows, WithoutTapsTheNeighbourWithinReach) {
  Bounded x = row({1.05, 1.0, 1.2, 3.0});
  x.d = RowMatrix::Constant(1, 4, 0.02);
  x.s = x.d / 4;
  const CodedRows rows = code_rows(cache_case("null", 1), Stage::kCacheK, x, {});
  EXPECT_DOUBLE_EQ(rows.x.d(0, 0), 0.125);  // 1.07 -> 1.125
  EXPECT_EQ(rows.x.d(0, 1), 0.0);           // 0.98 .. 1.02 -> 1
  EXPECT_DOUBLE_EQ(rows.x.d(0, 2), 0.125);  // 1.18 -> 1.125
  // 2.5 deviations from the tie at 1.0625: 0.0062.
  EXPECT_NEAR(rows.flips(0, 0), 0.0062097, 1e-6);
}

TEST(CodedRows, ARowThatMayBeZero) {
  // Everything is off by more than itself: the row's scale has no least, and the first may be 1.05
  // or -0.95.
  Bounded x = row({0.05, 0.0, 0.02, 0.0});
  x.d = x.s = RowMatrix::Constant(1, 4, 1.0);
  const CodedRows rows = code_rows(cache_case("\"token_head\"", 0), Stage::kCacheK, x, {});
  // 1, and half a gap at 1.05: 2^-4 of it.
  EXPECT_NEAR(rows.x.d(0, 0), 1.0 + 1.05 * 0x1p-4, 0.001);
}

/// A stage of `count` codes of which `differing` differ, each of them with probability `flip`.
StageReport codes(std::int64_t count, std::int64_t differing, double flip, bool constant = false) {
  StageScore score(Stage::kCacheK);
  for (std::int64_t i = 0; i < count; ++i) {
    const double want = constant ? 1.0 : 1.0 + static_cast<double>(i);
    const double got = i < differing ? want * 1.125 : want;
    score.add(i, got, want, 1.0 * want);
    score.add_code(got, want, want, flip);
  }
  return score.finish();
}

TEST(DifferingCodes, AreCounted) {
  EXPECT_EQ(codes(1000, 0, 0.0).note, "");
  // Four deviations of at least one code.
  EXPECT_EQ(codes(1000, 4, 0.0).bad, 0);
  EXPECT_EQ(codes(1000, 4, 0.0).note, "4 codes differ");
  EXPECT_EQ(codes(1000, 5, 0.0).bad, 5);
  EXPECT_GT(codes(1000, 5, 0.0).worst_ratio, 1.0);
  // 0.1 % of 10,000.
  EXPECT_EQ(codes(10000, 10, 0.0).bad, 0);
  EXPECT_EQ(codes(10000, 11, 0.0).bad, 11);
  // 20 of 1000 are likely: 1.5 * 20 + 4 sqrt(20 * 0.98) = 47.7.
  EXPECT_EQ(codes(1000, 47, 0.02).bad, 0);
  EXPECT_EQ(codes(1000, 48, 0.02).bad, 48);
}

TEST(DifferingCodes, FewOrRepeatedOnesAreReportedOnly) {
  EXPECT_EQ(codes(199, 50, 0.0).bad, 0);
  EXPECT_EQ(codes(199, 50, 0.0).note, "50 codes differ");
  EXPECT_EQ(codes(1000, 500, 0.0, true).bad, 0);
}

}  // namespace
}  // namespace attn::harness
