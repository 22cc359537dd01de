#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string_view>

#include "tests/cli/program_runner.h"

namespace attn::test {
namespace {

using ::testing::HasSubstr;

/// Elements opened and closed in order, attributes quoted, no stray '&' or '<'. Not a parser, but
/// it refuses everything that our writer could get wrong.
bool well_formed(std::string_view xml) {
  std::vector<std::string> open;
  while (!xml.empty()) {
    const std::size_t tag = xml.find('<');
    const std::string_view text = xml.substr(0, tag);
    for (std::size_t at = text.find('&'); at != text.npos; at = text.find('&', at + 1)) {
      if (text.find(';', at) == text.npos) return false;
    }
    if (tag == xml.npos) break;
    const std::size_t end = xml.find('>', tag);
    if (end == xml.npos) return false;
    const std::string_view inside = xml.substr(tag + 1, end - tag - 1);
    if (inside.find('<') != inside.npos) return false;
    if (std::count(inside.begin(), inside.end(), '"') % 2 != 0) return false;
    const std::string name(inside.substr(0, inside.find_first_of(" /", 1)));
    if (inside[0] == '/') {
      if (open.empty() || "/" + open.back() != inside) return false;
      open.pop_back();
    } else if (inside[0] != '?' && inside.back() != '/') {
      open.push_back(name);
    }
    xml.remove_prefix(end + 1);
  }
  return open.empty();
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++found;
  return found;
}

/// Passed, failed, unsupported (by a plug-in without layers), and unreadable with a name that XML
/// must escape.
std::vector<std::string> mixed(const ScratchFolder& scratch) {
  write_damaged_copy(golden("qk-norm"), scratch / "wrong.h5", "expected/out", 1e-6);
  return {"verify", golden("qk-norm"), scratch / "wrong.h5", scratch / "a<b&\"c\".h5", "--backend",
          "cpu",    "--backend",       ATTN_MINIMAL_PLUGIN};
}

TEST(ReportFiles, JsonHasTheRowsOfTheTable) {
  const ScratchFolder scratch;
  std::vector<std::string> args = mixed(scratch);
  args.insert(args.end(), {"--json", scratch / "r.json"});
  const Outcome outcome = attn_compare(args);
  EXPECT_EQ(outcome.code, 3);
  const auto report = nlohmann::json::parse(read_file(scratch / "r.json"));
  EXPECT_EQ(report["schema_version"], 1);
  EXPECT_EQ(report["tool"]["name"], "attn-compare");
  EXPECT_EQ(report["verb"], "verify");
  EXPECT_EQ(report["exit_code"], 3);
  EXPECT_FALSE(report["interrupted"]);
  EXPECT_THAT(report["command_line"].get<std::string>(), HasSubstr("attn-compare verify "));
  EXPECT_EQ(report["summary"]["passed"], 2);
  EXPECT_EQ(report["summary"]["failed"], 1);
  EXPECT_EQ(report["summary"]["unsupported"], 2);
  EXPECT_EQ(report["summary"]["unreadable"], 1);
  const std::vector<std::string> want = {"passed", "unsupported", "failed",
                                         "passed", "unsupported", "unreadable"};
  ASSERT_EQ(report["rows"].size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(report["rows"][i]["status"], want[i]);
  const auto& row = report["rows"][0];
  EXPECT_EQ(row["name"], "qk-norm");
  EXPECT_EQ(row["backend"], "cpu");
  EXPECT_EQ(row["first_bad_stage"], nullptr);
  EXPECT_LT(row["worst_ratio"], 1.0);
  EXPECT_EQ(row["properties"]["page_seed"], 1);
  EXPECT_EQ(row["stages"].size(), 13u);
  for (const char* key : {"stage", "elements", "bad", "worst_ratio", "worst_index", "worst_where",
                          "got", "want", "error", "bound", "bound_parts", "weak_bound", "note"}) {
    EXPECT_TRUE(row["stages"][0].contains(key)) << key;
  }
  EXPECT_EQ(report["rows"][2]["first_bad_stage"], "out");
}

TEST(ReportFiles, JunitIsWellFormedAndCountsTheSame) {
  const ScratchFolder scratch;
  std::vector<std::string> args = mixed(scratch);
  args.insert(args.end(), {"--junit", scratch / "r.xml"});
  attn_compare(args);
  const std::string xml = read_file(scratch / "r.xml");
  EXPECT_TRUE(well_formed(xml)) << xml;
  EXPECT_THAT(xml, HasSubstr(R"(tests="6" failures="3" errors="1" skipped="0")"));
  EXPECT_EQ(count(xml, "<testcase "), 6u);
  EXPECT_EQ(count(xml, "<failure "), 3u);
  EXPECT_EQ(count(xml, "<error "), 1u);
  EXPECT_THAT(xml, HasSubstr("a&lt;b&amp;&quot;c&quot;"));
  // Allowed, an unsupported case is skipped, not failed.
  args.push_back("--allow-unsupported");
  attn_compare(args);
  EXPECT_THAT(read_file(scratch / "r.xml"),
              HasSubstr(R"(tests="6" failures="1" errors="1" skipped="2")"));
}

TEST(ReportFiles, TheCheckOfWellFormednessCanFail) {
  EXPECT_FALSE(well_formed("<a><b></a></b>"));
  EXPECT_FALSE(well_formed("<a x=\"1></a>"));
  EXPECT_FALSE(well_formed("<a>fish & chips</a>"));
  EXPECT_TRUE(well_formed("<?xml version=\"1.0\"?><a x=\"&lt;\"><b/></a>"));
}

TEST(ReportFiles, DashIsStdoutAndTheTableMovesToStderr) {
  const std::vector<std::string> args = {"verify", golden("qk-norm"), "--backend", "cpu"};
  std::vector<std::string> json = args;
  json.insert(json.end(), {"--json", "-"});
  const Outcome outcome = attn_compare(json);
  EXPECT_EQ(nlohmann::json::parse(outcome.out)["summary"]["passed"], 1);
  EXPECT_THAT(outcome.err, HasSubstr("1 passed, 0 failed"));
  std::vector<std::string> junit = args;
  junit.insert(junit.end(), {"--junit", "-"});
  EXPECT_TRUE(well_formed(attn_compare(junit).out));
}

TEST(ReportFiles, EveryReportingVerbWritesThem) {
  const ScratchFolder scratch;
  const std::string file = golden("qk-norm");
  const std::vector<std::vector<std::string>> verbs = {
      {"verify", file, "--backend", "cpu"},
      {"run", "--case", file, "--backend", "cpu"},
      {"diff", file, file},
      {"explain", "--case", file, "--backend", "cpu"},
      {"golden", "make", "--random", "1", "-o", scratch.path()},
      {"golden", "seal", scratch / "random-1.h5"},
  };
  for (std::vector<std::string> args : verbs) {
    const std::string verb = args[0];
    args.insert(args.end(), {"--json", scratch / "r.json", "--junit", scratch / "r.xml"});
    EXPECT_EQ(attn_compare(args).code, 0) << verb;
    const auto report = nlohmann::json::parse(read_file(scratch / "r.json"));
    EXPECT_EQ(report["schema_version"], 1) << verb;
    EXPECT_GE(report["rows"].size(), 1u) << verb;
    EXPECT_TRUE(well_formed(read_file(scratch / "r.xml"))) << verb;
  }
}

}  // namespace
}  // namespace attn::test
