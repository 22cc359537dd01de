#include "harness/compare/stage_score.h"

#include <algorithm>
#include <cmath>
#include <string>

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

void StageScore::add_code(double got, double want, double value, double flip) {
  if (!std::isfinite(value)) return;  // judged element by element
  likely_ += flip;
  variance_ += flip * (1.0 - flip);
  values_.push_back(value);
  // Neighbours are at least 1/15 apart; what is nearer differs by the rounding of code * scale.
  constexpr double kSameCode = 0x1p-8;
  if (std::abs(got - want) > kSameCode * std::max(std::abs(got), std::abs(want))) ++differing_;
}

/// Codes at ties may differ, but not many: a backend that rounds in another way gets most ties
/// wrong.
void StageScore::judge_codes() {
  if (differing_ == 0) return;
  constexpr double kShare = 1e-3;  // of all codes: float32
  constexpr double kLikely = 1.5, kDeviations = 4.0;
  const std::int64_t codes = std::ssize(values_);
  const double limit =
      std::max(kShare * static_cast<double>(codes),
               kLikely * likely_ + kDeviations * std::max(1.0, std::sqrt(variance_)));
  note(std::to_string(differing_) + " codes differ");
  // Repeated values flip together, and few values show no share.
  constexpr std::int64_t kFewest = 200;
  if (codes < kFewest) return;
  std::sort(values_.begin(), values_.end());
  if (2 * (std::unique(values_.begin(), values_.end()) - values_.begin()) < codes) return;
  const double ratio = static_cast<double>(differing_) / limit;
  if (!(ratio > 1.0)) return;
  report_.bad = std::max(report_.bad, differing_);
  report_.worst_ratio = std::max(report_.worst_ratio, ratio);
  note("more than the " + std::to_string(static_cast<std::int64_t>(limit)) + " of " +
       std::to_string(codes) + " that the declared arithmetic makes likely");
}

void StageScore::note(const std::string& text) {
  if (!report_.note.empty()) report_.note += "; ";
  report_.note += text;
}

StageReport StageScore::finish() {
  judge_codes();
  if (not_finite_ > 0) note("NaN or infinity in " + std::to_string(not_finite_) + " elements");
  return std::move(report_);
}

}  // namespace attn::harness
