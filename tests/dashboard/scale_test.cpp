// A database of 2,000 runs of 100 benchmarks becomes a page in less than five seconds.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "harness/bench/dashboard/page.h"
#include "harness/bench/history/import.h"
#include "tests/history/google_json.h"
#include "tests/history/scratch.h"

namespace attn::dashboard {
namespace {

TEST(DashboardScale, TwoThousandRunsOfAHundredBenchmarks) {
  const test::Scratch scratch;
  std::mt19937_64 engine(1);
  std::normal_distribution<double> noise(1.0, 0.01);
  std::vector<std::string> files;
  for (int run = 0; run < 2000; ++run) {
    std::vector<test::Timed> benchmarks;
    for (int b = 0; b < 100; ++b) {
      std::vector<double> times(5);
      for (double& time : times) time = (10.0 + b) * noise(engine) * (run < 1950 ? 1.0 : 1.04);
      benchmarks.push_back({"decode B" + std::to_string(b + 1) + " ctx2048 32/8 | cuda/manual_time",
                            times, R"(, "GB/s": 800.0, "label": "graph, 4 copies")"});
    }
    char date[32];
    std::snprintf(date, sizeof(date), "2026-%02d-%02dT%02d:%02d:00Z", run / 200 + 1,
                  run % 200 / 8 + 1, run % 8, run % 60);
    files.push_back(
        scratch.file("run" + std::to_string(run) + ".json", test::google_json(date, benchmarks)));
  }
  history::import_files(scratch / "db", files, {});
  const auto begin = std::chrono::steady_clock::now();
  const Page page = load_page(scratch / "db");
  const std::string html = render(page);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf("%.2f s, %.1f MB\n", seconds, static_cast<double>(html.size()) / 1e6);
  EXPECT_LT(seconds, 5.0);
  ASSERT_EQ(page.series.size(), 100U);
  EXPECT_EQ(page.series[0].points.size(), 2000U);
  // The step of 4 % in the last 50 runs is found in nearly all of them.
  EXPECT_GE(page.changes.size(), 95U);
  EXPECT_LE(page.changes.size(), 120U);
}

}  // namespace
}  // namespace attn::dashboard
