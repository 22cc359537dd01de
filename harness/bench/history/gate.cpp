#include "harness/bench/history/gate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <map>

#include "harness/bench/history/parameters.h"
#include "harness/bench/history/statistics.h"
#include "reference/core/error.h"

namespace attn::history {
namespace {

std::string percent(double ratio) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%+.1f %%", 100.0 * (ratio - 1.0));
  return text.data();
}

void require_same_machine(const Run& candidate, const Run& baseline) {
  if (candidate.id == baseline.id) return;
  const std::string a = candidate.machine.label();
  const std::string b = baseline.machine.label();
  if (candidate.machine.id != baseline.machine.id) {
    throw Error(
        ErrorKind::kUsage,
        "the runs are of different machines, \"" + a + "\" and \"" + b +
            "\"; only times of one machine are compared: name a baseline of the candidate's",
        "--baseline");
  }
  if (candidate.machine.gpu.empty() && candidate.machine.num_cpus == 0) {
    throw Error(ErrorKind::kUsage,
                "the runs do not say what machine they are of, so their times are not compared",
                "--baseline");
  }
}

/// The benchmarks of one side by what they are paired by.
std::map<std::string, std::pair<Benchmark, Result>> results_of(Database& database,
                                                               const GateSide& side,
                                                               bool across_backends) {
  std::map<std::int64_t, Result> results;
  for (Result& result : database.results({side.run.id, std::nullopt})) {
    const std::int64_t benchmark = result.benchmark;
    results.emplace(benchmark, std::move(result));
  }
  std::map<std::string, std::pair<Benchmark, Result>> keyed;
  for (const Benchmark& benchmark : database.benchmarks()) {
    const auto it = results.find(benchmark.id);
    if (it == results.end() || (!side.backend.empty() && benchmark.backend != side.backend))
      continue;
    Benchmark key = benchmark;
    if (across_backends) key.backend.clear();
    keyed.emplace(identity_of(key), std::pair(benchmark, it->second));
  }
  return keyed;
}

struct Measured {
  Comparison comparison;
  std::vector<double> baseline;
  std::vector<double> candidate;
};

Measured measured(Database& database, const std::pair<Benchmark, Result>& candidate,
                  const std::pair<Benchmark, Result>& baseline) {
  Measured m;
  m.comparison.benchmark = candidate.first;
  m.baseline = database.times(baseline.second.id);
  m.candidate = database.times(candidate.second.id);
  Comparison& c = m.comparison;
  c.baseline_samples = m.baseline.size();
  c.candidate_samples = m.candidate.size();
  c.baseline_median = baseline.second.median_ns.value_or(0.0);
  c.candidate_median = candidate.second.median_ns.value_or(0.0);
  if (c.baseline_median > 0.0) c.ratio = c.candidate_median / c.baseline_median;
  if (baseline.second.instructions.value_or(0.0) > 0.0 && candidate.second.instructions) {
    c.instruction_ratio = *candidate.second.instructions / *baseline.second.instructions;
  }
  return m;
}

bool has_enough(const Measured& m, const GateOptions& options) {
  return std::min(m.baseline.size(), m.candidate.size()) >= options.minimum_samples &&
         *std::ranges::min_element(m.baseline) > 0.0;
}

GateVerdict direction(double ratio) {
  return ratio > 1.0 ? GateVerdict::kRegressed : GateVerdict::kImproved;
}

/// What the times say.
void judge_times(Measured& m, const GateOptions& options) {
  Comparison& c = m.comparison;
  const double most = 1.0 + options.minimum_effect;
  if (!has_enough(m, options)) {
    c.reason = std::to_string(std::min(c.baseline_samples, c.candidate_samples)) +
               " repetitions, " + std::to_string(options.minimum_samples) + " needed";
    return;
  }
  const bool is_large = c.ratio >= most || c.ratio <= 1.0 / most;
  const bool excludes_one = c.low > 1.0 || c.high < 1.0;
  if (c.q <= options.false_discovery_rate && is_large && excludes_one) {
    c.verdict = direction(c.ratio);
    c.reason = percent(c.ratio) + " time";
  } else if (c.low >= 1.0 / most && c.high <= most) {
    c.verdict = GateVerdict::kSame;
    c.reason = "within " + percent(most).substr(1);
  } else {
    c.reason = "interval " + percent(c.low) + " to " + percent(c.high) + ": too noisy to say";
  }
}

/// Where times cannot tell, instructions may: they do not depend on what else the machine does.
void judge_instructions(Comparison& c, const GateOptions& options) {
  if (c.verdict != GateVerdict::kAmbiguous || !c.instruction_ratio) return;
  const double most = 1.0 + options.minimum_effect;
  const double ratio = *c.instruction_ratio;
  c.verdict = ratio >= most || ratio <= 1.0 / most ? direction(ratio) : GateVerdict::kSame;
  c.reason = percent(ratio) + " instructions; times: " + c.reason;
}

}  // namespace

std::string name_of(GateVerdict verdict) {
  switch (verdict) {
    case GateVerdict::kSame:
      return "SAME";
    case GateVerdict::kImproved:
      return "IMPROVED";
    case GateVerdict::kRegressed:
      return "REGRESSED";
    case GateVerdict::kAmbiguous:
      break;
  }
  return "AMBIGUOUS";
}

std::vector<Comparison> compare_runs(Database& database, const GateSide& candidate,
                                     const GateSide& baseline, const GateOptions& options) {
  require_same_machine(candidate.run, baseline.run);
  const bool across = !candidate.backend.empty() && !baseline.backend.empty();
  const auto ours = results_of(database, candidate, across);
  const auto theirs = results_of(database, baseline, across);
  std::vector<Measured> all;
  for (const auto& [key, result] : ours) {
    const auto other = theirs.find(key);
    if (other != theirs.end()) all.push_back(measured(database, result, other->second));
  }
  if (all.empty()) {
    throw Error(ErrorKind::kUsage,
                "the runs have no benchmark in common: " + std::to_string(ours.size()) + " in " +
                    candidate.run.sha256.substr(0, 12) + ", " + std::to_string(theirs.size()) +
                    " in " + baseline.run.sha256.substr(0, 12),
                "--baseline");
  }
  std::vector<double> p;
  for (Measured& m : all) {
    if (!has_enough(m, options)) continue;
    m.comparison.p = mann_whitney(m.baseline, m.candidate).p;
    const Interval interval = bootstrap_median_ratio(m.baseline, m.candidate, options.confidence,
                                                     options.resamples, options.seed);
    m.comparison.low = interval.low;
    m.comparison.high = interval.high;
    p.push_back(m.comparison.p);
  }
  const std::vector<double> q = benjamini_hochberg(p);
  std::vector<Comparison> comparisons;
  auto next = q.begin();
  for (Measured& m : all) {
    if (has_enough(m, options)) m.comparison.q = *next++;
    judge_times(m, options);
    judge_instructions(m.comparison, options);
    comparisons.push_back(std::move(m.comparison));
  }
  return comparisons;
}

void apply_counts(std::vector<Comparison>& comparisons, const GateSide& baseline,
                  const std::map<std::string, double>& candidate_counts,
                  const std::map<std::string, double>& baseline_counts,
                  const GateOptions& options) {
  const auto title = [](const std::string& name, const std::string& backend) {
    return backend.empty() ? name : name + " | " + backend;
  };
  for (Comparison& c : comparisons) {
    const std::string& backend = baseline.backend.empty() ? c.benchmark.backend : baseline.backend;
    const auto ours = candidate_counts.find(title(c.benchmark.name, c.benchmark.backend));
    const auto theirs = baseline_counts.find(title(c.benchmark.name, backend));
    if (ours == candidate_counts.end() || theirs == baseline_counts.end()) continue;
    if (theirs->second > 0.0) c.instruction_ratio = ours->second / theirs->second;
    judge_instructions(c, options);
  }
}

void confirm(std::vector<Comparison>& first, const std::vector<Comparison>& rerun) {
  for (Comparison& c : first) {
    if (c.verdict != GateVerdict::kRegressed && c.verdict != GateVerdict::kImproved) continue;
    const auto again = std::ranges::find_if(
        rerun, [&](const Comparison& r) { return r.benchmark.id == c.benchmark.id; });
    if (again != rerun.end() && again->verdict == c.verdict) {
      c.reason += ", confirmed by a re-run (" + percent(again->ratio) + ")";
      continue;
    }
    c.verdict = GateVerdict::kAmbiguous;
    c.reason += again == rerun.end() ? ", but the re-run did not time it"
                                     : ", but not in the re-run (" + name_of(again->verdict) +
                                           ", " + again->reason + ")";
  }
}

}  // namespace attn::history
