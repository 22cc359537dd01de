#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "harness/bench/history/records.h"
#include "harness/bench/history/schema.h"

namespace attn::history {

/// Which results: those of one run, of one benchmark, or both; nothing given: all.
struct Selection {
  std::optional<std::int64_t> run;
  std::optional<std::int64_t> benchmark;
};

/// Reads a database of benchmark runs. Every error is an Error(kInput) with the file's name. One
/// thread at a time.
class Database {
 public:
  /// Throws where there is no such file: reading makes none.
  explicit Database(const std::string& path);

  const std::string& path() const { return path_; }
  /// By date, then by the order of import.
  std::vector<Run> runs();
  /// By program, name and backend.
  std::vector<Benchmark> benchmarks();
  /// By run (in the order of runs()), then by benchmark.
  std::vector<Result> results(const Selection& selection = {});
  /// By repetition; none where the file held aggregates only.
  std::vector<Sample> samples(std::int64_t result);
  /// The times of every repetition of one result, in nanoseconds; none that are not known.
  std::vector<double> times(std::int64_t result);
  /// Every other counter of a result: the median over its repetitions.
  std::map<std::string, double> metrics(std::int64_t result);
  /// Everything that the file said about machine and program, with names flattened
  /// ("caches.0.size").
  std::map<std::string, std::string> context(std::int64_t run);
  std::vector<Score> scores();

  /// The run that a user means: "latest", "latest~2" (two before it), a database's row "#7", or the
  /// first characters (at least 4) of the run's SHA-256 or of its commit; a commit with several
  /// runs means the last of them. `machine`: only runs of this one. Throws Error(kUsage) naming
  /// what there is.
  Run find_run(const std::string& reference, std::optional<std::int64_t> machine = std::nullopt);

 private:
  std::string path_;
  Store store_;
};

}  // namespace attn::history
