#include "harness/bench/history/series.h"

#include <array>
#include <cstdio>
#include <map>

namespace attn::history {
namespace {

constexpr std::size_t kShort = 12;

}  // namespace

std::vector<Series> all_series(Database& database) {
  std::map<std::int64_t, Run> runs;
  for (Run& run : database.runs()) {
    const std::int64_t id = run.id;
    runs.emplace(id, std::move(run));
  }
  // benchmark, machine -> series; results come in the order of the runs.
  std::map<std::pair<std::int64_t, std::int64_t>, Series> keyed;
  for (Result& result : database.results()) {
    if (!result.median_ns) continue;
    const Run& run = runs.at(result.run);
    Series& series = keyed[{result.benchmark, run.machine.id}];
    series.machine = run.machine;
    series.runs.push_back(run);
    series.results.push_back(std::move(result));
  }
  std::vector<Series> all;
  for (const Benchmark& benchmark : database.benchmarks()) {
    for (auto it = keyed.lower_bound({benchmark.id, 0});
         it != keyed.end() && it->first.first == benchmark.id; ++it) {
      it->second.benchmark = benchmark;
      all.push_back(std::move(it->second));
    }
  }
  return all;
}

std::vector<ChangePoint> changes_of(const Series& series, const ChangePointOptions& options) {
  std::vector<double> medians;
  medians.reserve(series.results.size());
  for (const Result& result : series.results) medians.push_back(*result.median_ns);
  return change_points(medians, options);
}

std::string short_name(const Run& run) { return run.sha256.substr(0, kShort); }

std::string short_commit(const Run& run) { return run.commit.substr(0, kShort); }

std::string format_time(double nanoseconds) {
  struct Unit {
    double size;
    const char* name;
  };
  constexpr std::array<Unit, 4> kUnits{{{1e9, "s"}, {1e6, "ms"}, {1e3, "us"}, {1.0, "ns"}}};
  const Unit* unit = &kUnits.back();
  for (const Unit& candidate : kUnits) {
    if (nanoseconds >= candidate.size) {
      unit = &candidate;
      break;
    }
  }
  std::array<char, 48> text{};
  std::snprintf(text.data(), text.size(), "%.4g %s", nanoseconds / unit->size, unit->name);
  return text.data();
}

}  // namespace attn::history
