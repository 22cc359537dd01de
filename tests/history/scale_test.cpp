// A database of 2,000 runs with 100 benchmarks each is made in less than a minute.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <ctime>
#include <random>

#include "harness/bench/history/import.h"
#include "harness/bench/history/series.h"
#include "tests/history/google_json.h"
#include "tests/history/scratch.h"

namespace attn::history {
namespace {

/// Of the clock and of this process: on a machine with other work only the second is the import's.
struct Seconds {
  double wall = 0.0;
  double cpu = 0.0;
};

class Stopwatch {
 public:
  Seconds seconds() const {
    return {std::chrono::duration<double>(std::chrono::steady_clock::now() - wall_).count(),
            static_cast<double>(std::clock() - cpu_) / CLOCKS_PER_SEC};
  }

 private:
  std::chrono::steady_clock::time_point wall_ = std::chrono::steady_clock::now();
  std::clock_t cpu_ = std::clock();
};

TEST(Scale, TwoThousandRunsOfAHundredBenchmarks) {
  constexpr int kRuns = 2000;
  constexpr int kBenchmarks = 100;
  constexpr int kRepetitions = 5;
  const test::Scratch scratch;
  std::mt19937_64 engine(1);
  std::normal_distribution<double> noise(1.0, 0.01);
  std::vector<std::string> files;
  for (int run = 0; run < kRuns; ++run) {
    std::vector<test::Timed> benchmarks;
    for (int b = 0; b < kBenchmarks; ++b) {
      std::vector<double> times(kRepetitions);
      for (double& time : times) time = (10.0 + b) * noise(engine) * (run < kRuns / 2 ? 1.0 : 1.04);
      benchmarks.push_back({"decode B" + std::to_string(b + 1) + " ctx2048 32/8 | cuda/manual_time",
                            times,
                            R"(, "GB/s": 800.0, "TFLOP/s": 3.25, "label": "graph, 4 copies")"});
    }
    char date[32];
    std::snprintf(date, sizeof(date), "2026-%02d-%02dT%02d:%02d:00Z", run / 200 + 1,
                  run % 200 / 8 + 1, run % 8, run % 60);
    files.push_back(
        scratch.file("run" + std::to_string(run) + ".json", test::google_json(date, benchmarks)));
  }
  const Stopwatch import_watch;
  const auto imported = import_files(scratch / "db", files, {});
  const Seconds importing = import_watch.seconds();
  EXPECT_EQ(imported.size(), static_cast<std::size_t>(kRuns));
  const Stopwatch read_watch;
  Database database(scratch / "db");
  const std::vector<Series> series = all_series(database);
  const Seconds reading = read_watch.seconds();
  ASSERT_EQ(series.size(), static_cast<std::size_t>(kBenchmarks));
  EXPECT_EQ(series[0].runs.size(), static_cast<std::size_t>(kRuns));
  const Stopwatch search_watch;
  const std::vector<ChangePoint> changes = changes_of(series[0]);
  const Seconds searching = search_watch.seconds();
  ASSERT_GE(changes.size(), 1U);
  EXPECT_NEAR(changes[0].size(), 0.04, 0.01);
  std::printf(
      "imported in %.1f s (%.1f s of CPU), read in %.1f s (%.1f), changes of one series in %.2f s "
      "(%.2f), %.0f MB\n",
      importing.wall, importing.cpu, reading.wall, reading.cpu, searching.wall, searching.cpu,
      static_cast<double>(std::filesystem::file_size(scratch / "db")) / 1e6);
  EXPECT_LT(importing.cpu, 60.0);
}

}  // namespace
}  // namespace attn::history
