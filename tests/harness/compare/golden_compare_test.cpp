#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>

#include "harness/backends/backend.h"
#include "harness/compare/compare.h"
#include "reference/reference.h"
#include "tests/harness/compare/golden_cases.h"

namespace attn::harness {
namespace {

TEST(GoldenFiles, EveryBackendPassesEveryFileInBothModes) {
  for (const GoldenCase& golden : covered_golden_cases()) {
    for (const char* spec : {"exact", "faithful", "cpu"}) {
      const auto backend = make_backend(spec);
      const Trace trace = backend->run(golden.c, all_stages());
      for (const bool taps : {true, false}) {
        CompareOptions options;
        options.taps = taps;
        const Verdict verdict =
            compare(golden.c, trace, backend->arithmetic(golden.c.config), options);
        EXPECT_EQ(verdict.status, Status::kPassed)
            << golden.c.id << ", " << spec << (taps ? ", taps: " : ", no taps: ") << verdict.detail;
        EXPECT_LE(verdict.worst_ratio(), 1.0);
        for (const StageReport& report : verdict.stages) {
          EXPECT_FALSE(taps && report.weak_bound)
              << golden.c.id << ", " << spec << ", " << name_of(report.stage);
        }
      }
    }
  }
}

TEST(GoldenFiles, ExpectedStagesAreOurs) {
  for (const GoldenCase& golden : covered_golden_cases()) {
    const Trace exact = reference::evaluate(golden.c, reference::Mode::kExact);
    const Verdict verdict =
        compare_expected(golden.c, attn::golden::expected(golden.file, golden.c), exact);
    EXPECT_EQ(verdict.status, Status::kPassed) << golden.c.id << ": " << verdict.detail;
  }
}

/// One element of each expected stage, changed by a millionth of the stage's largest magnitude, and
/// by 1e-6 of its own value where it is not much smaller.
TEST(GoldenFiles, ADamagedFileIsWrong) {
  int damaged = 0;
  for (const GoldenCase& golden : covered_golden_cases()) {
    const Trace exact = reference::evaluate(golden.c, reference::Mode::kExact);
    const Trace right = attn::golden::expected(golden.file, golden.c);
    for (const Stage stage : all_stages()) {
      if (!right.has(stage)) continue;
      const std::vector<double> values = right[stage].values();
      std::size_t largest = 0;
      double magnitude = -1.0;
      for (std::size_t i = 0; i < values.size(); ++i) {
        if (!std::isfinite(values[i]) || std::abs(values[i]) <= magnitude) continue;
        largest = i;
        magnitude = std::abs(values[i]);
      }
      Trace one = right, all = right;
      const auto at = static_cast<std::int64_t>(largest);
      one[stage].set_value(at, values[largest] * (1 + 1e-6));
      // 1e-6 of the largest value where that is so large that the limit, 1e-9 of it, allows 1e-6.
      const double change = magnitude > 100.0 ? 1e-6 * magnitude : 1e-6;
      for (std::size_t i = 0; i < values.size(); ++i) {
        all[stage].set_value(static_cast<std::int64_t>(i), values[i] + change);
      }
      for (const Trace& trace : {one, all}) {
        const Verdict verdict = compare_expected(golden.c, trace, exact);
        EXPECT_EQ(verdict.status, Status::kFailed) << golden.c.id << ", " << name_of(stage);
        EXPECT_EQ(verdict.first_bad.value_or(Stage::kFreqsCis), stage);
        ++damaged;
      }
    }
  }
  EXPECT_GT(damaged, 200);
}

/// Guards against a bound that grew loose: where one bfloat16 rounding is all that happens, the
/// largest of a case's elements comes close to half an ulp, so the largest ratio comes close to 1.
TEST(GoldenFiles, TheBoundOfABfloat16ProjectionIsTight) {
  const auto backend = make_backend("faithful");
  std::vector<double> ratios;
  for (const GoldenCase& golden : covered_golden_cases()) {
    if (golden.c.config.dtype != ElementType::kBFloat16) continue;
    const Trace trace = backend->run(golden.c, all_stages());
    const Verdict verdict = compare(golden.c, trace, backend->arithmetic(golden.c.config));
    for (const StageReport& report : verdict.stages) {
      if (report.stage == Stage::kQProj) ratios.push_back(report.worst_ratio);
    }
  }
  ASSERT_GE(ratios.size(), 5u);
  std::sort(ratios.begin(), ratios.end());
  EXPECT_GE(ratios[ratios.size() / 2], 0.8);
}

}  // namespace
}  // namespace attn::harness
