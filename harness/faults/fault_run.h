#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "harness/backends/exec_mode.h"
#include "harness/compare/compare.h"
#include "harness/faults/fault_items.h"
#include "harness/generate/space.h"

namespace attn::harness {

/// What became of one bug on one case.
struct Attempt {
  bool reached = false;   ///< the switched line ran where it makes a difference
  bool infected = false;  ///< some stage or the cache differs in a bit from the run without bugs
  bool killed = false;    ///< the comparison failed, or the backend threw
  Detector detector = Detector::kValue;  ///< killed: what noticed
  ExecMode mode = ExecMode::kPlain;
  std::optional<Stage> stage;  ///< killed: the first bad stage
  std::string detail;
  double seconds = 0.0;  ///< running and judging
};

/// What counts as noticed: all that the comparison has, or one of its parts alone.
enum class Oracle {
  kAll,
  kNoTaps,     ///< stages judged on bounds propagated from the inputs
  kFinal,      ///< the last stage alone, on such a bound
  kTolerance,  ///< the last stage alone, within 1e-2 + 1e-2 |x|, as many suites have it
  kPoolGuard,  ///< the slots of the cache that the call must not write
};
std::string_view name_of(Oracle oracle);
std::optional<Oracle> find_oracle(std::string_view name);

/// What the report of a failed comparison says of its cause.
Detector detector_of(const Verdict& verdict);

/// One case with what the library gives for it without bugs. Safe to share between threads.
class FaultCase {
 public:
  FaultCase(const PlannedCase& planned, Oracle oracle);

  const Case& c() const { return case_; }
  /// Whether the build without bugs passes: "" or how it fails.
  std::string false_alarm() const;
  /// `other`: the case of the earlier call, for kSecondCall.
  Attempt run(const FaultInfo& fault, ExecMode mode, const Case* other = nullptr) const;

 private:
  void judge(const Trace& trace, Attempt& attempt) const;

  Case case_;
  std::vector<Stage> wanted_;
  Oracle oracle_;
  Trace right_;
  Arithmetic arithmetic_;
};

/// The result of one bug over a run.
struct FaultOutcome {
  std::int64_t item = 0;  ///< of the whole run
  const FaultInfo* fault = nullptr;
  bool reached = false;  ///< like the next, by the gate's cases
  bool infected = false;
  std::int64_t cases_to_kill = 0;  ///< the first that killed it counts from 1; 0: survived
  double seconds_to_kill = 0.0;    ///< running and judging this bug, to its kill or the end
  Attempt kill;                    ///< the first; meaningless for a survivor
  std::string repro;               ///< options that name the case that killed it
  std::int64_t random_kills = 0;   ///< of FaultRunOptions::random cases
  bool killed() const { return cases_to_kill > 0; }
};

struct FaultRunOptions {
  GatePlan plan;
  std::vector<FaultItem> items;  ///< those of fault_items that this run is to do
  std::int64_t random = 0;       ///< random cases after the gate's, each on every bug
  int jobs = 1;
  Oracle oracle = Oracle::kAll;
  std::string without_profile;  ///< cases of this data profile are made normal
  std::function<void(std::int64_t done, std::int64_t of)> progress;  ///< called with a lock held
  /// Called once for each bug, from any thread, as soon as nothing can change its outcome.
  std::function<void(const FaultOutcome& outcome)> settled;
  std::function<bool()> stop;
};

struct FaultRun {
  std::vector<FaultOutcome> outcomes;  ///< in the order of the items
  std::int64_t cases = 0;              ///< of the gate
  std::int64_t random = 0;
  /// The item of the build without bugs, where it was to be done, and its alarms by case.
  std::optional<std::int64_t> clean_item;
  std::vector<std::string> false_alarms;
  double seconds = 0.0;
  bool stopped = false;
};

/// Runs the gate's cases in order on every bug of the catalogue that is not yet killed. What a
/// bug's outcome is does not depend on `jobs` nor on the other items. Throws Error(kUsage).
FaultRun run_faults(const FaultRunOptions& options);

}  // namespace attn::harness
