#include "harness/compare/stage_score.h"

#include <cmath>

namespace attn::harness {

double error_ratio(double got, double want, double bound) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (std::isnan(want)) return std::isfinite(got) ? kInfinity : 0.0;
  if (got == want) return 0.0;
  if (!std::isfinite(want) || !std::isfinite(got)) return kInfinity;
  if (!(bound > 0.0)) return kInfinity;
  return std::abs(got - want) / bound;
}

void StageScore::add(std::int64_t index, double got, double want, double bound) {
  ++report_.elements;
  const double ratio = error_ratio(got, want, bound);
  if (ratio > 1.0) ++report_.bad;
  if (!std::isfinite(got) && std::isfinite(want)) ++not_finite_;
  if (worst_ >= 0 && ratio <= report_.worst_ratio) return;
  worst_ = index;
  report_.worst_ratio = ratio;
  report_.got = got;
  report_.want = want;
  report_.bound = bound;
}

StageReport StageScore::finish() {
  if (not_finite_ > 0) {
    if (!report_.note.empty()) report_.note += "; ";
    report_.note += "NaN or infinity in " + std::to_string(not_finite_) + " elements";
  }
  return std::move(report_);
}

}  // namespace attn::harness
