#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "harness/bench/history/database.h"

namespace attn::history {

/// One row for each result, or with `samples` for each repetition: RFC 4180, header first, every
/// run and column of docs/history.md.
void export_csv(Database& database, const std::vector<Run>& runs, bool samples, std::ostream& out);

/// What github-action-benchmark reads with tool customSmallerIsBetter: name, unit (ns), value (the
/// median), range (the standard deviation), extra.
void export_github_action(Database& database, const Run& run, std::ostream& out);

/// Bencher's Metric Format: for each benchmark the measures latency (ns, with the smallest and the
/// largest repetition as bounds), throughput (operations a second) and those that it has of tflops,
/// gbps, roofline, error_bound, instructions.
void export_bencher(Database& database, const Run& run, std::ostream& out);

/// A table of one run for people, with the environment above it.
void export_markdown(Database& database, const Run& run, std::ostream& out);

}  // namespace attn::history
