#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "harness/bench/history/records.h"

/// The dashboard: one HTML file that shows a database of benchmark runs without a network.
/// docs/dashboard.md describes the page and the data inside it.
namespace attn::dashboard {

/// One benchmark in one run. NaN: not known.
struct Point {
  std::size_t run = 0;  ///< index into Page::runs
  std::int64_t samples = 0;
  double median_us = 0.0;
  double low_us = 0.0;   ///< of the confidence band of the median
  double high_us = 0.0;  ///< likewise
  double gbps = 0.0;
  double tflops = 0.0;
  double roofline = 0.0;     ///< fraction, 0 to 1
  double error_bound = 0.0;  ///< largest error/bound of the outputs that were timed
  /// Time of the fastest peer of the same shape and timer in the same run, over this time: above 1
  /// this one is faster than every peer. A peer itself gets its share of the fastest one's speed.
  double peer_ratio = 0.0;
};

/// One benchmark over the runs of one machine, by date. Benchmarks of one shape, implementation,
/// timer and program are one series whatever they were called, unless a run has two of them.
struct Series {
  std::size_t benchmark = 0;  ///< index into Page::benchmarks: the one that was timed last
  std::size_t machine = 0;    ///< index into Page::machines
  std::vector<Point> points;  ///< at least one
};

/// A run from which on a series has another level.
struct Change {
  std::size_t series = 0;
  std::size_t run = 0;  ///< the first one of the new level
  double before_us = 0.0;
  double after_us = 0.0;
  double p_value = 0.0;
};

/// What the gate says of a series' last run against the one before it.
struct GateRow {
  std::size_t series = 0;
  std::size_t baseline = 0;  ///< run
  std::size_t candidate = 0;
  std::string verdict;  ///< SAME, IMPROVED, REGRESSED or AMBIGUOUS
  double ratio = 0.0;   ///< time of the candidate over that of the baseline
  double low = 0.0;     ///< of the interval of the ratio
  double high = 0.0;
  double p_value = 0.0;  ///< after correction for the number of benchmarks
  std::string reason;    ///< of the verdict, in a few words
};

/// Everything that the page shows.
struct Page {
  std::string title;
  std::string generated;  ///< UTC
  std::vector<history::Machine> machines;
  std::vector<history::Run> runs;  ///< by date
  std::vector<std::size_t> run_machine;
  std::vector<history::Benchmark> benchmarks;
  std::vector<Series> series;          ///< by kind, shape, ours before peers
  std::vector<Change> changes;         ///< the latest first
  std::vector<GateRow> gate;           ///< REGRESSED first
  std::vector<history::Score> scores;  ///< `run` is an index into runs
};

/// The page of a database. Throws Error(kInput) with the file's name.
Page load_page(const std::string& database);

/// The page as one HTML file.
std::string render(const Page& page);

/// The block of data inside it: JSON, safe inside a script element.
std::string data_block(const Page& page);

/// False when the program was built without npm: the page then has tables only, and says so.
bool has_charts();

}  // namespace attn::dashboard
