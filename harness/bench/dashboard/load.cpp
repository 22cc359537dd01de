#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <unordered_map>

#include "harness/bench/dashboard/interval.h"
#include "harness/bench/dashboard/judgement.h"
#include "harness/bench/dashboard/page.h"
#include "harness/bench/dashboard/peaks.h"
#include "harness/bench/history/database.h"
#include "harness/bench/history/schema.h"
#include "harness/report/sqlite.h"

namespace attn::dashboard {
namespace {

using history::Benchmark;
using history::Result;
using history::Run;

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
std::string utc_now() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

double or_unknown(const std::optional<double>& value) { return value.value_or(kUnknown); }

/// The band of results that kept no repetitions: the median of n normal values scatters by
/// sqrt(pi / 2) stddev / sqrt(n).
Interval from_aggregates(const Result& result) {
  Interval interval{*result.median_ns, kUnknown, kUnknown, 0.0};
  if (result.stddev_ns && result.repetitions > 1) {
    const double half =
        1.96 * 1.2533 * *result.stddev_ns / std::sqrt(static_cast<double>(result.repetitions));
    interval.low = interval.median - half;
    interval.high = interval.median + half;
  }
  return interval;
}

/// Of every result that kept its repetitions, in one pass over all of them.
std::unordered_map<std::int64_t, Interval> sample_intervals(const std::string& path) {
  history::Store store(path, harness::Sqlite::Mode::kRead);
  harness::Statement row(store.sqlite(),
                         "SELECT result, time_ns FROM sample WHERE time_ns IS NOT NULL "
                         "ORDER BY result");
  std::unordered_map<std::int64_t, Interval> intervals;
  std::vector<double> times;
  std::int64_t current = 0;
  const auto flush = [&] {
    if (!times.empty()) intervals.emplace(current, median_interval(times));
    times.clear();
  };
  row.each([&] {
    if (row.integer(0) != current) flush();
    current = row.integer(0);
    times.push_back(row.real(1));
  });
  flush();
  return intervals;
}

class Loader {
 public:
  explicit Loader(const std::string& path) : database_(path) {}

  Page load() {
    page_.title = "Attention kernels: speed, history and correctness";
    page_.generated = utc_now();
    load_runs();
    load_benchmarks();
    load_results();
    set_peer_ratios();
    order_series();
    add_changes(page_);
    add_gate(page_, database_);
    load_scores();
    return std::move(page_);
  }

 private:
  void load_runs() {
    page_.runs = database_.runs();
    std::map<std::int64_t, std::size_t> machine_index;
    for (std::size_t i = 0; i < page_.runs.size(); ++i) {
      const Run& run = page_.runs[i];
      run_index_[run.id] = i;
      const auto [it, is_new] = machine_index.try_emplace(run.machine.id, page_.machines.size());
      if (is_new) page_.machines.push_back(run.machine);
      page_.run_machine.push_back(it->second);
    }
  }

  void load_benchmarks() {
    page_.benchmarks = database_.benchmarks();
    for (std::size_t i = 0; i < page_.benchmarks.size(); ++i) {
      Benchmark& b = page_.benchmarks[i];
      benchmark_index_[b.id] = i;
      if (b.shape.empty()) b.shape = b.name;
      if (b.backend.empty()) b.backend = b.program;
    }
  }

  /// The first benchmark of those that are the same but for their names: the key of a series.
  std::vector<std::size_t> merged_benchmarks(const std::vector<Result>& results) const {
    std::map<std::tuple<std::string, std::string, std::string, std::string>, std::size_t> first;
    std::vector<std::size_t> merged(page_.benchmarks.size());
    for (std::size_t i = 0; i < page_.benchmarks.size(); ++i) {
      const Benchmark& b = page_.benchmarks[i];
      merged[i] = first.try_emplace({b.shape, b.backend, b.timer, b.program}, i).first->second;
    }
    // Two of them in one run are different work after all (pages of other sizes, say).
    std::set<std::pair<std::int64_t, std::size_t>> seen;
    std::set<std::size_t> apart;
    for (const Result& result : results) {
      const std::size_t key = merged[benchmark_index_.at(result.benchmark)];
      if (!seen.emplace(result.run, key).second) apart.insert(key);
    }
    for (std::size_t i = 0; i < merged.size(); ++i) {
      if (apart.contains(merged[i])) merged[i] = i;
    }
    return merged;
  }

  void load_results() {
    const std::vector<Result> results = database_.results();
    const std::vector<std::size_t> merged = merged_benchmarks(results);
    const std::unordered_map<std::int64_t, Interval> intervals = sample_intervals(database_.path());
    std::map<std::pair<std::size_t, std::size_t>, std::size_t> series_index;
    for (const Result& result : results) {
      if (!result.median_ns) continue;
      const std::size_t run = run_index_.at(result.run);
      const std::size_t benchmark = benchmark_index_.at(result.benchmark);
      const std::size_t machine = page_.run_machine[run];
      const auto [it, is_new] =
          series_index.try_emplace({merged[benchmark], machine}, page_.series.size());
      if (is_new) page_.series.push_back({benchmark, machine, {}});
      page_.series[it->second].benchmark = benchmark;
      const auto samples = intervals.find(result.id);
      const Interval interval =
          samples == intervals.end() ? from_aggregates(result) : samples->second;
      page_.series[it->second].points.push_back(point_of(result, run, benchmark, interval));
    }
  }

  Point point_of(const Result& result, std::size_t run, std::size_t benchmark,
                 const Interval& interval) const {
    Point point;
    point.run = run;
    point.samples = std::max(result.samples, result.repetitions);
    point.median_us = interval.median / 1e3;
    point.low_us = interval.low / 1e3;
    point.high_us = interval.high / 1e3;
    point.tflops = or_unknown(result.tflops);
    point.gbps = or_unknown(result.gbps);
    point.roofline = or_unknown(result.roofline);
    if (std::isnan(point.roofline)) {
      const std::string& gpu = page_.machines[page_.run_machine[run]].gpu;
      point.roofline =
          roofline_of(peak_of(gpu, page_.benchmarks[benchmark]), point.tflops, point.gbps);
    }
    point.error_bound = or_unknown(result.error_bound);
    point.peer_ratio = kUnknown;
    return point;
  }

  /// Peers count for the run that timed them, by the same timer.
  void set_peer_ratios() {
    std::map<std::tuple<std::size_t, std::string, std::string>, double> fastest;
    const auto key = [&](const Series& series, const Point& point) {
      const Benchmark& b = page_.benchmarks[series.benchmark];
      return std::tuple(point.run, b.shape, b.timer);
    };
    for (const Series& series : page_.series) {
      if (!page_.benchmarks[series.benchmark].is_peer) continue;
      for (const Point& point : series.points) {
        double& best = fastest.try_emplace(key(series, point), point.median_us).first->second;
        best = std::min(best, point.median_us);
      }
    }
    if (fastest.empty()) return;
    for (Series& series : page_.series) {
      for (Point& point : series.points) {
        const auto it = fastest.find(key(series, point));
        if (it != fastest.end()) point.peer_ratio = it->second / point.median_us;
      }
    }
  }

  void order_series() {
    const auto key = [&](const Series& series) {
      const Benchmark& b = page_.benchmarks[series.benchmark];
      return std::tuple(series.machine, b.kind, series_order(b), b.is_peer, b.backend, b.timer);
    };
    std::stable_sort(page_.series.begin(), page_.series.end(),
                     [&](const Series& a, const Series& b) { return key(a) < key(b); });
  }

  /// By size of the work as a reader counts it, then by name.
  static std::tuple<std::int64_t, std::int64_t, std::int64_t, std::string> series_order(
      const Benchmark& b) {
    return {b.kv_len.value_or(0), b.batch.value_or(0), b.q_len.value_or(0), b.shape};
  }

  void load_scores() {
    page_.scores = database_.scores();
    for (history::Score& score : page_.scores) {
      score.run = static_cast<std::int64_t>(run_index_.at(score.run));
    }
  }

  history::Database database_;
  Page page_;
  std::map<std::int64_t, std::size_t> run_index_;
  std::map<std::int64_t, std::size_t> benchmark_index_;
};

}  // namespace

Page load_page(const std::string& database) { return Loader(database).load(); }

}  // namespace attn::dashboard
