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
#include "harness/generate/shrink.h"
#include "harness/report/format.h"
#include "reference/core/error.h"

namespace attn::cli {
namespace {

using harness::FuzzCase;
using harness::ReportRow;
using harness::Status;

/// A case and how the backend did on it.
struct FuzzResult {
  FuzzCase tried;
  ReportRow row;
};

/// Failures that look like one mistake.
struct FailureGroup {
  FuzzResult first;
  FuzzResult smallest;                ///< `first`, shrunk
  std::vector<std::string> features;  ///< of the smallest
  std::int64_t count = 0;
};

bool has_failed(const ReportRow& row) {
  if (row.trouble != harness::Trouble::kNone) return true;
  const Status status = row.verdict.status;
  return status == Status::kFailed || status == Status::kCrashed || status == Status::kTimedOut;
}

bool fails_alike(const ReportRow& a, const ReportRow& b) {
  return a.trouble == b.trouble && a.verdict.status == b.verdict.status &&
         a.verdict.first_bad == b.verdict.first_bad;
}

/// Whether `features` has all kinds of features ("page_size" of "page_size: 16") that `needed` has.
bool has_kinds(const std::vector<std::string>& features, const std::vector<std::string>& needed) {
  const auto kind = [](const std::string& feature) { return feature.substr(0, feature.find(':')); };
  return std::ranges::all_of(needed, [&](const std::string& wanted) {
    return std::ranges::any_of(
        features, [&](const std::string& feature) { return kind(feature) == kind(wanted); });
  });
}

/// "2 heads, 17 keys, page 16"
std::string size_words(const harness::CaseSpec& spec) {
  std::int64_t keys = 0;
  for (const harness::RowSpec& row : spec.rows) {
    keys = std::max(keys, spec.config.starts_at_attention() ? row.second : row.first + row.second);
  }
  const auto counted = [](std::int64_t n, const std::string& noun) {
    return std::to_string(n) + " " + noun + (n == 1 ? "" : "s");
  };
  return counted(spec.config.num_attention_heads, "head") + ", " + counted(keys, "key") +
         ", page " + std::to_string(spec.config.kv_cache.page_size);
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
  void group(const FuzzResult& failure);
  FuzzResult shrink(const FuzzResult& failure) const;
  void print_summary();
  void print_failure(const FailureGroup& group);
  bool is_over() const {
    return interrupted() || (options_.seconds && reporter_.seconds() > *options_.seconds) ||
           std::ssize(groups_) >= options_.max_failures;
  }

  const FuzzOptions& options_;
  const Session& session_;
  Reporter reporter_;
  std::unique_ptr<harness::Backend> backend_;
  harness::CaseSource source_;
  harness::CompareOptions compare_options_;
  std::map<harness::CaseOrigin, std::int64_t> origins_;
  std::vector<FailureGroup> groups_;
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

/// The smallest case that fails as `failure` does.
FuzzResult Fuzzer::shrink(const FuzzResult& failure) const {
  constexpr double kSeconds = 30.0;
  FuzzResult smallest = failure;
  harness::shrink(
      failure.tried.spec, failure.tried.seed,
      [&](const harness::CaseSpec& spec, std::uint64_t seed) {
        FuzzResult tried = judge({spec, seed, failure.tried.origin});
        if (!fails_alike(tried.row, failure.row)) return false;
        smallest = std::move(tried);
        return true;
      },
      kSeconds);
  return smallest;
}

/// Counts the failure with those that look like the same mistake, or shrinks it as a new one.
void Fuzzer::group(const FuzzResult& failure) {
  const std::vector<std::string> features = non_default_features(failure.tried.spec);
  for (FailureGroup& group : groups_) {
    if (!fails_alike(failure.row, group.first.row) || !has_kinds(features, group.features)) {
      continue;
    }
    ++group.count;
    return;
  }
  FailureGroup group{failure, options_.shrink ? shrink(failure) : failure, {}, 1};
  group.features = non_default_features(group.smallest.tried.spec);
  groups_.push_back(std::move(group));
}

void Fuzzer::take(FuzzResult result) {
  ++origins_[result.tried.origin];
  if (has_failed(result.row)) group(result);
  reporter_.report().rows.push_back(std::move(result.row));
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
          progress.update(first + static_cast<std::int64_t>(done), std::ssize(groups_));
        },
        [&] { return is_over(); });
  }
  progress.clear();
  print_summary();
  for (const FailureGroup& group : groups_) print_failure(group);
  reporter_.text() << "\n" << to_string(reporter_.report().tally()) << std::endl;
  return reporter_.finish();
}

void Fuzzer::print_summary() {
  std::ostream& out = reporter_.text();
  out << harness::format_count(std::ssize(reporter_.report().rows)) << " cases in "
      << harness::format_seconds(reporter_.seconds()) << "\n";
}

void Fuzzer::print_failure(const FailureGroup& group) {
  const harness::ReportRow& row = group.smallest.row;
  const harness::CaseSpec& spec = group.smallest.tried.spec;
  std::string line = "fails: " + options_.backend + " " + std::string(task_name(spec));
  const harness::StageReport* stage = headline_stage(row.verdict);
  if (row.verdict.first_bad && stage != nullptr) {
    line += ", stage " + std::string(name_of(stage->stage)) + ", " +
            harness::format_ratio(stage->worst_ratio) + "x the bound, " + stage->worst_where;
  } else {
    line += ": " + row.verdict.detail;
  }
  if (options_.shrink) line += "; shrunk to " + size_words(spec);
  for (const std::string& feature : group.features) line += ", " + feature;
  reporter_.text() << "\n"
                   << harness::wrap(line, 2) << "\n  " << group.count << " cases\n  " << row.repro
                   << "\n";
}

}  // namespace

int fuzz(const FuzzOptions& options, const Session& session) {
  return Fuzzer(options, session).execute();
}

}  // namespace attn::cli
