#include "harness/compare/compare.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>

#include "harness/backends/backend.h"
#include "harness/generate/case_spec.h"
#include "reference/reference.h"

namespace attn::harness {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Two sequences, three pool layers, bfloat16, every step of a layer.
const char* const kLayer =
    R"({"config": {"entry_point": "forward", "variant": "attention_with_rope", "dtype": "bfloat16",
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "hidden_size": 64,
        "has_bias": true, "use_qk_norm": true, "kv_cache": {"page_size": 4}},
        "rows": [[5, 6], [0, 3]], "layers": 3, "layer": 1})";

Case layer_case() { return make_case(parse_case_spec(kLayer), 11); }

struct Evaluated {
  Case c;
  Arithmetic arithmetic;
  Trace trace;
};

Evaluated run(const std::string& backend, Case c) {
  const auto b = make_backend(backend);
  Evaluated result{std::move(c), {}, {}};
  result.arithmetic = b->arithmetic(result.c.config);
  result.trace = b->run(result.c, all_stages());
  return result;
}

const StageReport& report_of(const Verdict& verdict, Stage stage) {
  const auto at = std::find_if(verdict.stages.begin(), verdict.stages.end(),
                               [stage](const StageReport& r) { return r.stage == stage; });
  if (at == verdict.stages.end()) throw std::runtime_error("no report of the stage");
  return *at;
}

TEST(Compare, PassesEveryStageInOrder) {
  const Evaluated r = run("cpu", layer_case());
  const Verdict verdict = compare(r.c, r.trace, r.arithmetic);
  EXPECT_EQ(verdict.status, Status::kPassed) << verdict.detail;
  EXPECT_EQ(verdict.stages.size(), stages_of(r.c.config).size());
  EXPECT_TRUE(std::is_sorted(verdict.stages.begin(), verdict.stages.end(),
                             [](const auto& a, const auto& b) { return a.stage < b.stage; }));
  EXPECT_EQ(verdict.rows_checked, 9);
  EXPECT_EQ(verdict.rows_total, 9);
  EXPECT_EQ(report_of(verdict, Stage::kAttnOut).elements, 9 * 4 * 16);
  EXPECT_GT(verdict.worst_ratio(), 0.0);
  EXPECT_LE(verdict.worst_ratio(), 1.0);
}

/// A layer with nothing new to do: its matrices have no row, and as many columns as ever.
TEST(Compare, PassesACaseWithoutNewRows) {
  CaseSpec spec = parse_case_spec(kLayer);
  spec.rows = {{5, 0}, {3, 0}};
  const Evaluated r = run("cpu", make_case(spec, 11));
  const Verdict verdict = compare(r.c, r.trace, r.arithmetic);
  EXPECT_EQ(verdict.status, Status::kPassed) << verdict.detail;
  EXPECT_EQ(verdict.rows_total, 0);
  EXPECT_EQ(report_of(verdict, Stage::kQProj).elements, 0);
}

TEST(Compare, NamesTheFirstBadStageAndWhere) {
  Evaluated r = run("cpu", layer_case());
  // Row 7 is sequence 1's second: position 1. Head 2, channel 3.
  const std::int64_t at = 7 * 64 + 2 * 16 + 3;
  r.trace[Stage::kQRope].set_value(at, r.trace[Stage::kQRope].value(at) + 0.25);
  const Verdict verdict = compare(r.c, r.trace, r.arithmetic);
  EXPECT_EQ(verdict.status, Status::kFailed);
  ASSERT_TRUE(verdict.first_bad.has_value());
  EXPECT_EQ(*verdict.first_bad, Stage::kQRope);
  const StageReport& report = report_of(verdict, Stage::kQRope);
  EXPECT_EQ(report.bad, 1);
  EXPECT_EQ(report.worst_where, "row 7 (sequence 1, position 1), head 2, channel 3");
  EXPECT_THAT(report.worst_index, testing::ElementsAre(7, 2, 3));
  EXPECT_NEAR(report.got - report.want, 0.25, 1e-5);  // float32 errors of a value near 1
  EXPECT_THAT(verdict.detail, HasSubstr("q_rope: 1 of 576"));
  // Its parts add up to its bound.
  double sum = 0.0;
  for (const BoundPart& part : report.parts) sum += part.second;
  EXPECT_NEAR(sum, report.bound, 1e-12 * report.bound);
  // What follows was computed from the right q_rope, and judged on the wrong one.
  EXPECT_GT(report_of(verdict, Stage::kAttnOut).bad, 0);
  EXPECT_EQ(report_of(verdict, Stage::kQNorm).bad, 0);
}

TEST(Compare, ExplainNamesTheParts) {
  const Evaluated r = run("cpu", layer_case());
  CompareOptions options;
  options.explain = true;
  for (const bool taps : {true, false}) {
    options.taps = taps;
    const Verdict verdict = compare(r.c, r.trace, r.arithmetic, options);
    for (const StageReport& report : verdict.stages) {
      double sum = 0.0;
      for (const BoundPart& part : report.parts) sum += part.second;
      EXPECT_NEAR(sum, report.bound, 1e-12 * report.bound) << name_of(report.stage);
    }
  }
  EXPECT_THAT(report_of(compare(r.c, r.trace, r.arithmetic), Stage::kOut).parts, IsEmpty());
}

TEST(Compare, JudgesOnTheBackendsOwnPreviousStage) {
  // All of q_proj is off by half: q_norm divides that out again, so judged on the inputs (no taps)
  // it passes, and judged on the wrong q_proj it passes too; q_proj alone is to blame.
  Evaluated r = run("cpu", layer_case());
  Tensor& q = r.trace[Stage::kQProj];
  for (std::int64_t i = 0; i < q.size(); ++i) q.set_value(i, q.value(i) * 1.5);
  for (const bool taps : {true, false}) {
    CompareOptions options;
    options.taps = taps;
    const Verdict verdict = compare(r.c, r.trace, r.arithmetic, options);
    EXPECT_EQ(*verdict.first_bad, Stage::kQProj);
    EXPECT_EQ(report_of(verdict, Stage::kQRope).bad, 0);
    EXPECT_EQ(report_of(verdict, Stage::kOut).bad, 0);
  }
}

TEST(Compare, BridgesStagesThatAreNotOffered) {
  const Evaluated r = run("faithful", layer_case());
  for (const Stage only :
       {Stage::kOut, Stage::kAttnOut, Stage::kLse, Stage::kQRope, Stage::kCacheK}) {
    Trace trace;
    trace[only] = r.trace[only];
    const Verdict verdict = compare(r.c, trace, r.arithmetic);
    EXPECT_EQ(verdict.status, Status::kPassed) << name_of(only) << ": " << verdict.detail;
    EXPECT_EQ(verdict.stages.size(), 1u);
    // Propagated allowances are wider than those of one step on the previous stage.
    if (only == Stage::kCacheK) continue;
    CompareOptions options;
    options.explain = true;
    EXPECT_GT(compare(r.c, trace, r.arithmetic, options).stages[0].parts.size(), 1u);
  }
}

TEST(Compare, TapsAndNoTapsAgreeWhereNothingIsPropagated) {
  const Evaluated r = run("cpu", layer_case());
  CompareOptions no_taps;
  no_taps.taps = false;
  const Verdict a = compare(r.c, r.trace, r.arithmetic);
  const Verdict b = compare(r.c, r.trace, r.arithmetic, no_taps);
  for (const Stage stage : {Stage::kQProj, Stage::kKProj, Stage::kVProj}) {  // made from x alone
    EXPECT_EQ(report_of(a, stage).worst_ratio, report_of(b, stage).worst_ratio);
  }
  EXPECT_GT(report_of(b, Stage::kOut).bound, report_of(a, Stage::kOut).bound);
}

TEST(Compare, UndeclaredArithmeticIsStrict) {
  // faithful rounds to bfloat16; judged as float32 every stage that rounds is wrong.
  const Evaluated r = run("faithful", layer_case());
  const Verdict verdict = compare(r.c, r.trace, Arithmetic{});
  EXPECT_EQ(verdict.status, Status::kFailed);
  EXPECT_EQ(*verdict.first_bad, Stage::kQProj);
}

TEST(Compare, RefusesWrongShapes) {
  Evaluated r = run("cpu", layer_case());
  r.trace[Stage::kLse] = Tensor(ElementType::kFloat32, {9, 3});
  const Verdict verdict = compare(r.c, r.trace, r.arithmetic);
  EXPECT_EQ(verdict.status, Status::kFailed);
  EXPECT_EQ(verdict.detail, "lse: shape [9, 3], must be [9, 4]");
}

TEST(Compare, NothingOfferedIsNoPass) {
  const Verdict verdict = compare(layer_case(), Trace{}, Arithmetic{});
  EXPECT_EQ(verdict.status, Status::kFailed);
  EXPECT_THAT(verdict.detail, HasSubstr("offered no stage"));
}

TEST(Compare, TableWithinFloat32RoundingOfTheAngle) {
  Evaluated r = run("cpu", layer_case());
  Tensor& table = r.trace[Stage::kFreqsCis];
  // Position 9, pair 0: inv = 1, so 2^-23 (1 + 9) is allowed. cos(9) = -0.91 moves less than that.
  const std::int64_t at = 9 * 16;
  const double exact = table.value(at);
  table.set_value(at, exact + 9 * 0x1p-23);
  EXPECT_EQ(compare(r.c, r.trace, r.arithmetic).status, Status::kPassed);
  table.set_value(at, exact + 11 * 0x1p-23);
  const Verdict verdict = compare(r.c, r.trace, r.arithmetic);
  EXPECT_EQ(*verdict.first_bad, Stage::kFreqsCis);
  EXPECT_EQ(report_of(verdict, Stage::kFreqsCis).worst_where, "position 9, cos of pair 0");
}

TEST(CompareExpected, FindsASmallChange) {
  const Evaluated r = run("exact", layer_case());
  EXPECT_EQ(compare_expected(r.c, r.trace, r.trace).status, Status::kPassed);
  for (const Stage stage : stages_of(r.c.config)) {
    Trace expected = r.trace;
    const double value = expected[stage].value(3);
    expected[stage].set_value(3, value + 1e-6 * std::max(1.0, std::abs(value)));
    const Verdict verdict = compare_expected(r.c, expected, r.trace);
    EXPECT_EQ(verdict.status, Status::kFailed) << name_of(stage);
    EXPECT_EQ(*verdict.first_bad, stage);
    EXPECT_THAT(verdict.detail, HasSubstr("1 of "));
  }
}

TEST(CompareExpected, InfinitiesAndNaNMustMatch) {
  const Evaluated r = run("exact", layer_case());
  Trace expected = r.trace, exact = r.trace;
  exact[Stage::kLse].set_value(2, -kInfinity);
  EXPECT_EQ(compare_expected(r.c, expected, exact).status, Status::kFailed);
  expected[Stage::kLse].set_value(2, -kInfinity);
  EXPECT_EQ(compare_expected(r.c, expected, exact).status, Status::kPassed);
  expected[Stage::kLse].set_value(2, kInfinity);
  EXPECT_EQ(compare_expected(r.c, expected, exact).status, Status::kFailed);
  expected[Stage::kLse].set_value(2, std::nan(""));
  EXPECT_EQ(compare_expected(r.c, expected, exact).status, Status::kFailed);
}

TEST(Status, HasNames) {
  EXPECT_EQ(name_of(Status::kMistrusted), "mistrusted");
  EXPECT_EQ(name_of(Status::kTimedOut), "timed out");
}

}  // namespace
}  // namespace attn::harness
