#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <optional>
#include <ostream>
#include <utility>

#include "harness/backends/backend.h"
#include "harness/cli/build_info.h"
#include "harness/cli/fuzz_failures.h"
#include "harness/cli/fuzz_judge.h"
#include "harness/cli/fuzz_totals.h"
#include "harness/cli/interrupt.h"
#include "harness/cli/jobs.h"
#include "harness/cli/judge.h"
#include "harness/cli/ordered_pool.h"
#include "harness/cli/verbs.h"
#include "harness/fuzz/case_source.h"
#include "harness/report/format.h"
#include "harness/report/journal.h"
#include "harness/report/writers.h"
#include "reference/core/error.h"

namespace attn::cli {
namespace {

using harness::Gate;
using harness::ReportRow;

/// How many cases there are and for how long new ones are begun.
struct Length {
  static constexpr std::int64_t kEndless = std::numeric_limits<std::int64_t>::max();
  std::int64_t cases = kEndless;
  double seconds = std::numeric_limits<double>::infinity();

  /// The clock decides how many cases there are.
  bool is_timed() const { return seconds < std::numeric_limits<double>::infinity(); }
};

/// Of the covering cases, random ones behind them, and the time in which they must end.
Length length_of(const FuzzOptions& options, Gate gate, std::int64_t planned) {
  constexpr double kSmokeSeconds = 7.0;  // of the 10 that it may take: a failure is shrunk besides
  constexpr std::int64_t kNightlyCases = 20'000;
  Length length;
  if (options.cases) length.cases = *options.cases;
  if (options.seconds) length.seconds = *options.seconds;
  if (options.cases || options.seconds) return length;
  switch (gate) {
    case Gate::kSmoke:
      length.seconds = kSmokeSeconds;
      break;
    case Gate::kPr:
      length.cases = planned + planned / 2;
      break;
    case Gate::kNightly:
      length.cases = planned + kNightlyCases;
      break;
  }
  return length;
}

std::vector<harness::CorpusEntry> corpus_of(const FuzzOptions& options) {
  if (options.corpus.empty()) return {};
  return harness::load_corpus(options.corpus);
}

/// What every result depends on, but for the past failures and the waivers; and what only says how
/// many there are, if wanted.
std::string result_words(const FuzzOptions& options, bool with_count) {
  std::string words = "fuzz --gate " + options.gate + " --seed " + std::to_string(options.seed);
  if (!options.exec.empty()) words += " --exec " + options.exec;
  if (options.cases && with_count) words += " --cases " + std::to_string(*options.cases);
  if (options.seconds) words += " --time " + harness::format_short(*options.seconds);
  if (options.max_compiles) words += " --max-compiles " + std::to_string(*options.max_compiles);
  if (!options.relations.empty()) words += " --relations " + options.relations;
  if (!options.taps) words += " --no-taps";
  if (!options.shrink) words += " --no-shrink";
  return words + repro_words(options.isolation) + " --backend " + options.backend;
}

/// One case of the run: what it gave now, or before.
struct FuzzItem {
  std::int64_t number = 0;
  FuzzResult result;  ///< of a case from before, only the row
  std::optional<FuzzNote> kept;
};

class Fuzzer {
 public:
  Fuzzer(const FuzzOptions& options, const Session& session)
      : options_(options),
        session_(session),
        reporter_(session, options.report, "fuzz"),
        backend_(open_backend(options.backend, options.isolation)),
        judge_(options, *backend_),
        corpus_(corpus_of(options)),
        source_(corpus_, {parse_gate(options.gate), options.seed, options.max_compiles}),
        length_(length_of(options, parse_gate(options.gate), source_.planned())),
        shard_(shard_of(options.shard)),
        failures_(options, judge_) {
    check_writable("--coverage", options.coverage);
    // A backend need not run everything that can be generated.
    reporter_.report().allow_unsupported = true;
    reporter_.report().is_part = !shard_.is_whole();
    open_stores();
  }

  int execute(int jobs);

 private:
  void open_stores();
  std::optional<FuzzItem> recall(std::int64_t number) const;
  FuzzItem judge_or_recall(std::int64_t number) const;
  void take(FuzzItem item);
  void keep(const FuzzItem& item, const FuzzNote& note);
  /// The k-th case of this shard as a number of the whole run, and how many it has.
  std::int64_t number_of(std::int64_t k) const { return shard_.index - 1 + k * shard_.count; }
  std::int64_t own_cases() const;
  bool is_kept() const { return journal_ || results_; }
  bool has_enough_failures() const { return kinds_ >= options_.max_failures; }
  bool is_over() const {
    return interrupted() || reporter_.seconds() > length_.seconds ||
           (has_enough_failures() && !is_part_of_more());
  }
  /// What is kept must not depend on what else failed.
  bool is_part_of_more() const { return is_kept() || !shard_.is_whole(); }
  void run_cases(int jobs);
  void report_coverage() const;
  void grow_corpus() const;

  const FuzzOptions& options_;
  const Session& session_;
  Reporter reporter_;
  std::unique_ptr<harness::Backend> backend_;
  FuzzJudge judge_;
  std::vector<harness::CorpusEntry> corpus_;
  harness::CaseSource source_;
  Length length_;
  harness::Shard shard_;
  std::unique_ptr<harness::Journal> journal_;
  std::unique_ptr<harness::ResultFile> results_;
  FuzzFailures failures_;
  std::atomic<std::int64_t> kinds_ = 0;  ///< of failures: the threads of the pool ask for it
  FuzzTotals totals_;
  std::int64_t not_looked_at_ = 0;  ///< failures beyond --max-failures kinds
};

void Fuzzer::open_stores() {
  const std::string& waivers = judge_.waivers().text();
  std::vector<std::string> past;
  for (const harness::CorpusEntry& entry : corpus_) past.push_back(corpus_file_name(entry));
  const std::string past_digest = digest_of(past);
  const auto announce = [&](const std::string& path, std::size_t count) {
    session_.streams.err << path << ": " << harness::format_count(static_cast<std::int64_t>(count))
                         << (count == 1 ? " case" : " cases") << " finished before\n";
  };
  if (!options_.resume.empty()) {
    // Case n is the same in a run of more cases.
    std::string identity = version() + " " + commit() + " " + result_words(options_, false) + " (" +
                           plugin_stamp(options_.backend) + ")";
    identity += " past " + past_digest + " waivers " + digest_of({waivers});
    if (!shard_.is_whole()) identity += " --shard " + to_string(shard_);
    journal_ = std::make_unique<harness::Journal>(options_.resume, identity);
    announce(options_.resume, journal_->size());
  }
  if (options_.shard.results.empty()) return;
  harness::RunInfo info;
  info.verb = "fuzz";
  info.options = result_words(options_, true) + plugin_digest(options_.backend);
  info.items = length_.is_timed() ? -1 : length_.cases;
  info.items_digest = past_digest;
  info.allow_unsupported = true;
  info.waivers = waivers;
  info.command_line = session_.command_line;
  results_ = open_results(options_.shard, info);
  announce(options_.shard.results, results_->size());
}

std::optional<FuzzItem> Fuzzer::recall(std::int64_t number) const {
  FuzzItem item;
  item.number = number;
  if (const harness::ItemResult* kept = results_ ? results_->find(number) : nullptr) {
    item.result.row = kept->rows.at(0);
    item.kept = parse_note(kept->note);
    return item;
  }
  const auto* const lines = journal_ ? journal_->find(std::to_string(number)) : nullptr;
  if (lines == nullptr) return std::nullopt;
  item.result.row = harness::parse_json_row(lines->at(0));
  item.kept = parse_note(lines->at(1));
  return item;
}

FuzzItem Fuzzer::judge_or_recall(std::int64_t number) const {
  FuzzItem item;
  ReportRow trouble;
  guarded(trouble, [&] {
    std::optional<FuzzItem> kept = recall(number);
    item = kept ? std::move(*kept) : FuzzItem{number, judge_.judge(source_.at(number)), {}};
  });
  if (trouble.trouble == harness::Trouble::kNone) return item;
  trouble.name = "case-" + std::to_string(number);
  trouble.backend = options_.backend;
  return {number, {{}, {}, {}, std::move(trouble), true, {}, {}}, {}};
}

void Fuzzer::keep(const FuzzItem& item, const FuzzNote& note) {
  const ReportRow& row = item.result.row;
  const std::string name = std::to_string(item.number);
  if (journal_ && journal_->find(name) == nullptr) {
    journal_->add(name, {harness::to_json_line(row), to_json(note)});
  }
  if (results_ && results_->find(item.number) == nullptr) {
    results_->add(item.number, row.name, {{row}, to_json(note)});
  }
}

/// A failure is kept once its account is made, so that what is kept is whole.
void Fuzzer::take(FuzzItem item) {
  FuzzNote note;
  if (item.kept) {
    note = std::move(*item.kept);
    if (!note.account.empty()) failures_.restore(parse_group(note.account));
    if (note.like && note.account.empty()) failures_.count_again(*note.like);
    if (has_failed(item.result.row) && !note.like) ++not_looked_at_;
  } else {
    note.points = item.result.points;
    if (has_failed(item.result.row)) {
      if (has_enough_failures()) {
        ++not_looked_at_;
      } else {
        note.like = failures_.add(item.number, item.result);
        if (*note.like == item.number) note.account = to_json(failures_.group(item.number));
      }
    }
  }
  kinds_ = std::ssize(failures_.groups());
  keep(item, note);
  totals_.add(item.result.row, note);
  reporter_.report().rows.push_back(std::move(item.result.row));
}

std::int64_t Fuzzer::own_cases() const {
  if (length_.cases == Length::kEndless) return Length::kEndless;
  return (length_.cases - shard_.index + shard_.count) / shard_.count;
}

void Fuzzer::run_cases(int jobs) {
  const std::int64_t own = own_cases();
  Progress progress(session_.streams, own == Length::kEndless ? 0 : own, "cases");
  // In batches, since nobody knows how many cases fit into the time.
  constexpr std::int64_t kBatch = 256;
  for (std::int64_t first = 0; first < own && !is_over(); first += kBatch) {
    run_in_order<FuzzItem>(
        static_cast<std::size_t>(std::min(kBatch, own - first)), jobs,
        [&](std::size_t i) {
          return judge_or_recall(number_of(first + static_cast<std::int64_t>(i)));
        },
        [&](FuzzItem item) {
          progress.clear();
          take(std::move(item));
        },
        [&](std::size_t done) {
          progress.update(first + static_cast<std::int64_t>(done), std::ssize(failures_.groups()));
        },
        [&] { return is_over(); });
  }
  progress.clear();
}

/// Past failures stay the same for all shards of a run and for what goes on with one, so what it
/// found is added at the end, and that of shards by report merge.
void Fuzzer::grow_corpus() const {
  if (options_.corpus.empty() || !shard_.is_whole()) return;
  for (const FailureGroup& group : failures_.groups()) {
    harness::add_to_corpus(options_.corpus, corpus_entry(group));
  }
}

int Fuzzer::execute(int jobs) {
  const InterruptGuard guard;
  run_cases(jobs);
  std::ostream& out = reporter_.text();
  if (!shard_.is_whole()) out << "shard " << to_string(shard_) << ": ";
  totals_.print(out, options_.backend);
  session_.streams.err << harness::format_seconds(reporter_.seconds()) << " on " << jobs
                       << (jobs == 1 ? " thread" : " threads") << std::endl;
  report_coverage();
  for (const FailureGroup& group : failures_.groups()) print_account(out, group);
  grow_corpus();
  if (not_looked_at_ > 0 && is_part_of_more()) {
    session_.streams.err << harness::format_count(not_looked_at_) << " failures after the first "
                         << options_.max_failures
                         << " kinds were not looked into; --max-failures N is more\n";
  } else if (has_enough_failures() && !is_part_of_more()) {
    session_.streams.err << "ended after " << options_.max_failures
                         << (options_.max_failures == 1 ? " kind of failure" : " kinds of failures")
                         << "; --max-failures N goes on\n";
  }
  const bool was_cut = interrupted() || (has_enough_failures() && !is_part_of_more());
  const bool is_whole_run = shard_.is_whole() && !was_cut;
  for (ReportRow& row : judge_.waivers().complaints(reporter_.report().rows, is_whole_run)) {
    out << "\n" << harness::failure_block(row);
    reporter_.report().rows.push_back(std::move(row));
  }
  out << "\n" << to_string(reporter_.report().tally()) << std::endl;
  const int code = reporter_.finish();
  if (results_ && !interrupted()) results_->finish(code, reporter_.seconds());
  return code;
}

/// --coverage lists the legal pairs that were not judged.
void Fuzzer::report_coverage() const {
  const bool is_small = options_.gate == "smoke" || !shard_.is_whole();
  if (options_.coverage.empty() && is_small) return;
  const harness::Coverage coverage = totals_.coverage();
  const std::string share = FuzzTotals::coverage_line(coverage);
  reporter_.text() << share << "\n";
  if (options_.coverage.empty()) return;
  std::string text = "# " + share + "; the others:\n";
  for (const harness::Coverage::Tuple& tuple : coverage.uncovered) {
    text += to_string(tuple) + "\n";
  }
  write_output(session_, options_.coverage, text);
}

}  // namespace

int fuzz(const FuzzOptions& options, const Session& session) {
  const int jobs = use_jobs(options.jobs);
  return Fuzzer(options, session).execute(jobs);
}

}  // namespace attn::cli
