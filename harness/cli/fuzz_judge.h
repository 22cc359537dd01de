#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "harness/backends/backend.h"
#include "harness/cli/verbs.h"
#include "harness/compare/compare.h"
#include "harness/fuzz/case_source.h"
#include "harness/fuzz/localise.h"
#include "harness/report/report.h"

namespace attn::cli {

/// A case and how the backend did on it.
struct FuzzResult {
  harness::FuzzCase tried;
  harness::ExecMode exec = harness::ExecMode::kPlain;  ///< the mode that failed, else the first
  harness::ReportRow row;
  bool replaced = false;  ///< `tried` stands for a case that could not have shown a bug
  bool alone = false;     ///< seen in a backend that had run nothing else
  bool fitted = false;    ///< `tried` is the case without what the backend does not support
};

/// Whether the row counts as a failure of the backend (or of the harness).
bool has_failed(const harness::ReportRow& row);
/// Whether `a` fails as `b` does (harness/fuzz/alike.h), or broke in the same way.
bool fails_alike(const harness::ReportRow& a, const harness::ReportRow& b);

/// What a backend answered to a case, for who wants to look closer.
struct Sample {
  Case c;
  std::optional<Case> other;  ///< run before it, in modes that do that
  Trace got;
  harness::Verdict verdict;  ///< of the run: passed when there is an answer

  const Case* other_case() const { return other ? &*other : nullptr; }
};

/// Runs a backend on generated cases and judges it, for fuzz. Safe from several threads.
class FuzzJudge {
 public:
  /// All must outlive the judge.
  FuzzJudge(const FuzzOptions& options, const harness::Backend& backend);

  /// In every mode, the first that fails ends it; in one of a device's modes where none was asked
  /// for. A case that could not have shown a bug is
  /// replaced by one that can: other values first, then ordinary data and scores. Never throws.
  FuzzResult judge(const harness::FuzzCase& tried) const;
  /// In one mode, the case as it is, on a backend that has run nothing before. Never throws.
  FuzzResult judge_alone(harness::ExecMode mode, const harness::FuzzCase& tried) const;
  /// The same without a judgement. Throws what make_case throws.
  Sample run_alone(harness::ExecMode mode, const harness::CaseSpec& spec, std::uint64_t seed) const;

  /// The final answer alone, of a fresh backend that makes one call, judged.
  harness::FinalAnswer final_answer(const Case& c) const;
  /// The case of the mode, not run yet.
  static Sample make(harness::ExecMode mode, const harness::CaseSpec& spec, std::uint64_t seed);

  const harness::Backend& backend() const { return backend_; }
  const std::vector<harness::ExecMode>& modes() const { return modes_; }

 private:
  std::unique_ptr<harness::Backend> fresh_backend() const;
  static Sample run(harness::ExecMode mode, const harness::CaseSpec& spec, std::uint64_t seed,
                    const harness::Backend& backend);
  FuzzResult fit(const std::vector<harness::ExecMode>& modes, const harness::FuzzCase& tried,
                 FuzzResult refused) const;
  FuzzResult judge_in(const std::vector<harness::ExecMode>& modes, const harness::FuzzCase& tried,
                      bool alone) const;

  const FuzzOptions& options_;
  const harness::Backend& backend_;
  std::vector<harness::ExecMode> modes_;
  bool deals_;  ///< one mode of a device to each case
  harness::CompareOptions compare_options_;
};

}  // namespace attn::cli
