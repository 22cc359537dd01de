#include <algorithm>
#include <cmath>

#include "harness/compare/compare.h"
#include "harness/compare/stage_score.h"

namespace attn::harness {
namespace {

double largest_magnitude(const std::vector<double>& values) {
  double largest = 0.0;
  for (const double v : values) {
    if (std::isfinite(v)) largest = std::max(largest, std::abs(v));
  }
  return largest;
}

/// "[3, 1, 7]" and its numbers: a flat index in the stage's own axes.
void describe(const Shape& shape, std::int64_t flat, StageReport& report) {
  report.worst_index.assign(shape.size(), 0);
  for (std::size_t axis = shape.size(); axis-- > 0; flat /= shape[axis]) {
    report.worst_index[axis] = flat % shape[axis];
  }
  report.worst_where = "element " + to_string(report.worst_index);
}

StageReport compare_stage(Stage stage, const Tensor& expected, const Tensor& exact,
                          double tolerance) {
  const std::vector<double> got = expected.values(), want = exact.values();
  const double largest = largest_magnitude(want);
  // The table is float32 values: two float64 libraries may round an entry to neighbours.
  const double bound = stage == Stage::kFreqsCis ? 0x1p-23 * largest : tolerance * largest;
  StageScore score(stage);
  for (std::size_t i = 0; i < want.size(); ++i) {
    score.add(static_cast<std::int64_t>(i), got[i], want[i], bound);
  }
  if (score.worst() >= 0) describe(exact.shape(), score.worst(), score.report());
  score.report().parts = {{"tolerance", bound}};
  return score.finish();
}

}  // namespace

Verdict compare_expected(const Case& c, const Trace& expected, const Trace& exact,
                         double tolerance) {
  Verdict verdict;
  const auto fail = [&verdict](Stage stage, const std::string& detail) {
    if (verdict.status == Status::kFailed) return;
    verdict.status = Status::kFailed;
    verdict.first_bad = stage;
    verdict.detail = detail;
  };
  for (const Stage stage : all_stages()) {
    if (!expected.has(stage)) continue;
    const std::string name = "expected/" + std::string(name_of(stage));
    if (!exact.has(stage)) {
      fail(stage, name + ": a case of this config has no such stage");
      continue;
    }
    if (expected[stage].size() != exact[stage].size()) {
      fail(stage, name + ": shape " + to_string(expected[stage].shape()) + ", must be " +
                      to_string(stage_shape(c, stage)));
      continue;
    }
    const StageReport& report =
        verdict.stages.emplace_back(compare_stage(stage, expected[stage], exact[stage], tolerance));
    if (report.bad > 0) {
      fail(stage, name + " is not what the exact reference computes: " +
                      std::to_string(report.bad) + " of " + std::to_string(report.elements) +
                      " elements differ, worst at " + report.worst_where);
    }
  }
  if (verdict.stages.empty() && verdict.status == Status::kPassed) {
    verdict.status = Status::kSkipped;
    verdict.detail = "the file expects no stage";
  }
  return verdict;
}

}  // namespace attn::harness
