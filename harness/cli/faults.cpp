#include <algorithm>
#include <filesystem>
#include <optional>
#include <ostream>
#include <thread>

#include "harness/cli/interrupt.h"
#include "harness/cli/verbs.h"
#include "harness/faults/faulty_library.h"
#include "harness/faults/score.h"
#include "harness/report/format.h"
#include "reference/core/error.h"

namespace attn::cli {
namespace {

namespace fs = std::filesystem;
using harness::FaultOutcome;
using harness::FaultRun;
using harness::FaultRunOptions;
using harness::FaultScore;
using harness::ReportRow;
using harness::Status;

/// The recorded score: of the tree that the program was built in, or of its installation.
std::string recorded_score() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (const fs::path& file : {program / "../../../data/faults/score.json",
                               program / "../share/attn_compare/faults/score.json"}) {
    if (fs::exists(file, error)) return file.lexically_normal().string();
  }
  return "";
}

FaultRunOptions run_options(const FaultsOptions& options) {
  FaultRunOptions run;
  run.plan.gate = harness::parse_gate(options.gate);
  run.plan.seed = options.seed;
  run.only = options.only;
  run.random = options.random;
  run.without_profile = options.without_profile;
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  run.jobs = options.jobs > 0 ? options.jobs : cores;
  const auto oracle = harness::find_oracle(options.oracle);
  if (!oracle) {
    throw Error(ErrorKind::kUsage,
                "there is no oracle \"" + options.oracle + "\"" +
                    hint(options.oracle, {"all", "no-taps", "final", "tolerance", "pool-guard"}),
                "--oracle");
  }
  run.oracle = *oracle;
  if (!options.shard.empty()) run.shard = harness::parse_shard(options.shard);
  return run;
}

/// Why a bug survived: what to mend.
std::string survival(const FaultOutcome& outcome) {
  const std::string trigger = " (needs: " + std::string(outcome.fault->trigger) + ")";
  if (!outcome.reached) return "survived: not reached, no case has its trigger" + trigger;
  if (!outcome.infected) return "survived: reached, but no bit differs; the data do not show it";
  return "survived: bits differ, but nothing failed; the oracle does not see it";
}

std::string kill(const FaultOutcome& outcome) {
  std::string text = "case " + std::to_string(outcome.cases_to_kill) + ", " +
                     std::string(name_of(outcome.kill.detector));
  if (outcome.kill.stage) text += ", " + std::string(name_of(*outcome.kill.stage));
  return text;
}

/// A row passed when the bug was killed (a control: when it was not); a survivor that the recorded
/// score has too is skipped.
ReportRow row_of(const FaultOutcome& outcome, const std::vector<std::string>& known_survivors) {
  ReportRow row;
  row.name = std::string(outcome.fault->id);
  row.backend = "faulty:" + row.name;
  row.seconds = outcome.seconds_to_kill;
  const bool is_control = !outcome.fault->equivalent_because.empty();
  const auto yes_or_no = [](bool yes) { return std::string(yes ? "yes" : "no"); };
  row.properties = {
      {"summary", std::string(outcome.fault->summary)}, {"control", yes_or_no(is_control)},
      {"reached", yes_or_no(outcome.reached)},          {"infected", yes_or_no(outcome.infected)},
      {"killed", yes_or_no(outcome.killed())},          {"cases_to_kill", outcome.cases_to_kill},
      {"seconds_to_kill", outcome.seconds_to_kill},     {"random_kills", outcome.random_kills}};
  if (outcome.killed()) {
    row.properties.emplace_back("detector", std::string(name_of(outcome.kill.detector)));
    row.properties.emplace_back("mode", std::string(name_of(outcome.kill.mode)));
    row.repro = "attn-compare run " + outcome.repro + " --backend " + row.backend;
  }
  row.verdict.detail = outcome.killed() ? kill(outcome) : survival(outcome);
  if (is_control) {
    if (outcome.killed()) {
      row.verdict.status = Status::kFailed;
      row.verdict.detail = "false alarm on what is right: " + outcome.kill.detail;
    } else {
      row.verdict.detail = "right, and passed";
    }
  } else if (!outcome.killed()) {
    const bool known = std::ranges::find(known_survivors, row.name) != known_survivors.end();
    row.verdict.status = known ? Status::kSkipped : Status::kFailed;
  }
  return row;
}

void print_row(std::ostream& out, const ReportRow& row) {
  constexpr std::size_t kNameWidth = 34;
  std::string line = row.name;
  line.resize(std::max(line.size() + 2, kNameWidth), ' ');
  line += std::string(row.verdict.status == Status::kPassed ? "" : "! ") + row.verdict.detail;
  out << harness::wrap(line, kNameWidth) << "\n";
}

void print_summary(std::ostream& out, const FaultRun& run, const harness::GateScore& score,
                   const std::string& gate) {
  out << score.killed << " of " << score.planted << " planted bugs killed; gate " << gate << ", "
      << harness::format_count(score.cases) << " cases; cases to a kill: median "
      << score.median_cases << ", most " << score.most_cases << "\n"
      << std::ssize(run.outcomes) - score.planted << " controls, "
      << harness::format_count(score.cases + run.random)
      << " cases without a bug: " << run.false_alarms.size()
      << (run.false_alarms.size() == 1 ? " false alarm" : " false alarms") << "\n";
}

void record(const std::string& path, const FaultRun& run, const harness::GateScore& score,
            const std::string& gate) {
  std::error_code error;
  FaultScore recorded = fs::exists(path, error) ? harness::load_score(path) : FaultScore{};
  recorded.gates[gate] = score;
  if (run.random > 0) {
    recorded.random_cases = run.random;
    recorded.random_kills.clear();
    for (const FaultOutcome& outcome : run.outcomes) {
      if (!outcome.fault->equivalent_because.empty()) continue;
      recorded.random_kills[std::string(outcome.fault->id)] = outcome.random_kills;
    }
  }
  harness::save_score(path, recorded);
}

}  // namespace

int faults(const FaultsOptions& options, const Session& session) {
  if (options.backend == "cuda") return device_faults(options, session);
  Reporter reporter(session, options.report, "faults");
  FaultRunOptions run_of = run_options(options);
  if (!options.record.empty() && (!options.only.empty() || !run_of.shard.is_whole())) {
    throw Error(ErrorKind::kUsage, "--record wants every bug: leave out --only and --shard",
                "--record");
  }
  harness::FaultyLibrary::instance();  // its absence is the user's to mend, before anything runs
  std::vector<std::string> known_survivors;
  const std::string score_file = recorded_score();
  if (!score_file.empty() && options.record.empty()) {
    const FaultScore recorded = harness::load_score(score_file);
    const auto gate = recorded.gates.find(options.gate);
    if (gate != recorded.gates.end()) known_survivors = gate->second.survivors;
  }
  const InterruptGuard guard;
  std::optional<Progress> progress;
  run_of.progress = [&](std::int64_t done, std::int64_t of) {
    if (!progress) progress.emplace(session.streams, of, "cases");
    progress->update(done, 0);
  };
  run_of.stop = [] { return interrupted(); };
  const FaultRun run = harness::run_faults(run_of);
  progress.reset();
  if (run.stopped) {
    session.streams.err << "interrupted: no bug is judged on part of the gate's cases" << std::endl;
    return reporter.finish();
  }
  std::ostream& out = reporter.text();
  for (const FaultOutcome& outcome : run.outcomes) {
    ReportRow row = row_of(outcome, known_survivors);
    if (options.report.verbose || row.verdict.status != Status::kPassed) print_row(out, row);
    reporter.report().rows.push_back(std::move(row));
  }
  for (const std::string& alarm : run.false_alarms) {
    ReportRow row;
    row.name = "none";
    row.backend = "faulty:none";
    row.verdict.status = Status::kFailed;
    row.verdict.detail = "false alarm without a bug: " + alarm;
    print_row(out, row);
    reporter.report().rows.push_back(std::move(row));
  }
  const harness::GateScore score = harness::score_of(run, options.seed);
  print_summary(out, run, score, options.gate);
  if (!options.record.empty()) record(options.record, run, score, options.gate);
  out << "\n" << to_string(reporter.report().tally()) << std::endl;
  session.streams.err << harness::format_seconds(run.seconds) << " on " << run_of.jobs
                      << (run_of.jobs == 1 ? " thread" : " threads") << std::endl;
  return reporter.finish();
}

}  // namespace attn::cli
