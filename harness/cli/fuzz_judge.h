#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "harness/backends/backend.h"
#include "harness/cli/verbs.h"
#include "harness/compare/compare.h"
#include "harness/fuzz/case_source.h"
#include "harness/fuzz/localise.h"
#include "harness/relations/relations.h"
#include "harness/report/report.h"
#include "harness/report/waivers.h"

namespace attn::cli {

/// A case and how the backend did on it.
struct FuzzResult {
  harness::FuzzCase tried;
  harness::ExecMode exec = harness::ExecMode::kPlain;  ///< the mode that failed, else the first
  std::string relation;  ///< that is broken, "" where the answer itself was judged
  harness::ReportRow row;
  bool alone = false;                  ///< seen in a backend that had run nothing else
  std::string degenerate;              ///< why the values of the case show little
  std::vector<harness::Point> points;  ///< of the space: those of the cases that were judged
};

/// Whether the row counts as a failure of the backend (or of the harness): not if it is waived.
bool has_failed(const harness::ReportRow& row);
/// Whether `a` fails as `b` does (harness/fuzz/alike.h), or breaks the same relation there, or
/// broke in the same way.
bool fails_alike(const FuzzResult& a, const FuzzResult& b);

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
  /// The options and the backend must outlive the judge.
  FuzzJudge(const FuzzOptions& options, const harness::Backend& backend);

  /// In every mode, the first that fails ends it; in one of a device's modes where none was asked
  /// for, and in the layout of the case as far as the backend takes it. A case that could not have
  /// shown a bug by itself passes only when a neighbour that can
  /// does too; else the row is the neighbour's. What passed is put through the relations, where it
  /// is its turn. Never throws.
  FuzzResult judge(const harness::FuzzCase& planned) const;
  /// The case as it is, on a backend that has run nothing before, in one mode; or, for a failure of
  /// a relation, by that relation. Never throws.
  FuzzResult judge_alone(harness::ExecMode mode, const std::string& relation,
                         const harness::FuzzCase& tried) const;
  /// The answer in one mode, likewise alone. Throws what make_case throws.
  Sample run_alone(harness::ExecMode mode, const harness::CaseSpec& spec, std::uint64_t seed) const;

  /// The final answer alone, of a fresh backend that makes one call, judged.
  harness::FinalAnswer final_answer(const Case& c) const;
  /// The case of the mode, not run yet.
  static Sample make(harness::ExecMode mode, const harness::CaseSpec& spec, std::uint64_t seed);

  const harness::Backend& backend() const { return backend_; }
  const std::vector<harness::ExecMode>& modes() const { return modes_; }
  const harness::Waivers& waivers() const { return waivers_; }

 private:
  std::unique_ptr<harness::Backend> fresh_backend() const;
  harness::FuzzCase as_taken(harness::FuzzCase tried) const;
  static Sample run(harness::ExecMode mode, const harness::CaseSpec& spec, std::uint64_t seed,
                    const harness::Backend& backend);
  FuzzResult fit(const std::vector<harness::ExecMode>& modes, const harness::FuzzCase& tried,
                 FuzzResult refused) const;
  FuzzResult judge_in(const std::vector<harness::ExecMode>& modes, const harness::FuzzCase& tried,
                      bool alone) const;
  FuzzResult judge_pair(const std::vector<harness::ExecMode>& modes,
                        const harness::FuzzCase& planned) const;
  bool wants_relations(const harness::FuzzCase& tried) const;
  void check_relations(const harness::Backend& backend, const std::string& only,
                       FuzzResult& result) const;

  const FuzzOptions& options_;
  const harness::Backend& backend_;
  std::vector<harness::ExecMode> modes_;
  bool deals_;  ///< one mode of a device to each case
  std::vector<harness::Relation> relations_;
  harness::Waivers waivers_;
  harness::CompareOptions compare_options_;
};

}  // namespace attn::cli
