#include "harness/report/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "harness/report/console.h"
#include "harness/report/format.h"
#include "harness/report/writers.h"

namespace attn::harness {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

StageReport stage(Stage which, double ratio) {
  StageReport report;
  report.stage = which;
  report.elements = 2048;
  report.worst_ratio = ratio;
  report.worst_where = "row 3 (sequence 0, position 3), head 1, channel 5";
  report.got = 2.5;
  report.want = 2.0;
  report.bound = 0.25;
  report.parts = {{"scores", 0.2}, {"sum", 0.05}, {"nothing", 0.0}};
  return report;
}

ReportRow failed_row() {
  ReportRow row;
  row.name = "case-a";
  row.file = "data/case-a.h5";
  row.backend = "cpu";
  row.repro = "attn-compare verify data/case-a.h5 --backend cpu";
  row.verdict.status = Status::kFailed;
  row.verdict.first_bad = Stage::kLse;
  row.verdict.stages = {stage(Stage::kQProj, 0.5), stage(Stage::kLse, 2.0),
                        stage(Stage::kAttnOut, 40.0)};
  return row;
}

TEST(Format, Numbers) {
  EXPECT_EQ(format_number(0.1), "0.1");
  EXPECT_EQ(format_number(-kInfinity), "-Infinity");
  EXPECT_EQ(format_number(std::numeric_limits<double>::quiet_NaN()), "NaN");
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(1000), "1,000");
  EXPECT_EQ(format_count(-1234567), "-1,234,567");
  EXPECT_EQ(format_ratio(0), "0");
  EXPECT_EQ(format_ratio(1e-9), "<0.001");
  EXPECT_EQ(format_ratio(0.1374), "0.137");
  EXPECT_EQ(format_ratio(37.21), "37.2");
  EXPECT_EQ(format_ratio(kInfinity), "inf");
  EXPECT_EQ(format_seconds(0.0123), "12.3 ms");
  EXPECT_EQ(format_seconds(200), "3 min 20 s");
}

TEST(Format, WrapKeepsTheWidthAndEveryWord) {
  std::string text = "label   ";
  for (int i = 0; i < 60; ++i) text += "word" + std::to_string(i) + " ";
  const std::string wrapped = wrap(text, 8);
  std::istringstream lines(wrapped);
  std::string words;
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), kLineWidth);
    std::istringstream in(line);
    for (std::string word; in >> word;) words += word + " ";
  }
  std::istringstream in(text);
  std::string want;
  for (std::string word; in >> word;) want += word + " ";
  EXPECT_EQ(words, want);
  const std::string unbroken(300, 'x');
  EXPECT_EQ(wrap(unbroken, 6), unbroken);
  EXPECT_EQ(wrap("label   " + unbroken, 6), "label\n      " + unbroken);
}

TEST(Report, TheHeadlineIsTheFirstBadStageNotTheLargestRatio) {
  const ReportRow row = failed_row();
  EXPECT_EQ(headline_stage(row.verdict)->stage, Stage::kLse);
  Verdict passed = row.verdict;
  passed.first_bad.reset();
  EXPECT_EQ(headline_stage(passed)->stage, Stage::kAttnOut);
  EXPECT_EQ(headline_stage(Verdict{}), nullptr);
}

TEST(Report, TallyNamesOnlyWhatOccurred) {
  Report report;
  report.rows = {failed_row(), ReportRow{}};
  EXPECT_EQ(to_string(report.tally()), "1 passed, 1 failed");
  report.rows.emplace_back().verdict.status = Status::kUnsupported;
  report.rows.emplace_back().trouble = Trouble::kUnreadable;
  EXPECT_EQ(to_string(report.tally()), "1 passed, 1 failed, 1 unsupported, 1 unreadable");
}

TEST(Report, TheAccountOfAFailureEndsWithItsReproLine) {
  const std::string block = failure_block(failed_row());
  EXPECT_THAT(block, HasSubstr("FAILED  data/case-a.h5  on cpu"));
  EXPECT_THAT(block, HasSubstr("first bad stage  lse"));
  EXPECT_THAT(block, HasSubstr("(error 0.5, bound 0.25)"));
  EXPECT_THAT(block, HasSubstr("scores 80 %, sum 20 %"));
  EXPECT_THAT(block, Not(HasSubstr("nothing")));
  EXPECT_EQ(block.substr(block.rfind("attn-compare")),
            "attn-compare verify data/case-a.h5 --backend cpu\n");
}

TEST(Writers, AgreeOnTheRows) {
  Report report;
  report.verb = "verify";
  report.rows = {failed_row()};
  report.rows[0].verdict.stages[1].got = std::numeric_limits<double>::quiet_NaN();
  report.rows[0].verdict.stages[1].worst_ratio = kInfinity;
  report.rows[0].properties = {{"page_seed", std::int64_t{7}}, {"agreement", 0.5}};
  const auto json = nlohmann::json::parse(to_json(report));
  const auto& row = json["rows"][0];
  EXPECT_EQ(row["worst_stage"], "lse");
  EXPECT_EQ(row["worst_ratio"], "Infinity");
  EXPECT_EQ(row["stages"][1]["got"], "NaN");
  EXPECT_EQ(row["properties"]["page_seed"], 7);
  EXPECT_EQ(row["stages"][0]["bound_parts"][0]["name"], "scores");
  const std::string xml = to_junit(report);
  EXPECT_THAT(xml, HasSubstr(R"(classname="attn-compare.verify.cpu" name="case-a")"));
  EXPECT_THAT(xml, HasSubstr(R"(<property name="page_seed" value="7"/>)"));
  std::ostringstream table;
  ConsoleTable console(table, {});
  console.row(report.rows[0]);
  console.finish(report);
  EXPECT_THAT(table.str(), HasSubstr("lse                inf"));
}

/// What comes from a hostile file must not break the readers of our reports.
TEST(Writers, SurviveTextThatIsNoText) {
  Report report;
  report.verb = "verify";
  ReportRow& row = report.rows.emplace_back();
  row.name = "a\xff<&\"\x01 b";
  row.trouble = Trouble::kUnreadable;
  row.verdict.detail = "\xc3\x28 \xf0\x9f\x98";
  EXPECT_TRUE(nlohmann::json::accept(to_json(report)));
  EXPECT_THAT(to_junit(report), HasSubstr("name=\"a?&lt;&amp;&quot;? b\""));
  EXPECT_THAT(to_junit(report), HasSubstr("message=\"?( ???\""));
}

}  // namespace
}  // namespace attn::harness
