#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ostream>

#include "harness/backends/backend.h"
#include "harness/cli/interrupt.h"
#include "harness/cli/judge.h"
#include "harness/cli/verbs.h"
#include "harness/report/format.h"
#include "reference/core/error.h"

namespace attn::cli {
namespace {

using harness::StageReport;
using harness::Status;

void print_arithmetic(std::ostream& out, const harness::Arithmetic& arithmetic) {
  const auto name = [](ElementType type) { return std::string(element_name(type)); };
  const std::string text = "declared arithmetic: q, k, v in " + name(arithmetic.store) +
                           ", output in " + name(arithmetic.out) + ", cache in " +
                           name(arithmetic.cache) + ", probabilities in " +
                           name(arithmetic.probabilities);
  out << harness::wrap(text, 2) << "\n\n";
}

void print_parts(std::ostream& out, const StageReport& stage) {
  std::vector<harness::BoundPart> parts = stage.parts;
  std::stable_sort(parts.begin(), parts.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  for (const auto& [name, value] : parts) {
    char figures[48];
    std::snprintf(figures, sizeof figures, "    %10.3g  %5.1f %%  ", value,
                  stage.bound > 0 ? 100.0 * value / stage.bound : 0.0);
    out << figures << name << "\n";
  }
}

void print_stage(std::ostream& out, const StageReport& stage) {
  out << name_of(stage.stage) << ": error/bound " << harness::format_ratio(stage.worst_ratio)
      << ", error " << harness::format_short(std::abs(stage.got - stage.want)) << ", bound "
      << harness::format_short(stage.bound) << "\n";
  if (!stage.worst_where.empty()) {
    out << "  worst element: " << stage.worst_where << "\n  got "
        << harness::format_number(stage.got) << ", want " << harness::format_number(stage.want)
        << "\n";
  }
  if (stage.parts.empty()) {
    out << "  the stage must be met exactly: its bound has no parts\n";
  } else {
    print_parts(out, stage);
  }
  out << "\n";
}

}  // namespace

int explain(const ExplainOptions& options, const Session& session) {
  Reporter reporter(session, options.report, "explain");
  if (!options.stage.empty()) parse_stage(options.stage);  // a misspelt one ends here
  const auto backend = open_backend(options.backend, options.isolation);
  const LoadedCase loaded = load_case(options.source);
  harness::CompareOptions compare_options;
  compare_options.taps = options.taps;
  compare_options.explain = true;

  const InterruptGuard guard;
  harness::ReportRow row;
  row.name = loaded.c.id;
  row.file = loaded.file;
  row.backend = options.backend;
  row.repro = "attn-compare explain " + loaded.words + " --backend " + shell_quote(options.backend);
  guarded(row, [&] {
    Trace trace;
    row.verdict = run_backend(loaded.c, *backend, trace);
    if (row.verdict.status != Status::kPassed) return;
    row.verdict = judge_trace(loaded.c, *backend, trace, compare_options, nullptr);
  });

  std::ostream& out = reporter.text();
  out << loaded.c.id << " on " << options.backend
      << ": how the bound of each stage's worst element "
      << "was made\n";
  print_arithmetic(out, backend->arithmetic(loaded.c.config));
  bool found = false;
  for (const StageReport& stage : row.verdict.stages) {
    if (!options.stage.empty() && name_of(stage.stage) != options.stage) continue;
    found = true;
    print_stage(out, stage);
  }
  if (!found && row.verdict.stages.empty()) {
    out << outcome(row) << ": " << row.verdict.detail << "\n\n";
  } else if (!found) {
    throw Error(ErrorKind::kUsage, "--stage " + options.stage + ": this case and backend have none",
                "--stage");
  }
  reporter.report().rows.push_back(std::move(row));
  out << to_string(reporter.report().tally()) << std::endl;
  return reporter.finish();
}

}  // namespace attn::cli
