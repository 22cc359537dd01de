// attn-compare history gate as a user runs it. Programs are shell scripts that copy a Google
// Benchmark file, so that what they measure is known.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "tests/cli/program_runner.h"
#include "tests/history/google_json.h"

namespace attn::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kDate = "2026-01-01T00:00:00Z";

std::vector<double> noisy(std::size_t n, double center, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal(center, 0.01 * center);
  std::vector<double> values(n);
  for (double& value : values) value = normal(engine);
  return values;
}

class GateCli : public testing::Test {
 protected:
  std::string two_sides(const std::string& name, double a, double b, std::uint64_t seed) {
    write_file(scratch_ / name,
               google_json(kDate, {{"k | a/manual_time", noisy(20, a, seed), ""},
                                   {"k | b/manual_time", noisy(20, b, seed + 1), ""}}));
    return scratch_ / name;
  }
  void import(const std::string& file) {
    ASSERT_EQ(attn_compare({"history", "import", "--db", scratch_ / "db", file}).code, 0);
  }
  Outcome gate(std::vector<std::string> args) const {
    args.insert(args.begin(), {"history", "gate", "--db", scratch_ / "db"});
    return attn_compare(args);
  }
  /// A program that writes the file where --benchmark_out says.
  std::string program(const std::string& name, const std::string& file) {
    write_file(scratch_ / name,
               "#!/bin/sh\nfor word; do case \"$word\" in --benchmark_out=*) cp '" + file +
                   "' \"${word#*=}\";; esac; done\n");
    std::filesystem::permissions(scratch_ / name, std::filesystem::perms::owner_all);
    return scratch_ / name;
  }

  ScratchFolder scratch_;
};

TEST_F(GateCli, ExitsWithOneOnlyOnARegression) {
  import(two_sides("run.json", 100.0, 110.0, 1));
  const Outcome slower = gate({"--candidate", "latest@b", "--baseline", "latest@a"});
  EXPECT_EQ(slower.code, 1) << slower.err;
  EXPECT_THAT(slower.out, HasSubstr("REGRESSED  k"));
  EXPECT_EQ(last_line(slower.out), "1 REGRESSED, 0 IMPROVED, 0 SAME, 0 AMBIGUOUS");
  const Outcome faster = gate({"--candidate", "latest@a", "--baseline", "latest@b"});
  EXPECT_EQ(faster.code, 0);
  EXPECT_EQ(last_line(faster.out), "0 REGRESSED, 1 IMPROVED, 0 SAME, 0 AMBIGUOUS");
  const Outcome few =
      gate({"--candidate", "latest@b", "--baseline", "latest@a", "--min-repetitions", "21"});
  EXPECT_EQ(few.code, 0);
  EXPECT_THAT(few.out, HasSubstr("20 repetitions, 21 needed"));
  const auto report = nlohmann::json::parse(
      gate({"--candidate", "latest@b", "--baseline", "latest@a", "--json", "-"}).out);
  EXPECT_EQ(report.at("exit_code"), 1);
  EXPECT_EQ(report.at("comparisons").at(0).at("verdict"), "REGRESSED");
  EXPECT_NEAR(report.at("comparisons").at(0).at("ratio").get<double>(), 1.1, 0.02);
}

TEST_F(GateCli, ConfirmsByARerun) {
  import(two_sides("run.json", 100.0, 110.0, 1));
  const std::string again = two_sides("again.json", 100.0, 109.0, 5);
  const std::string calm = two_sides("calm.json", 100.0, 100.0, 7);
  const std::vector<std::string> sides{"--candidate", "latest@b", "--baseline", "latest@a"};
  const auto with = [&](const std::string& file) {
    std::vector<std::string> args = sides;
    args.insert(args.end(), {"--rerun", "cp '" + file + "' \"$ATTN_RERUN\""});
    return gate(args);
  };
  const Outcome not_again = with(calm);
  EXPECT_EQ(not_again.code, 0) << not_again.err;
  EXPECT_THAT(not_again.out, HasSubstr("but not in the re-run (SAME"));
  const std::string first = "--candidate=latest~1@b";
  const Outcome found_again =
      gate({first, "--baseline=latest~1@a", "--rerun", "cp '" + again + "' \"$ATTN_RERUN\""});
  EXPECT_EQ(found_again.code, 1) << found_again.err;
  EXPECT_THAT(found_again.out, HasSubstr("confirmed by a re-run"));
  const Outcome broken =
      gate({"--candidate=latest~2@b", "--baseline=latest~2@a", "--rerun", "exit 7"});
  EXPECT_EQ(broken.code, 3);
  EXPECT_THAT(broken.err, HasSubstr("ended with code 7"));
}

TEST_F(GateCli, RunsTwoProgramsInTurns) {
  const auto one = [&](const std::string& name, double time, std::uint64_t seed) {
    write_file(scratch_ / name, google_json(kDate, {{"k/manual_time", noisy(3, time, seed), ""}}));
    return program(name + ".sh", scratch_ / name);
  };
  const std::string old = one("old.json", 100.0, 1);
  const std::string now = one("now.json", 120.0, 2);
  const Outcome outcome =
      gate({"--candidate-command", now, "--baseline-command", old, "--rounds", "8"});
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("REGRESSED  k"), HasSubstr("(measured twice)")));
  // Both sides of 8 rounds of 3; the re-run measured the same and is the same run.
  const auto list = nlohmann::json::parse(
      attn_compare({"history", "list", "--db", scratch_ / "db", "--json", "-"}).out);
  EXPECT_EQ(list.at("runs").size(), 2U);
}

TEST_F(GateCli, RefusesHalfOrders) {
  import(two_sides("run.json", 100.0, 110.0, 1));
  for (const std::vector<std::string>& args : std::vector<std::vector<std::string>>{
           {},
           {"--candidate", "latest"},
           {"--candidate-command", "true"},
           {"--candidate", "latest", "--baseline", "latest", "--candidate-command", "true"},
           {"--candidate", "latest", "--baseline", "latest", "--rerun", "true"},
           {"--candidate", "latest@a", "--baseline", "latest@b", "--instructions"},
           {"--candidate", "latest@x", "--baseline", "latest@a"},
           {"--candidate", "latest@a", "--baseline", "ffff@a"}}) {
    const Outcome outcome = gate(args);
    EXPECT_EQ(outcome.code, 2);
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  }
  EXPECT_EQ(gate({"--candidate-command", "false", "--baseline-command", "false"}).code, 3);
}

}  // namespace
}  // namespace attn::test
