// attn-compare history dashboard as a user runs it, on the runs that data/bench keeps.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "harness/bench/dashboard/page.h"
#include "tests/cli/program_runner.h"

namespace attn::test {
namespace {

using ::testing::HasSubstr;

std::string source(const std::string& path) { return std::string(ATTN_SOURCE_DIR) + "/" + path; }

/// Every recorded run, conformance run and score in one database.
void import_recorded(const std::string& database) {
  std::vector<std::string> args{"history", "import", "--db", database};
  for (const char* const folder : {"data/bench", "data/gpu"}) {
    for (const auto& file : std::filesystem::recursive_directory_iterator(source(folder))) {
      const std::string name = file.path().filename().string();
      const bool is_run = std::string(folder) == "data/bench" || name == "conformance.json";
      if (file.path().extension() == ".json" && is_run) args.push_back(file.path().string());
    }
  }
  args.push_back(source("data/faults/score.json"));
  const Outcome outcome = attn_compare(args);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
}

TEST(DashboardVerb, ShowsTheRecordedRuns) {
  const ScratchFolder folder;
  import_recorded(folder / "bench.db");
  const Outcome outcome = attn_compare({"history", "dashboard", "--db", folder / "bench.db", "-o",
                                        folder / "d.html", "--title", "<H>"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  EXPECT_THAT(outcome.err, HasSubstr("runs, "));
  const std::string html = read_file(folder / "d.html");
  EXPECT_THAT(html, HasSubstr("<h1>&lt;H&gt;</h1>"));
  EXPECT_THAT(html, HasSubstr("NVIDIA H200"));
  const std::string score = read_file(source("data/faults/score.json"));
  const auto number = [&](const std::string& key) {  // of the pr gate
    const std::size_t at = score.find("\"" + key + "\":", score.find("\"pr\""));
    return std::to_string(std::stoi(score.substr(at + key.size() + 3)));
  };
  EXPECT_THAT(html, HasSubstr(number("killed") + " of " + number("planted")));
  // To stdout the same, but for when it was made.
  const Outcome again =
      attn_compare({"history", "dashboard", "--db", folder / "bench.db", "-o", "-"});
  EXPECT_EQ(again.code, 0);
  EXPECT_THAT(again.out, HasSubstr("<!doctype html>"));
}

TEST(DashboardVerb, RecordedRunsHavePeersAndRooflines) {
  const ScratchFolder folder;
  import_recorded(folder / "bench.db");
  const dashboard::Page page = dashboard::load_page(folder / "bench.db");
  std::size_t with_ratio = 0;
  std::size_t with_roofline = 0;
  std::size_t with_history = 0;
  for (const dashboard::Series& series : page.series) {
    const dashboard::Point& last = series.points.back();
    if (page.benchmarks[series.benchmark].is_peer) {
      EXPECT_FALSE(last.peer_ratio > 1.0) << "a peer is no faster than the fastest one";
      continue;
    }
    with_ratio += last.peer_ratio > 0.0 ? 1 : 0;
    with_roofline += last.roofline > 0.0 ? 1 : 0;
    with_history += series.points.size() > 1 ? 1 : 0;
    EXPECT_FALSE(last.roofline > 1.0) << page.benchmarks[series.benchmark].name;
    if (!std::isnan(last.low_us)) {
      EXPECT_LE(last.low_us, last.median_us);
      EXPECT_GE(last.high_us, last.median_us);
    }
  }
  EXPECT_GE(with_ratio, 30U);
  EXPECT_GE(with_roofline, 30U);
  EXPECT_GE(with_history, 15U) << "the same work under another name is one series";
}

TEST(DashboardVerb, RefusesInOneLine) {
  const ScratchFolder folder;
  const auto refused = [&](const std::vector<std::string>& args, int code, const char* text) {
    const Outcome outcome = attn_compare(args);
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(text));
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  };
  refused({"history", "dashboard", "--db", folder / "none.db", "-o", folder / "d.html"}, 3,
          "no such database");
  write_file(folder / "text.db", "this is no database at all, just some text in a file\n");
  refused({"history", "dashboard", "--db", folder / "text.db", "-o", folder / "d.html"}, 3,
          "is no database of benchmark runs");
  refused({"history", "dashboard", "--db", folder / "none.db"}, 2, "--output");
  import_recorded(folder / "bench.db");
  refused({"history", "dashboard", "--db", folder / "bench.db", "-o", folder / "no/d.html"}, 2,
          "no/d.html");
  EXPECT_FALSE(std::filesystem::exists(folder / "d.html"));
}

}  // namespace
}  // namespace attn::test
