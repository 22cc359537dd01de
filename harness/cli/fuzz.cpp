#include <algorithm>
#include <map>
#include <memory>
#include <ostream>
#include <sstream>
#include <thread>
#include <utility>

#include "harness/backends/backend.h"
#include "harness/cli/fuzz_failures.h"
#include "harness/cli/fuzz_judge.h"
#include "harness/cli/interrupt.h"
#include "harness/cli/ordered_pool.h"
#include "harness/cli/verbs.h"
#include "harness/fuzz/case_source.h"
#include "harness/report/format.h"
#include "reference/core/error.h"

namespace attn::cli {
namespace {

using harness::Gate;
using harness::Status;

/// How many cases there are and for how long new ones are begun.
struct Length {
  std::int64_t cases = INT64_MAX;
  double seconds = std::numeric_limits<double>::infinity();
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

class Fuzzer {
 public:
  Fuzzer(const FuzzOptions& options, const Session& session)
      : options_(options),
        session_(session),
        reporter_(session, options.report, "fuzz"),
        backend_(open_backend(options.backend, options.isolation)),
        judge_(options, *backend_),
        source_(corpus_of(options), {parse_gate(options.gate), options.seed, options.max_compiles}),
        length_(length_of(options, parse_gate(options.gate), source_.planned())),
        failures_(options, judge_) {
    check_writable("--coverage", options.coverage);
    // A backend need not run everything that can be generated.
    reporter_.report().allow_unsupported = true;
  }

  int execute();

 private:
  void take(FuzzResult result);
  bool is_over() const {
    return interrupted() || reporter_.seconds() > length_.seconds ||
           std::ssize(failures_.groups()) >= options_.max_failures;
  }
  void print_summary(int jobs);
  void report_coverage();

  const FuzzOptions& options_;
  const Session& session_;
  Reporter reporter_;
  std::unique_ptr<harness::Backend> backend_;
  FuzzJudge judge_;
  harness::CaseSource source_;
  Length length_;
  FuzzFailures failures_;
  std::map<harness::CaseOrigin, std::int64_t> origins_;
  std::map<std::string, std::int64_t> unsupported_;  ///< cases by reason
  std::int64_t replaced_ = 0;
  std::int64_t fitted_ = 0;
  std::vector<harness::Point> points_;  ///< of cases that were judged
};

void Fuzzer::take(FuzzResult result) {
  ++origins_[result.tried.origin];
  replaced_ += result.replaced;
  fitted_ += result.fitted;
  const harness::Verdict& verdict = result.row.verdict;
  if (verdict.status == Status::kUnsupported) {
    ++unsupported_[verdict.detail];
  } else {
    points_.push_back(harness::point_of(result.tried.spec));
  }
  if (has_failed(result.row)) failures_.add(result);
  reporter_.report().rows.push_back(std::move(result.row));
}

int Fuzzer::execute() {
  const InterruptGuard guard;
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const int jobs = options_.jobs > 0 ? options_.jobs : cores;
  Progress progress(session_.streams, length_.cases == INT64_MAX ? 0 : length_.cases, "cases");
  // In batches, since nobody knows how many cases fit into the time.
  constexpr std::int64_t kBatch = 256;
  for (std::int64_t first = 0; first < length_.cases && !is_over(); first += kBatch) {
    run_in_order<FuzzResult>(
        static_cast<std::size_t>(std::min(kBatch, length_.cases - first)), jobs,
        [&](std::size_t i) {
          return judge_.judge(source_.at(first + static_cast<std::int64_t>(i)));
        },
        [&](FuzzResult result) {
          progress.clear();
          take(std::move(result));
        },
        [&](std::size_t done) {
          progress.update(first + static_cast<std::int64_t>(done), std::ssize(failures_.groups()));
        },
        [&] { return is_over(); });
  }
  progress.clear();
  print_summary(jobs);
  report_coverage();
  failures_.print(reporter_.text());
  if (std::ssize(failures_.groups()) >= options_.max_failures) {
    session_.streams.err << "ended after " << options_.max_failures
                         << (options_.max_failures == 1 ? " kind of failure" : " kinds of failures")
                         << "; --max-failures N goes on\n";
  }
  reporter_.text() << "\n" << to_string(reporter_.report().tally()) << std::endl;
  return reporter_.finish();
}

void Fuzzer::print_summary(int jobs) {
  std::ostream& out = reporter_.text();
  const auto count = [](std::int64_t n) { return harness::format_count(n); };
  std::string line = count(std::ssize(reporter_.report().rows)) + " cases on " + options_.backend;
  const char* separator = ": ";
  for (const auto& [origin, number] : origins_) {
    line += separator + count(number) + " " + std::string(name_of(origin));
    separator = ", ";
  }
  out << harness::wrap(line, 2) << "\n";
  if (replaced_ > 0) {
    out << harness::wrap(count(replaced_) +
                             " could not have shown a bug; a neighbour that can was "
                             "judged in place of each",
                         2)
        << "\n";
  }
  if (fitted_ > 0) {
    out << harness::wrap(
               count(fitted_) + " judged without the features that the backend does not support", 2)
        << "\n";
  }
  for (const auto& [reason, number] : unsupported_) {
    out << harness::wrap(count(number) + " unsupported: " + reason, 2) << "\n";
  }
  session_.streams.err << harness::format_seconds(reporter_.seconds()) << " on " << jobs
                       << (jobs == 1 ? " thread" : " threads") << std::endl;
}

/// The share of legal pairs of features that were judged; --coverage lists those that were not.
void Fuzzer::report_coverage() {
  if (options_.coverage.empty() && options_.gate == "smoke") return;
  const harness::Coverage coverage = harness::coverage_of(points_, 2);
  std::ostringstream share;
  share << harness::format_count(coverage.covered) << " of "
        << harness::format_count(coverage.legal) << " legal pairs of features covered";
  reporter_.text() << share.str() << "\n";
  if (options_.coverage.empty()) return;
  std::string text = "# " + share.str() + "; the others:\n";
  for (const harness::Coverage::Tuple& tuple : coverage.uncovered) {
    text += to_string(tuple) + "\n";
  }
  write_output(session_, options_.coverage, text);
}

}  // namespace

int fuzz(const FuzzOptions& options, const Session& session) {
  return Fuzzer(options, session).execute();
}

}  // namespace attn::cli
