#include "harness/cli/exit_code.h"

namespace attn::cli {

ExitCode exit_code(const harness::Report& report) {
  const harness::Tally tally = report.tally();
  if (tally.internal > 0) return kInternal;
  if (report.interrupted) return kInterrupted;
  if (tally.unreadable > 0) return kBadInput;
  if (tally.crashed + tally.timed_out > 0) return kBackendDied;
  if (tally.failed > 0) return kComparisonFailed;
  if (tally.unsupported > 0 && !report.allow_unsupported) return kComparisonFailed;
  if (tally.mistrusted > 0) return kMistrusted;
  if (tally.passed + tally.waived > 0) return kAllPassed;
  // A shard may own nothing, or nothing that the backend runs; the merge sees the whole.
  return report.is_part ? kAllPassed : kNothingRan;
}

}  // namespace attn::cli
