// What the gate says of samples whose difference is known.
#include "harness/bench/history/gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "harness/bench/history/import.h"
#include "reference/core/error.h"
#include "tests/history/google_json.h"
#include "tests/history/scratch.h"

namespace attn::history {
namespace {

using test::google_json;
using test::Scratch;
using test::Timed;
using ::testing::HasSubstr;

constexpr const char* kDate = "2026-01-01T00:00:00Z";

std::vector<double> noisy(std::size_t n, double center, double noise, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal(center, noise * center);
  std::vector<double> values(n);
  for (double& value : values) value = normal(engine);
  return values;
}

/// The members of context that make it another machine.
const std::string kLaptop = R"(, "gpu": "other")";

class GateTest : public testing::Test {
 protected:
  std::string import(const std::vector<Timed>& benchmarks, const std::string& context = "") {
    const std::string name = "run" + std::to_string(count_++) + ".json";
    const std::string file = scratch_.file(name, google_json(kDate, benchmarks, context));
    return import_files(scratch_ / "db", {file}, {}).at(0).sha256;
  }
  std::vector<Comparison> compare(const std::string& candidate, const std::string& baseline,
                                  const std::string& a = "", const std::string& b = "") {
    Database database(scratch_ / "db");
    return compare_runs(database, {database.find_run(candidate), a},
                        {database.find_run(baseline), b});
  }
  Comparison compare_times(const std::vector<double>& candidate,
                           const std::vector<double>& baseline,
                           const std::string& more_candidate = "", const std::string& more = "") {
    const std::string b = import({{"k | cpu/manual_time", baseline, more}});
    return compare(import({{"k | cpu/manual_time", candidate, more_candidate}}), b).at(0);
  }

  Scratch scratch_;
  int count_ = 0;
};

TEST_F(GateTest, TellsTheFourVerdictsApart) {
  const std::vector<double> base = noisy(20, 100.0, 0.01, 1);
  EXPECT_EQ(compare_times(noisy(20, 105.0, 0.01, 2), base).verdict, GateVerdict::kRegressed);
  EXPECT_EQ(compare_times(noisy(20, 95.0, 0.01, 3), base).verdict, GateVerdict::kImproved);
  EXPECT_EQ(compare_times(noisy(20, 100.0, 0.01, 4), base).verdict, GateVerdict::kSame);
  // Significant, but too small to matter.
  EXPECT_NE(compare_times(noisy(20, 101.0, 0.001, 5), noisy(20, 100.0, 0.001, 6)).verdict,
            GateVerdict::kRegressed);
  const Comparison noise = compare_times(noisy(20, 103.0, 0.3, 7), noisy(20, 100.0, 0.3, 8));
  EXPECT_EQ(noise.verdict, GateVerdict::kAmbiguous);
  EXPECT_THAT(noise.reason, HasSubstr("too noisy to say"));
  const Comparison few = compare_times(noisy(14, 150.0, 0.01, 9), base);
  EXPECT_EQ(few.verdict, GateVerdict::kAmbiguous);
  EXPECT_EQ(few.reason, "14 repetitions, 15 needed");
}

TEST_F(GateTest, ReportsRatioAndInterval) {
  const Comparison c = compare_times(noisy(40, 110.0, 0.01, 1), noisy(40, 100.0, 0.01, 2));
  EXPECT_NEAR(c.ratio, 1.10, 0.01);
  EXPECT_LT(c.low, c.ratio);
  EXPECT_GT(c.high, c.ratio);
  EXPECT_LT(c.p, 1e-10);
  EXPECT_EQ(c.p, c.q);  // one test
  EXPECT_EQ(c.baseline_samples, 40U);
}

TEST_F(GateTest, LetsInstructionsDecideWhereTimesCannot) {
  const std::string base = R"(, "instructions": 1000.0)";
  const std::vector<double> a = noisy(20, 100.0, 0.3, 1);
  const std::vector<double> b = noisy(20, 100.0, 0.3, 2);
  EXPECT_EQ(compare_times(b, a, R"(, "instructions": 1050.0)", base).verdict,
            GateVerdict::kRegressed);
  EXPECT_EQ(compare_times(b, a, R"(, "instructions": 950.0)", base).verdict,
            GateVerdict::kImproved);
  EXPECT_EQ(compare_times(b, a, R"(, "instructions": 1001.0)", base).verdict, GateVerdict::kSame);
  // Times that can tell are not overruled.
  EXPECT_EQ(compare_times(noisy(20, 90.0, 0.01, 3), noisy(20, 100.0, 0.01, 4),
                          R"(, "instructions": 1050.0)", base)
                .verdict,
            GateVerdict::kImproved);
}

TEST_F(GateTest, ComparesBackendsOfOneRun) {
  const std::string run = import({{"k | ./new.so/manual_time", noisy(20, 110.0, 0.01, 1), ""},
                                  {"k | ./old.so/manual_time", noisy(20, 100.0, 0.01, 2), ""},
                                  {"only | ./new.so/manual_time", noisy(20, 1.0, 0.01, 3), ""}});
  const std::vector<Comparison> found = compare(run, run, "./new.so", "./old.so");
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].verdict, GateVerdict::kRegressed);
  EXPECT_EQ(compare(run, run, "./old.so", "./new.so").at(0).verdict, GateVerdict::kImproved);
}

TEST_F(GateTest, AdjustsForManyBenchmarks) {
  // One p of about 0.005 is a discovery alone and none among thirty.
  std::vector<Timed> base;
  std::vector<Timed> candidate;
  for (std::uint64_t i = 0; i < 30; ++i) {
    const std::string name = "k" + std::to_string(i) + "/manual_time";
    base.push_back({name, noisy(15, 100.0, 0.04, 2 * i + 1), ""});
    candidate.push_back({name, noisy(15, 100.0, 0.04, 2 * i + 2), ""});
  }
  const std::string b = import(base);
  std::vector<Comparison> all = compare(import(candidate), b);
  double smallest = 1.0;
  for (const Comparison& c : all) {
    smallest = std::min(smallest, c.p);
    EXPECT_GE(c.q, c.p);
    EXPECT_NE(c.verdict, GateVerdict::kRegressed);
    EXPECT_NE(c.verdict, GateVerdict::kImproved);
  }
  EXPECT_LT(smallest, 0.2);
}

TEST_F(GateTest, RefusesOtherMachines) {
  const std::vector<double> times = noisy(20, 100.0, 0.01, 1);
  const std::string here = import({{"k", times, ""}});
  const std::string there = import({{"k", times, ""}}, kLaptop);
  const std::string other = import({{"not k", times, ""}});
  try {
    compare(there, here);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_THAT(error.what(), HasSubstr("of different machines"));
  }
  try {
    compare(other, here);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("no benchmark in common"));
  }
}

TEST(Confirm, KeepsOnlyWhatIsFoundAgain) {
  const auto comparison = [](std::int64_t id, GateVerdict verdict) {
    Comparison c;
    c.benchmark.id = id;
    c.verdict = verdict;
    return c;
  };
  using enum GateVerdict;
  std::vector<Comparison> first{comparison(1, kRegressed), comparison(2, kRegressed),
                                comparison(3, kImproved), comparison(4, kSame),
                                comparison(5, kRegressed)};
  confirm(first, {comparison(1, kRegressed), comparison(2, kImproved), comparison(3, kSame),
                  comparison(4, kRegressed)});
  EXPECT_EQ(first[0].verdict, kRegressed);
  EXPECT_EQ(first[1].verdict, kAmbiguous);
  EXPECT_EQ(first[2].verdict, kAmbiguous);
  EXPECT_EQ(first[3].verdict, kSame);
  EXPECT_EQ(first[4].verdict, kAmbiguous);
}

TEST(Counts, DecideWhatIsOpen) {
  Comparison c;
  c.benchmark.name = "k";
  c.benchmark.backend = "new";
  std::vector<Comparison> all{c};
  apply_counts(all, {{}, "old"}, {{"k | new", 106.0}}, {{"k | old", 100.0}}, {});
  EXPECT_EQ(all[0].verdict, GateVerdict::kRegressed);
  EXPECT_THAT(all[0].reason, HasSubstr("+6.0 % instructions"));
  all = {c};
  apply_counts(all, {{}, "old"}, {{"other | new", 106.0}}, {{"k | old", 100.0}}, {});
  EXPECT_EQ(all[0].verdict, GateVerdict::kAmbiguous);
}

}  // namespace
}  // namespace attn::history
