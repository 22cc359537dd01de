#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "harness/bench/history/database.h"

namespace attn::history {

enum class GateVerdict {
  kSame,       ///< the whole interval lies within the minimum effect
  kImproved,   ///< faster, by the rule of kRegressed the other way round
  kRegressed,  ///< significant, its interval excludes 1, and at least the minimum effect
  kAmbiguous,  ///< none of the others: too few repetitions, too noisy to say, or not confirmed
};
/// "SAME", "IMPROVED", "REGRESSED", "AMBIGUOUS".
std::string name_of(GateVerdict verdict);

struct GateOptions {
  double minimum_effect = 0.02;        ///< of the ratio of medians
  std::size_t minimum_samples = 15;    ///< on each side
  double false_discovery_rate = 0.01;  ///< of Benjamini and Hochberg, over the benchmarks
  double confidence = 0.99;            ///< of the bootstrap interval
  std::int64_t resamples = 4000;
  std::uint64_t seed = 1;
};

/// One side of a comparison: a run, and where a run holds several backends the one that is meant.
struct GateSide {
  Run run;
  std::string backend;  ///< "": benchmarks are paired with their own backend
};

/// One benchmark on both sides. Ratios are candidate / baseline: above 1 is slower.
struct Comparison {
  Benchmark benchmark;  ///< the candidate's
  std::size_t baseline_samples = 0;
  std::size_t candidate_samples = 0;
  double baseline_median = 0.0;  ///< ns
  double candidate_median = 0.0;
  double ratio = 1.0;
  double low = 0.0;  ///< of the ratio, at the confidence asked for
  double high = 0.0;
  double p = 1.0;                           ///< two-sided Mann-Whitney U
  double q = 1.0;                           ///< p adjusted by Benjamini and Hochberg
  std::optional<double> instruction_ratio;  ///< decides where the times are AMBIGUOUS
  GateVerdict verdict = GateVerdict::kAmbiguous;
  std::string reason;  ///< of the verdict, in a few words
};

/// Compares what both sides timed, in the order of Database::benchmarks(). Throws Error(kUsage) for
/// runs of different machines, or when they have no benchmark in common.
std::vector<Comparison> compare_runs(Database& database, const GateSide& candidate,
                                     const GateSide& baseline, const GateOptions& options = {});

/// Keeps REGRESSED and IMPROVED only where a second measurement of the same benchmark came to the
/// same; the others become AMBIGUOUS.
void confirm(std::vector<Comparison>& first, const std::vector<Comparison>& rerun);

/// Decides what is AMBIGUOUS by instructions, of one iteration by "NAME | BACKEND" (or "NAME").
void apply_counts(std::vector<Comparison>& comparisons, const GateSide& baseline,
                  const std::map<std::string, double>& candidate_counts,
                  const std::map<std::string, double>& baseline_counts, const GateOptions& options);

}  // namespace attn::history
