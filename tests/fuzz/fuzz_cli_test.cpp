#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/cli/program_runner.h"

namespace attn::test {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

/// The line of a text that holds `words`, without what stands before them.
std::string line_from(const std::string& text, const std::string& words) {
  const std::size_t begin = text.find(words);
  return begin == std::string::npos ? "" : text.substr(begin, text.find('\n', begin) - begin);
}

/// Without the breaks that keep lines short.
std::string one_line(const std::string& text) {
  std::istringstream words(text);
  std::string line, word;
  while (words >> word) line += word + " ";
  return line;
}

TEST(Fuzz, ARightBackendPasses) {
  const Outcome outcome = attn_compare(
      {"fuzz", "--backend", "cpu", "--cases", "30", "--exec", "plain,second_call,dirty_scratch"});
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  EXPECT_EQ(last_line(outcome.out), "30 passed, 0 failed");
}

TEST(Fuzz, OneMistakeGivesOneAccountAndALineThatShowsIt) {
  const Outcome outcome =
      attn_compare({"fuzz", "--backend", "faulty:kv_head_modulo", "--cases", "40"});
  EXPECT_EQ(outcome.code, 1) << outcome.out << outcome.err;
  const std::size_t first = outcome.out.find("fails: faulty:kv_head_modulo");
  ASSERT_NE(first, std::string::npos) << outcome.out;
  EXPECT_EQ(outcome.out.find("fails: ", first + 1), std::string::npos) << outcome.out;
  EXPECT_THAT(outcome.out, HasSubstr("4 heads on 2 kv heads"));
  EXPECT_THAT(one_line(outcome.out),
              HasSubstr("looks like: query head mapped to kv head by modulo"));
  const Outcome again = shell(line_from(outcome.out, "attn-compare run "));
  EXPECT_EQ(again.code, 1) << again.out << again.err;
}

/// Values within every bound, but not the bits that the backend claims: only a relation notices.
TEST(Fuzz, RelationsFindWhatNoBoundDoes) {
  const std::vector<std::string> args = {
      "fuzz",           "--backend", "damaged:cpu,stage=attn_out,batch_ulp", "--cases", "24",
      "--max-failures", "1"};
  std::vector<std::string> without = args, every = args;
  without.insert(without.end(), {"--relations", "none"});
  EXPECT_EQ(attn_compare(without).code, 0);
  every.insert(every.end(), {"--relations", "all"});
  const Outcome outcome = attn_compare(every);
  EXPECT_EQ(outcome.code, 1) << outcome.out << outcome.err;
  EXPECT_THAT(one_line(outcome.out), HasSubstr("relation row_alone"));
  EXPECT_THAT(outcome.out, HasSubstr("sizes "));
  const std::string line = line_from(outcome.out, "attn-compare invariance ");
  EXPECT_THAT(line, HasSubstr("--relations row_alone"));
  EXPECT_EQ(shell(line).code, 1) << line;
}

TEST(Fuzz, SameSeedSameRun) {
  const std::vector<std::string> args = {"fuzz",    "--backend", "damaged:cpu,stage=lse,swap_heads",
                                         "--cases", "4",         "--no-shrink",
                                         "--seed",  "5"};
  const Outcome first = attn_compare(args), second = attn_compare(args);
  EXPECT_EQ(first.out, second.out);
  std::vector<std::string> other = args;
  other.back() = "6";
  EXPECT_NE(attn_compare(other).out, first.out);
}

/// Only the second call of such a backend is wrong, so that the line must make two.
TEST(Fuzz, ReproducesWhatOnlyASecondCallShows) {
  const Outcome outcome = attn_compare(
      {"fuzz", "--backend", "faulty:plan_lengths_kept", "--cases", "20", "--exec", "second_call"});
  EXPECT_EQ(outcome.code, 1) << outcome.out;
  const std::string line = line_from(outcome.out, "attn-compare run ");
  EXPECT_THAT(line, HasSubstr("--exec second_call"));
  EXPECT_EQ(shell(line).code, 1);
}

TEST(Fuzz, PastFailuresAreTriedFirst) {
  const ScratchFolder scratch;
  const std::string corpus = scratch / "failures";
  const Outcome found = attn_compare(
      {"fuzz", "--backend", "faulty:sink_dropped", "--cases", "40", "--corpus", corpus});
  EXPECT_EQ(found.code, 1) << found.out;
  ASSERT_TRUE(std::filesystem::exists(corpus));
  const Outcome again = attn_compare(
      {"fuzz", "--backend", "faulty:sink_dropped", "--cases", "1", "--corpus", corpus});
  EXPECT_EQ(again.code, 1) << again.out;
  EXPECT_THAT(again.out, HasSubstr("1 corpus"));
  EXPECT_EQ(attn_compare({"fuzz", "--backend", "cpu", "--cases", "1", "--corpus", corpus}).code, 0);
}

/// How long fuzz takes with these words, and that it passes.
double seconds_of_fuzz(const std::vector<std::string>& words) {
  std::vector<std::string> args = {"fuzz", "--backend", "cpu"};
  args.insert(args.end(), words.begin(), words.end());
  const auto start = std::chrono::steady_clock::now();
  const Outcome outcome = attn_compare(args);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  return took.count();
}

/// Besides what the machine takes for planning and for the case at which the time is up.
TEST(Fuzz, TheSmokeGateEndsInTenSeconds) {
  const ScratchFolder scratch;
  const double planning = seconds_of_fuzz({"--gate", "smoke", "--cases", "1"});
  const double took = seconds_of_fuzz({"--gate", "smoke", "--json", scratch / "r.json"});
  double slowest = 0.0;
  const auto report = nlohmann::json::parse(read_file(scratch / "r.json"));
  for (const auto& row : report.at("rows")) {
    slowest = std::max(slowest, row.at("seconds").get<double>());
  }
  EXPECT_GT(slowest, 0.0);
  EXPECT_LE(took, 10.0 + planning + slowest);
}

/// Its runs refuse what is left without the features that it says it does not support.
TEST(Fuzz, UnsupportedCasesAreCountedByReason) {
  const Outcome outcome = attn_compare(
      {"fuzz", "--backend", std::string(ATTN_BAD_PLUGIN) + ":late_unsupported", "--cases", "12"});
  EXPECT_THAT(outcome.out, HasSubstr("12 unsupported: too many rows for one launch"));
  EXPECT_THAT(last_line(outcome.out), ContainsRegex("0 passed, 0 failed, 12 unsupported"));
}

/// It takes causal attention in float32 and reads the cache: every case has a part that it takes.
TEST(Fuzz, EveryCaseIsJudgedWithoutWhatAKernelDoesNotTake) {
  const Outcome outcome = attn_compare(
      {"fuzz", "--backend", ATTN_MINIMAL_PLUGIN, "--cases", "60", "--relations", "none"});
  EXPECT_THAT(outcome.out, ContainsRegex("60 judged without the features"));
  EXPECT_EQ(last_line(outcome.out), "60 passed, 0 failed");
}

TEST(Fuzz, ModesOfDevicesAreRefused) {
  const Outcome outcome =
      attn_compare({"fuzz", "--backend", "cpu", "--cases", "3", "--exec", "graph"});
  EXPECT_EQ(outcome.code, 4) << outcome.out;
  EXPECT_THAT(outcome.out, HasSubstr("mode graph is for devices"));
}

TEST(Fuzz, WrongWordsAreUsageErrors) {
  EXPECT_EQ(attn_compare({"fuzz", "--backend", "cpu", "--gate", "nightli"}).code, 2);
  EXPECT_EQ(attn_compare({"fuzz", "--backend", "cpu", "--exec", "twice"}).code, 2);
  EXPECT_EQ(attn_compare({"fuzz"}).code, 2);
}

TEST(Run, TakesAMode) {
  const Outcome outcome = attn_compare(
      {"run", "--case", golden("qk-norm"), "--backend", "cpu", "--exec", "dirty_scratch"});
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  EXPECT_EQ(attn_compare(
                {"run", "--case", golden("qk-norm"), "--backend", "cpu", "--exec", "second_call"})
                .code,
            2);
  EXPECT_THAT(attn_compare({"run", "--case", golden("qk-norm"), "--backend", "cpu", "--exec",
                            "plain,repeat"})
                  .err,
              HasSubstr("one mode"));
}

}  // namespace
}  // namespace attn::test
