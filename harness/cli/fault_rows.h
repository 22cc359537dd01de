#pragma once

#include <iosfwd>
#include <map>
#include <string>
#include <vector>

#include "harness/faults/fault_run.h"
#include "harness/faults/score.h"
#include "harness/report/results.h"

namespace attn::cli {

/// A row passed when the bug was noticed, and a control (right in another way) when it was not; a
/// survivor that the recorded score has too is skipped. `plugin` is the file of the bugs of memory.
harness::ReportRow fault_row(const harness::FaultOutcome& outcome,
                             const std::vector<std::string>& known_survivors,
                             const std::string& plugin);
/// A case on which the build without a bug failed.
harness::ReportRow false_alarm_row(const std::string& alarm, bool memory);

/// The items of a run of `faults`, or of all its shards, as what they say of the planted bugs.
class FaultTotals {
 public:
  void add(const harness::ItemResult& item);
  /// Cases of the gate, where no item says so.
  void set_cases(std::int64_t value, std::int64_t memory);
  void set_random(std::int64_t cases) { value_.random = cases; }

  harness::GateScore score(std::uint64_t seed) const;
  /// Random cases that killed each bug, without controls.
  std::map<std::string, std::int64_t> random_kills() const;
  void print(std::ostream& out, const std::string& gate) const;

 private:
  void add_row(const harness::ReportRow& row);

  harness::FaultRun value_, memory_;
  bool clean_ = false, memory_clean_ = false;  ///< whether the builds without a bug were judged
};

/// What an item of a build without a bug says besides its alarms: how many cases passed.
std::string clean_note(const harness::FaultRun& run, bool memory);

/// The rows that are not as they should be, or with `all` every one.
void print_fault_rows(std::ostream& out, const std::vector<harness::ReportRow>& rows, bool all);

}  // namespace attn::cli
