// faults --backend cuda: the planted bugs of the CUDA path.
#include <algorithm>
#include <fstream>
#include <optional>
#include <ostream>
#include <thread>

#include "harness/backends/cuda_backend.h"
#include "harness/cli/build_info.h"
#include "harness/cli/interrupt.h"
#include "harness/cli/verbs.h"
#include "harness/faults/device_run.h"
#include "harness/faults/score.h"
#include "harness/report/format.h"
#include "reference/core/error.h"

namespace attn::cli {
namespace {

using harness::DeviceFaultOutcome;
using harness::DeviceFaultRun;
using harness::ReportRow;
using harness::Status;

ReportRow row_of(const DeviceFaultOutcome& outcome) {
  ReportRow row;
  row.name = std::string(outcome.fault->id);
  row.backend = "faulty_cuda:" + row.name;
  const auto yes_or_no = [](bool yes) { return std::string(yes ? "yes" : "no"); };
  row.properties = {{"summary", std::string(outcome.fault->summary)},
                    {"reached", yes_or_no(outcome.reached)},
                    {"infected", yes_or_no(outcome.infected)},
                    {"killed", yes_or_no(outcome.killed())},
                    {"cases_to_kill", outcome.cases_to_kill}};
  if (!outcome.killed()) {
    row.verdict.status = Status::kFailed;
    row.verdict.detail = !outcome.reached    ? "survived: not reached; needs: "
                         : !outcome.infected ? "survived: no bit differs; needs: "
                                             : "survived: bits differ, nothing failed; needs: ";
    row.verdict.detail += outcome.fault->trigger;
    return row;
  }
  const std::string mode(name_of(outcome.kill.mode));
  row.properties.emplace_back("mode", mode);
  row.repro = "attn-compare run " + outcome.repro + " --backend " + row.backend + " --exec " + mode;
  row.verdict.detail = "case " + std::to_string(outcome.cases_to_kill) + ", " + mode;
  if (outcome.kill.stage) row.verdict.detail += ", " + std::string(name_of(*outcome.kill.stage));
  return row;
}

void print_row(std::ostream& out, const ReportRow& row) {
  constexpr std::size_t kNameWidth = 34;
  std::string line = row.name;
  line.resize(std::max(line.size() + 2, kNameWidth), ' ');
  line += std::string(row.verdict.status == Status::kPassed ? "" : "! ") + row.verdict.detail;
  out << harness::wrap(line, kNameWidth) << "\n";
}

void refuse_options_of_cpu(const FaultsOptions& options) {
  const auto refuse = [](const char* option) {
    throw Error(ErrorKind::kUsage, std::string(option) + " is not for --backend cuda", option);
  };
  if (options.random > 0) refuse("--random");
  if (!options.shard.shard.empty()) refuse("--shard");
  if (!options.shard.results.empty()) refuse("--results");
  if (options.oracle != "all") refuse("--oracle");
  if (!options.without_profile.empty()) refuse("--without-profile");
}

}  // namespace

int device_faults(const FaultsOptions& options, const Session& session) {
  Reporter reporter(session, options.report, "faults");
  refuse_options_of_cpu(options);
  harness::DeviceFaultOptions run_of;
  run_of.plan.gate = harness::parse_gate(options.gate);
  run_of.plan.seed = options.seed;
  run_of.only = options.only;
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  run_of.jobs = options.jobs > 0 ? options.jobs : cores;
  const InterruptGuard guard;
  std::optional<Progress> progress;
  run_of.progress = [&](std::int64_t done, std::int64_t of) {
    if (!progress) progress.emplace(session.streams, of, "cases");
    progress->update(done, 0);
  };
  run_of.stop = [] { return interrupted(); };
  const DeviceFaultRun run = harness::run_device_faults(run_of);
  progress.reset();
  if (run.stopped) {
    session.streams.err << "interrupted: no bug is judged on part of the gate's cases" << std::endl;
    return reporter.finish();
  }
  std::ostream& out = reporter.text();
  for (const DeviceFaultOutcome& outcome : run.outcomes) {
    ReportRow row = row_of(outcome);
    if (options.report.verbose || row.verdict.status != Status::kPassed) print_row(out, row);
    reporter.report().rows.push_back(std::move(row));
  }
  for (const std::string& alarm : run.false_alarms) {
    ReportRow row;
    row.name = "none";
    row.backend = "faulty_cuda:none";
    row.verdict.status = Status::kFailed;
    row.verdict.detail = "false alarm without a bug: " + alarm;
    print_row(out, row);
    reporter.report().rows.push_back(std::move(row));
  }
  out << run.killed() << " of " << run.outcomes.size() << " planted bugs killed on "
      << harness::cuda_device_name() << "; gate " << options.gate << ", "
      << harness::format_count(run.cases) << " cases in turns of the seven modes; "
      << run.false_alarms.size()
      << (run.false_alarms.size() == 1 ? " false alarm" : " false alarms") << "\n";
  if (!options.record.empty()) {
    std::ofstream file(options.record);
    file << device_fault_json(run, options.gate, harness::cuda_device_name(), commit());
    file.close();
    if (!file) {
      throw Error(ErrorKind::kUsage, options.record + ": cannot be written", "--record");
    }
  }
  session.streams.err << harness::format_seconds(run.seconds) << std::endl;
  return reporter.finish();
}

}  // namespace attn::cli
