#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "harness/compare/compare.h"

namespace attn::harness {

/// error / bound of one element. A wanted infinity must be met exactly, a wanted NaN by NaN or an
/// infinity; NaN or an infinity where a number is wanted is infinitely wrong, and so is any error
/// where the bound is 0.
double error_ratio(double got, double want, double bound);

/// Gathers one stage's comparison, element by element.
class StageScore {
 public:
  explicit StageScore(Stage stage) { report_.stage = stage; }

  /// Element `index` of the caller's own numbering.
  void add(std::int64_t index, double got, double want, double bound);
  /// An element that had to keep its bits and did, or did not.
  void add_exact(std::int64_t index, double got, double want) { add(index, got, want, 0.0); }
  /// `count` elements that kept theirs.
  void add_equal(std::int64_t count) { report_.elements += count; }

  /// An element that was stored as a code: whether `got` is another code than `want`, that of the
  /// exact `value`, which a correct backend stores with probability `flip`.
  void add_code(double got, double want, double value, double flip);

  std::int64_t worst() const { return worst_; }  ///< -1 when there was no element
  StageReport& report() { return report_; }
  /// The report with its notes on elements that are not finite and on codes that differ; more of
  /// these than the declared arithmetic makes likely are bad.
  StageReport finish();

 private:
  void judge_codes();
  void note(const std::string& text);

  StageReport report_;
  std::int64_t worst_ = -1;
  std::int64_t not_finite_ = 0;
  std::int64_t differing_ = 0;
  double likely_ = 0.0, variance_ = 0.0;
  std::vector<double> values_;  ///< exact, of all codes
};

}  // namespace attn::harness
