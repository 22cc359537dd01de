#pragma once

#include <string>
#include <vector>

#include "harness/bench/history/change_points.h"
#include "harness/bench/history/database.h"

namespace attn::history {

/// One benchmark over the runs of one machine, oldest first; runs without a time are left out.
struct Series {
  Benchmark benchmark;
  Machine machine;
  std::vector<Run> runs;
  std::vector<Result> results;  ///< of these runs
};

/// Every series of a database, in the order of Database::benchmarks().
std::vector<Series> all_series(Database& database);

/// Changes of the median time: the run at `index` is the first after it.
std::vector<ChangePoint> changes_of(const Series& series, const ChangePointOptions& options = {});

/// The first twelve characters of its SHA-256: what to call it.
std::string short_name(const Run& run);
/// Likewise of its commit; "" when there is none.
std::string short_commit(const Run& run);

/// "10.44 us", "1.05 ms": a time for a reader.
std::string format_time(double nanoseconds);

}  // namespace attn::history
