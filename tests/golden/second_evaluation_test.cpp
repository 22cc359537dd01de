#include "golden/second_evaluation.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "golden/second_rope_table.h"
#include "reference/core/error.h"
#include "tests/golden/golden_test_util.h"

namespace attn::golden {
namespace {

TEST(SecondEvaluation, AgreesWithEveryVector) {
  // The vectors were evaluated in float64: a sum of n terms errs by at most n * 2^-53 of the sum of
  // magnitudes, 1e-13 for the longest sums here; agree() allows 1e-11.
  const std::vector<std::string> vectors = all_vectors();
  EXPECT_GE(vectors.size(), 74U);  // those of the independent program
  for (const std::string& path : vectors) {
    SCOPED_TRACE(path);
    const GoldenFile file = read(path);
    const Case c = to_case(file, {});
    const Agreement agreement = agree(expected(file, c), evaluate_second(c));
    EXPECT_TRUE(agreement.agreed()) << agreement.worst << " in " << name_of(agreement.stage);
  }
}

TEST(SecondEvaluation, ContinuesFromAnotherEvaluationOnlyWhereTheyAgree) {
  const std::vector<std::string> vectors = all_vectors();
  const auto path = std::find_if(vectors.begin(), vectors.end(), [](const std::string& name) {
    return name.ends_with("/gguf-q4_0-int8.h5");
  });
  const Case c = to_case(read(*path), {});
  const Trace own = evaluate_second(c);
  const auto with_attn_out_times = [&](double factor) {
    Trace first = own;
    std::vector<double> values = own[Stage::kAttnOut].values();
    for (double& v : values) v *= factor;
    first[Stage::kAttnOut] =
        Tensor::from_values(ElementType::kFloat64, own[Stage::kAttnOut].shape(), values);
    return evaluate_second(c, first)[Stage::kOut];
  };
  // attn_out is float64 in a trace, and long double inside the evaluation.
  Trace rounded = own;
  rounded[Stage::kOut] = with_attn_out_times(1.0);
  EXPECT_TRUE(agree(own, rounded).agreed());
  EXPECT_NE(with_attn_out_times(1.0 + 1e-12), own[Stage::kOut]) << "its scales follow";
  EXPECT_EQ(with_attn_out_times(1.0 + 1e-10), own[Stage::kOut]) << "not taken";
}

TEST(SecondEvaluation, ReturnsEveryStage) {
  for (const std::string& path : all_vectors()) {
    SCOPED_TRACE(path);
    const Case c = to_case(read(path), {});
    const Trace trace = evaluate_second(c);
    for (const Stage stage : stages_of(c.config)) {
      EXPECT_TRUE(trace.has(stage)) << name_of(stage);
    }
  }
}

TEST(SecondEvaluation, TableAgreesWithEveryVectorsOwn) {
  // Every scaling type is among the vectors, whose tables are float64 angles rounded once to
  // float32.
  int tables = 0;
  for (const std::string& path : all_vectors()) {
    SCOPED_TRACE(path);
    const Case c = to_case(read(path), {});
    if (c.freqs_cis.empty()) continue;
    Trace stored;
    stored[Stage::kFreqsCis] = c.freqs_cis;
    Trace ours;
    ours[Stage::kFreqsCis] = second_rope_table(c);
    EXPECT_EQ(agree(stored, ours).worst, 0.0);
    ++tables;
  }
  EXPECT_GE(tables, 50);
}

TEST(SecondEvaluation, ThousandKeysTakeSeconds) {
  AttentionConfig config = read(ATTN_SOURCE_DIR "/data/golden/mha-causal-f32.h5").config();
  config.mask = {};
  const std::int64_t tokens = 1000;
  Case c;
  c.config = config;
  for (const TensorSpec& spec : expected_weights(config)) {
    if (!spec.optional) c.weights[spec.name] = Tensor(ElementType::kFloat32, spec.shape);
  }
  c.x = Tensor(ElementType::kFloat32, {tokens, config.hidden_size});
  const std::vector<double> offsets = {0, static_cast<double>(tokens)};
  c.input_row_offsets = Tensor::from_values(ElementType::kUInt32, {2}, offsets);
  c.cache_lengths = Tensor(ElementType::kUInt32, {1});
  c.freqs_cis = Tensor(ElementType::kFloat32, {tokens, config.rotary_dim()});
  const std::vector<std::int64_t> lengths = {0};
  const std::vector<std::int64_t> capacity = {tokens};
  c.cache = make_paged_cache(config, {}, {}, {}, {}, lengths, capacity, {});
  const auto start = std::chrono::steady_clock::now();
  evaluate_second(c);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  EXPECT_LT(taken.count(), 30.0);  // about 1 s; sanitizers and busy machines are slower
  RecordProperty("seconds", std::to_string(taken.count()));
}

Trace one_stage(Stage stage, const std::vector<double>& values) {
  Trace trace;
  const auto n = static_cast<std::int64_t>(values.size());
  trace[stage] = Tensor::from_values(ElementType::kFloat64, {1, n}, values);
  return trace;
}

TEST(Agree, IsAFractionOfTheLargestMagnitude) {
  const Agreement a = agree(one_stage(Stage::kOut, {4.0, 1.0}), one_stage(Stage::kOut, {4.0, 1.5}));
  EXPECT_EQ(a.worst, 0.125);
  EXPECT_EQ(a.stage, Stage::kOut);
  EXPECT_FALSE(a.agreed());
}

TEST(Agree, OneUlpOfTheTableIsAgreementTwoAreNot) {
  const double one_ulp = 1.0 - std::ldexp(1.0, -24);
  const Trace ones = one_stage(Stage::kFreqsCis, {1.0, 0.0});
  EXPECT_EQ(agree(ones, one_stage(Stage::kFreqsCis, {one_ulp, 0.0})).worst, 0.0);
  const double off = 1.0 - std::ldexp(1.0, -22);
  EXPECT_FALSE(agree(ones, one_stage(Stage::kFreqsCis, {off, 0.0})).agreed());
  EXPECT_FALSE(agree(one_stage(Stage::kOut, {1.0}), one_stage(Stage::kOut, {one_ulp})).agreed());
}

TEST(Agree, SpecialValuesMustBeEqual) {
  const double inf = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto agreed = [](double a, double b) {
    return agree(one_stage(Stage::kLse, {1.0, a}), one_stage(Stage::kLse, {1.0, b})).agreed();
  };
  EXPECT_TRUE(agreed(-inf, -inf));
  EXPECT_TRUE(agreed(nan, nan));
  EXPECT_FALSE(agreed(-inf, inf));
  EXPECT_FALSE(agreed(-inf, -1e300));
  EXPECT_FALSE(agreed(nan, 1.0));
  EXPECT_FALSE(agreed(1.0, nan));
}

TEST(Agree, AMissingOrMisshapenStageIsNoAgreement) {
  EXPECT_FALSE(agree(Trace{}, Trace{}).agreed());
  EXPECT_FALSE(agree(one_stage(Stage::kOut, {1.0}), Trace{}).agreed());
  EXPECT_FALSE(agree(one_stage(Stage::kOut, {1.0}), one_stage(Stage::kOut, {1.0, 1.0})).agreed());
}

}  // namespace
}  // namespace attn::golden
