#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "harness/compare/arithmetic.h"
#include "reference/core/case.h"
#include "reference/core/trace.h"

namespace attn::harness {

enum class Status {
  kPassed,
  kFailed,       ///< first_bad names the stage
  kUnsupported,  ///< the backend said so; detail has the reason
  kSkipped,
  kMistrusted,  ///< the case could not have shown a bug; never counts as passed
  kCrashed,
  kTimedOut,
};
std::string_view name_of(Status status);

/// Which query rows (and their stages) are judged exactly.
struct RowSelection {
  bool all = true;
  /// Otherwise: every boundary row (first and last of each sequence, rows beside page, block and
  /// mask edges) and `random_rows` more, drawn under `seed`.
  std::int64_t random_rows = 64;
  std::uint64_t seed = 1;
};

struct CompareOptions {
  /// true: each stage is judged on the backend's own previous stage. false: allowances are
  /// propagated from the inputs, as if only the stages in `only` (or the last one) had been
  /// offered.
  bool taps = true;
  RowSelection rows;
  int threads = 1;
  bool check_trust = true;  ///< the three mistrusted tests
  bool explain = false;  ///< fill StageReport::parts of every stage; failed stages always have them
};

/// A named summand of one element's allowance, for `explain`.
using BoundPart = std::pair<std::string, double>;

/// How one stage compared.
struct StageReport {
  Stage stage = Stage::kOut;
  std::int64_t elements = 0;  ///< compared
  std::int64_t bad = 0;       ///< with error / bound above 1
  double worst_ratio = 0.0;   ///< largest error / bound; infinity for NaN or an exactness violated
  std::vector<std::int64_t>
      worst_index;          ///< in the stage's natural axes, e.g. {row, head, channel}
  std::string worst_where;  ///< "row 129 (sequence 1, position 40), head 5, channel 3"
  double got = 0.0, want = 0.0, bound = 0.0;
  std::vector<BoundPart> parts;  ///< of the worst element
  bool weak_bound = false;  ///< more than half of the elements have a bound above their head's rms
  std::string note;         ///< e.g. "NaN in 12 elements", "7 codes differ at ties"
};

struct Verdict {
  Status status = Status::kPassed;
  std::optional<Stage> first_bad;
  std::vector<StageReport> stages;  ///< in order, those compared
  std::vector<Stage> given;         ///< in order, those that the backend was fed with
  std::string detail;               ///< one line: reason of anything but passed
  /// RowSelection other than all: rows judged, rows in all.
  std::int64_t rows_checked = 0, rows_total = 0;
  double worst_ratio() const;
};

/// Judges `got` under the declared arithmetic. The exact side of each stage is computed in float64
/// from the backend's own previous stage (taps) or from the inputs (no taps). Stages that `got`
/// lacks are bridged. Checks also that slots outside the call kept every bit when `got.cache` is
/// there.
Verdict compare(const Case& c, const Trace& got, const Arithmetic& arithmetic,
                const CompareOptions& options = {});

/// For each stage, in the order of its tensor: how far an element of a correct answer may lie from
/// the exact one. Empty for a stage that was not asked for.
using StageAllowances = std::array<std::vector<double>, kNumStages>;

/// The allowances of the stages that `answer` has, propagated from the inputs (no taps) and from
/// the stages that it was given. Its other values do not enter. Throws Error(kUnsupported) for a
/// config that the reference does not cover.
StageAllowances allowances(const Case& c, const Trace& answer, const Arithmetic& arithmetic,
                           int threads = 1);

/// A golden file's expected stages against our exact reference: every element within
/// `tolerance` (1e-9) of the stage's largest magnitude. NaN, infinities must match.
Verdict compare_expected(const Case& c, const Trace& expected, const Trace& exact,
                         double tolerance = 1e-9);

/// "" when the case can show a bug; else why it cannot: zeros, the mean of the visible values, or
/// outputs moved by one row would have passed as well. A test applies where the exact answer
/// differs from the trivial one by more than the case's float32 bound, and passes when the trivial
/// answer lies within the bound of `declared` everywhere; no test that applies is a reason too.
/// `exact` must hold q_rope (or the case its q), the caches and attn_out; for materialize the
/// caches.
std::string mistrust_reason(const Case& c, const Trace& exact, const Arithmetic& declared = {});

/// Probability that rows chosen by `selection` miss a bug that touches `share` of all rows.
double miss_probability(std::int64_t rows_total, std::int64_t random_rows, double share);

}  // namespace attn::harness
