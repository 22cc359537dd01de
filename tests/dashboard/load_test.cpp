// What the page makes of a database: series, bands, ratios to peers, changes and verdicts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "harness/bench/dashboard/page.h"
#include "harness/bench/history/import.h"
#include "tests/history/google_json.h"
#include "tests/history/scratch.h"

namespace attn::dashboard {
namespace {

const char* const kGraph = R"(, "label": "graph, 4 copies", "GB/s": 2400.0, "TFLOP/s": 10.0)";
const char* const kHost = R"(, "label": "host, 1 copies")";
const char* const kGpu = R"(, "gpu": "NVIDIA H200", "commit": "abcdef0123")";

/// The page of runs, one a day.
Page page_of(const std::vector<std::vector<test::Timed>>& runs) {
  const test::Scratch scratch;
  std::vector<std::string> files;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const std::string day = std::to_string(101 + i).substr(1);
    files.push_back(scratch.file(
        "run" + day + ".json", test::google_json("2026-03-" + day + "T10:00:00Z", runs[i], kGpu)));
  }
  history::import_files(scratch / "db", files, {});
  return load_page(scratch / "db");
}

const Series& series_of(const Page& page, const std::string& backend) {
  for (const Series& series : page.series) {
    if (page.benchmarks[series.benchmark].backend == backend) return series;
  }
  throw std::runtime_error("no series of " + backend);
}

TEST(Load, PeersCountInTheirRunByTheirTimer) {
  const std::string shape = "decode B1 ctx2048 32/8 | ";
  const Page page = page_of({
      {{shape + "cuda", {10, 10, 10}, kGraph},
       {shape + "cudnn", {12, 12, 12}, kGraph},
       {shape + "flash", {15, 15, 15}, kGraph},
       {shape + "jax", {5, 5, 5}, kHost}},
      {{shape + "cuda", {8, 8, 8}, kGraph}, {shape + "flash", {6, 6, 6}, kGraph}},
      {{shape + "cuda", {9, 9, 9}, kGraph}},
  });
  const Series& ours = series_of(page, "cuda");
  ASSERT_EQ(ours.points.size(), 3U);
  EXPECT_NEAR(ours.points[0].peer_ratio, 1.2, 1e-12);   // cudnn; jax has another timer
  EXPECT_NEAR(ours.points[1].peer_ratio, 0.75, 1e-12);  // flash, as timed in this run
  EXPECT_TRUE(std::isnan(ours.points[2].peer_ratio));   // no peer in this run
  EXPECT_NEAR(series_of(page, "flash").points[0].peer_ratio, 0.8, 1e-12);
  EXPECT_NEAR(series_of(page, "jax").points[0].peer_ratio, 1.0, 1e-12);
  EXPECT_NEAR(ours.points[0].roofline, 0.5, 1e-12);  // 2,400 of 4,800 GB/s
  EXPECT_NEAR(ours.points[0].median_us, 10, 1e-12);
}

TEST(Load, OtherNamesOfTheSameWorkAreOneSeries) {
  const Page page = page_of({
      {{"B1 ctx2048 32/8 | cuda", {10, 11}, kGraph}},
      {{"decode B1 ctx2048 32/8 | cuda", {10, 11}, kGraph}},
      {{"decode ctx2048 B1 32/8 D128 | cuda", {10, 11}, kHost}},
  });
  ASSERT_EQ(page.series.size(), 2U);  // the host's time is another series
  EXPECT_EQ(page.series[0].points.size() + page.series[1].points.size(), 3U);
}

TEST(Load, TwoInOneRunStayApart) {
  const std::string name = "decode B1 ctx2048 32/8 ";
  const Page page = page_of({
      {{name + "page16 | cuda", {10, 11}, kGraph}, {name + "page64 | cuda", {9, 10}, kGraph}},
      {{name + "page16 | cuda", {10, 11}, kGraph}, {name + "page64 | cuda", {9, 10}, kGraph}},
  });
  ASSERT_EQ(page.series.size(), 2U);
  EXPECT_EQ(page.series[0].points.size(), 2U);
  EXPECT_EQ(page.series[1].points.size(), 2U);
}

TEST(Load, FindsTheChangeAndTheVerdict) {
  std::mt19937_64 engine(3);
  std::normal_distribution<double> noise(1.0, 0.005);
  std::vector<std::vector<test::Timed>> runs;
  for (int run = 0; run < 20; ++run) {
    std::vector<double> steady(20);
    std::vector<double> slower(20);
    for (double& time : steady) time = 10 * noise(engine);
    // A step at run 12, and once more at the last run.
    for (double& time : slower)
      time = 20 * noise(engine) * (run < 12 ? 1.0 : 1.1) * (run < 19 ? 1.0 : 1.1);
    runs.push_back({{"decode B1 ctx2048 32/8 | cuda", steady, kGraph},
                    {"decode B1 ctx8192 32/8 | cuda", slower, kGraph}});
  }
  const Page page = page_of(runs);
  ASSERT_EQ(page.changes.size(), 1U);
  const Change& change = page.changes[0];
  EXPECT_EQ(page.benchmarks[page.series[change.series].benchmark].kv_len, 8192);
  EXPECT_EQ(change.run, 12U);
  EXPECT_NEAR(change.after_us / change.before_us, 1.1, 0.01);
  ASSERT_EQ(page.gate.size(), 2U);
  EXPECT_EQ(page.gate[0].verdict, "REGRESSED");
  EXPECT_EQ(page.gate[0].candidate, 19U);
  EXPECT_EQ(page.gate[0].baseline, 18U);
  EXPECT_NEAR(page.gate[0].ratio, 1.1, 0.01);
  EXPECT_EQ(page.gate[0].series, change.series);
  EXPECT_EQ(page.gate[1].verdict, "SAME");
  EXPECT_THAT(render(page), ::testing::HasSubstr("REGRESSED: 1 benchmark slower"));
}

}  // namespace
}  // namespace attn::dashboard
