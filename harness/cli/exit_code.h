#pragma once

#include "harness/report/report.h"

namespace attn::cli {

/// What the process returns. docs/cli.md lists them; scripts rely on them.
enum ExitCode : int {
  kAllPassed = 0,
  kComparisonFailed = 1,  ///< or unsupported, unless allowed
  kUsage = 2,
  kBadInput = 3,  ///< unreadable or tampered
  kNothingRan = 4,
  kBackendDied = 5,  ///< crashed or timed out
  kMistrusted = 6,
  kInternal = 70,
  kCannotJudge = 125,  ///< bisect-step only: whatever went wrong, the commit is neither
  kInterrupted = 130,
};

/// The highest rule that applies wins: 70, 130, 2, 3, 5, 1, 6, 4, 0. Usage errors never get as far
/// as a report. A run in which every row is unsupported (and allowed) or skipped ran nothing.
ExitCode exit_code(const harness::Report& report);

}  // namespace attn::cli
