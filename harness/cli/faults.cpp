#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <ostream>
#include <thread>
#include <utility>

#include "harness/cli/fault_rows.h"
#include "harness/cli/interrupt.h"
#include "harness/cli/verbs.h"
#include "harness/faults/faulty_library.h"
#include "harness/faults/memory_run.h"
#include "harness/report/format.h"
#include "reference/core/error.h"

namespace attn::cli {
namespace {

namespace fs = std::filesystem;
using harness::FaultItem;
using harness::FaultOutcome;
using harness::FaultRun;
using harness::FaultRunOptions;
using harness::FaultScore;
using harness::ItemResult;

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
  return run;
}

/// Studies of a part of the comparison or of the data say nothing of where a kernel reads.
bool runs_memory(const FaultsOptions& options) {
  return options.oracle == "all" && options.without_profile.empty();
}

std::string id_of(const FaultItem& item) {
  if (item.fault != nullptr) return std::string(item.fault->id);
  return item.kind == FaultItem::Kind::kValueClean ? "none" : "none (memory)";
}

class FaultsVerb {
 public:
  FaultsVerb(const FaultsOptions& options, const Session& session)
      : options_(options),
        session_(session),
        reporter_(session, options.report, "faults"),
        run_of_(run_options(options)),
        items_(harness::fault_items(options.only, runs_memory(options))) {
    const harness::Shard shard = shard_of(options.shard);
    reporter_.report().is_part = !shard.is_whole();
    if (!options.record.empty() && (!options.only.empty() || !shard.is_whole())) {
      throw Error(ErrorKind::kUsage, "--record wants every bug: leave out --only and --shard",
                  "--record");
    }
    // Their absence is the user's to mend, before anything runs.
    harness::FaultyLibrary::instance();
    if (runs_memory(options)) plugin_ = harness::faulty_memory_plugin();
    load_known_survivors();
    open();
    std::ranges::copy_if(items_, std::back_inserter(own_),
                         [&](const FaultItem& item) { return shard.owns(item.number); });
  }

  int execute();

 private:
  void load_known_survivors();
  void open();
  void keep(const FaultItem& item, ItemResult result);
  void keep(const FaultOutcome& outcome);
  void keep_clean(const FaultRun& run, bool memory);
  bool run_all();
  void record(const FaultTotals& totals) const;

  const FaultsOptions& options_;
  const Session& session_;
  Reporter reporter_;
  FaultRunOptions run_of_;
  std::vector<FaultItem> items_;  ///< of the whole run
  std::vector<FaultItem> own_;    ///< of this shard
  std::string plugin_;
  std::vector<std::string> known_survivors_;
  std::unique_ptr<harness::ResultFile> results_;
  std::mutex mutex_;
  std::map<std::int64_t, ItemResult> done_;
  std::int64_t cases_ = 0, memory_cases_ = 0;
};

void FaultsVerb::load_known_survivors() {
  const std::string score_file = recorded_score();
  if (score_file.empty() || !options_.record.empty()) return;
  const FaultScore recorded = harness::load_score(score_file);
  const auto gate = recorded.gates.find(options_.gate);
  if (gate == recorded.gates.end()) return;
  known_survivors_ = gate->second.survivors;
  const std::vector<std::string>& memory = gate->second.memory.survivors;
  known_survivors_.insert(known_survivors_.end(), memory.begin(), memory.end());
}

void FaultsVerb::open() {
  harness::RunInfo info;
  info.verb = "faults";
  info.options = "faults --gate " + options_.gate + " --seed " + std::to_string(options_.seed) +
                 " --random " + std::to_string(options_.random) + " --oracle " + options_.oracle;
  if (!options_.without_profile.empty()) {
    info.options += " --without-profile " + options_.without_profile;
  }
  // They decide what a survivor is called.
  if (!known_survivors_.empty()) info.options += ", known survivors " + digest_of(known_survivors_);
  std::vector<std::string> names;
  for (const FaultItem& item : items_) names.push_back(id_of(item));
  info.items = std::ssize(items_);
  info.items_digest = digest_of(names);
  info.command_line = session_.command_line;
  results_ = open_results(options_.shard, info);
  if (!results_) return;
  session_.streams.err << options_.shard.results << ": " << results_->size() << " of "
                       << items_.size() << " bugs finished before\n";
}

void FaultsVerb::keep(const FaultItem& item, ItemResult result) {
  if (results_) results_->add(item.number, id_of(item), result);
  const std::lock_guard lock(mutex_);
  done_[item.number] = std::move(result);
}

void FaultsVerb::keep(const FaultOutcome& outcome) {
  keep(items_[static_cast<std::size_t>(outcome.item)],
       {{fault_row(outcome, known_survivors_, plugin_)}, ""});
}

void FaultsVerb::keep_clean(const FaultRun& run, bool memory) {
  if (!run.clean_item) return;
  ItemResult result;
  result.note = clean_note(run, memory);
  for (const std::string& alarm : run.false_alarms) {
    result.rows.push_back(false_alarm_row(alarm, memory));
  }
  keep(items_[static_cast<std::size_t>(*run.clean_item)], std::move(result));
}

/// Does what was not finished before. Returns whether all of it was done.
bool FaultsVerb::run_all() {
  std::vector<FaultItem> open;
  for (const FaultItem& item : own_) {
    const ItemResult* const kept = results_ ? results_->find(item.number) : nullptr;
    if (kept != nullptr) {
      done_[item.number] = *kept;
    } else {
      open.push_back(item);
    }
  }
  std::optional<Progress> progress;
  run_of_.items = open;
  run_of_.settled = [&](const FaultOutcome& outcome) { keep(outcome); };
  run_of_.progress = [&](std::int64_t done, std::int64_t of) {
    if (!progress) progress.emplace(session_.streams, of, "cases");
    progress->update(done, 0);
  };
  run_of_.stop = [] { return interrupted(); };
  const FaultRun run = harness::run_faults(run_of_);
  cases_ = run.cases;
  progress.reset();
  if (run.stopped) return false;
  keep_clean(run, false);
  if (!runs_memory(options_)) return true;

  harness::MemoryRunOptions memory{run_of_.plan,    open,        run_of_.jobs, {},
                                   run_of_.settled, run_of_.stop};
  memory.progress = [&](std::int64_t done, std::int64_t of) {
    if (!progress) progress.emplace(session_.streams, of, "bugs of memory");
    progress->update(done, 0);
  };
  const FaultRun memory_run = harness::run_memory_faults(memory);
  memory_cases_ = memory_run.cases;
  progress.reset();
  if (memory_run.stopped) return false;
  keep_clean(memory_run, true);
  return true;
}

void FaultsVerb::record(const FaultTotals& totals) const {
  std::error_code error;
  FaultScore recorded =
      fs::exists(options_.record, error) ? harness::load_score(options_.record) : FaultScore{};
  recorded.gates[options_.gate] = totals.score(options_.seed);
  if (options_.random > 0) {
    recorded.random_cases = options_.random;
    recorded.random_kills = totals.random_kills();
  }
  harness::save_score(options_.record, recorded);
}

int FaultsVerb::execute() {
  const InterruptGuard guard;
  const bool is_whole = run_all();
  if (!is_whole) {
    session_.streams.err << "interrupted: no bug is judged on part of the gate's cases"
                         << std::endl;
    return reporter_.finish();
  }
  FaultTotals totals;
  totals.set_cases(cases_, memory_cases_);
  totals.set_random(options_.random);
  std::vector<harness::ReportRow>& rows = reporter_.report().rows;
  for (const auto& [number, result] : done_) {
    totals.add(result);
    rows.insert(rows.end(), result.rows.begin(), result.rows.end());
  }
  std::ostream& out = reporter_.text();
  print_fault_rows(out, rows, options_.report.verbose);
  totals.print(out, options_.gate);
  if (!options_.record.empty()) record(totals);
  out << "\n" << to_string(reporter_.report().tally()) << std::endl;
  session_.streams.err << harness::format_seconds(reporter_.seconds()) << " on " << run_of_.jobs
                       << (run_of_.jobs == 1 ? " thread" : " threads") << std::endl;
  const int code = reporter_.finish();
  if (results_) results_->finish(code, reporter_.seconds());
  return code;
}

}  // namespace

int faults(const FaultsOptions& options, const Session& session) {
  if (options.backend == "cuda") return device_faults(options, session);
  return FaultsVerb(options, session).execute();
}

}  // namespace attn::cli
