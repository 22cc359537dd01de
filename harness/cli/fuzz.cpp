#include <algorithm>
#include <map>
#include <memory>
#include <ostream>
#include <set>
#include <thread>

#include "harness/backends/backend.h"
#include "harness/cli/interrupt.h"
#include "harness/cli/judge.h"
#include "harness/cli/ordered_pool.h"
#include "harness/cli/verbs.h"
#include "harness/fuzz/case_source.h"
#include "harness/report/format.h"
#include "reference/core/error.h"

namespace attn::cli {
namespace {

using harness::FuzzCase;
using harness::ReportRow;
using harness::Status;

struct FuzzResult {
  FuzzCase tried;
  ReportRow row;
};

bool has_failed(const ReportRow& row) {
  if (row.trouble != harness::Trouble::kNone) return true;
  const Status status = row.verdict.status;
  return status == Status::kFailed || status == Status::kCrashed || status == Status::kTimedOut;
}

/// "forward", "attention", "materialize": what the case asks of the backend.
std::string_view task_name(const harness::CaseSpec& spec) {
  return spec.config.entry_point == EntryPoint::kMaterializeKvFromHidden
             ? "materialize"
             : name_of(spec.config.entry_point);
}

class Fuzzer {
 public:
  Fuzzer(const FuzzOptions& options, const Session& session)
      : options_(options),
        session_(session),
        reporter_(session, options.report, "fuzz"),
        backend_(open_backend(options.backend, options.isolation)),
        source_({}, options.seed) {
    compare_options_.taps = options.taps;
    // A backend need not run everything that can be generated.
    reporter_.report().allow_unsupported = true;
    if (!options.cases && !options.seconds) {
      throw Error(ErrorKind::kUsage, "say how long: --cases N or --time S", "--cases");
    }
  }

  int execute();

 private:
  FuzzResult judge(const FuzzCase& tried) const;
  void take(FuzzResult result);
  void print_summary();
  void print_failure(const FuzzResult& failure) const;
  bool is_over() const {
    return interrupted() || (options_.seconds && reporter_.seconds() > *options_.seconds);
  }

  const FuzzOptions& options_;
  const Session& session_;
  Reporter reporter_;
  std::unique_ptr<harness::Backend> backend_;
  harness::CaseSource source_;
  harness::CompareOptions compare_options_;
  std::map<harness::CaseOrigin, std::int64_t> origins_;
  std::vector<FuzzResult> failures_;
};

FuzzResult Fuzzer::judge(const FuzzCase& tried) const {
  FuzzResult result{tried, {}};
  ReportRow& row = result.row;
  row.backend = options_.backend;
  row.name = "seed-" + std::to_string(tried.seed);
  guarded(row, [&] {
    const Case c = harness::make_case(tried.spec, tried.seed);
    row.repro = "attn-compare run " + c.repro + " --backend " + shell_quote(options_.backend);
    if (!options_.taps) row.repro += " --no-taps";
    row.repro += repro_words(options_.isolation);
    Trace trace;
    row.verdict = run_backend(c, *backend_, trace);
    if (row.verdict.status != Status::kPassed) return;
    row.verdict = judge_trace(c, *backend_, trace, compare_options_, nullptr);
  });
  return result;
}

void Fuzzer::take(FuzzResult result) {
  ++origins_[result.tried.origin];
  reporter_.report().rows.push_back(result.row);
  if (has_failed(result.row)) failures_.push_back(std::move(result));
}

int Fuzzer::execute() {
  const InterruptGuard guard;
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const int jobs = options_.jobs > 0 ? options_.jobs : cores;
  const std::int64_t total = options_.cases.value_or(INT64_MAX);
  Progress progress(session_.streams, options_.cases.value_or(0), "cases");
  // In batches, since nobody knows how many cases fit into the time.
  constexpr std::int64_t kBatch = 256;
  for (std::int64_t first = 0; first < total && !is_over(); first += kBatch) {
    const auto count = static_cast<std::size_t>(std::min(kBatch, total - first));
    run_in_order<FuzzResult>(
        count, jobs,
        [&](std::size_t i) { return judge(source_.at(first + static_cast<std::int64_t>(i))); },
        [&](FuzzResult result) {
          progress.clear();
          take(std::move(result));
        },
        [&](std::size_t done) {
          progress.update(first + static_cast<std::int64_t>(done), std::ssize(failures_));
        },
        [&] { return is_over(); });
  }
  progress.clear();
  print_summary();
  for (const FuzzResult& failure : failures_) print_failure(failure);
  reporter_.text() << "\n" << to_string(reporter_.report().tally()) << std::endl;
  return reporter_.finish();
}

void Fuzzer::print_summary() {
  std::ostream& out = reporter_.text();
  out << harness::format_count(std::ssize(reporter_.report().rows)) << " cases in "
      << harness::format_seconds(reporter_.seconds()) << "\n";
}

void Fuzzer::print_failure(const FuzzResult& failure) const {
  const harness::Verdict& verdict = failure.row.verdict;
  std::string line =
      "fails: " + options_.backend + " " + std::string(task_name(failure.tried.spec));
  const harness::StageReport* stage = headline_stage(verdict);
  if (verdict.first_bad && stage != nullptr) {
    line += ", stage " + std::string(name_of(stage->stage)) + ", " +
            harness::format_ratio(stage->worst_ratio) + "x the bound, " + stage->worst_where;
  } else {
    line += ": " + verdict.detail;
  }
  reporter_.text() << "\n" << harness::wrap(line, 2) << "\n  " << failure.row.repro << "\n";
}

}  // namespace

int fuzz(const FuzzOptions& options, const Session& session) {
  return Fuzzer(options, session).execute();
}

}  // namespace attn::cli
