// The statistics of the gate against published tables and against SciPy.
#include "harness/bench/history/statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

namespace attn::history {
namespace {

/// Samples without ties in which values of `a` are the larger in exactly u pairs.
std::pair<std::vector<double>, std::vector<double>> samples_with(std::size_t n, std::size_t m,
                                                                 std::size_t u) {
  std::vector<double> a;
  std::vector<double> b;
  for (std::size_t j = 0; j < m; ++j) b.push_back(static_cast<double>(j));
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t beats = std::min(m, u);
    u -= beats;
    a.push_back(static_cast<double>(beats) - 0.5 + 1e-3 * static_cast<double>(i));
  }
  return {a, b};
}

/// Two-sided critical values of U: the largest with p at most alpha. Mann and Whitney's
/// distribution as tabled by Milton, 1964, "An extended table of critical values for the
/// Mann-Whitney (Wilcoxon) two-sample statistic", JASA 59, 925-934.
TEST(MannWhitney, AgreesWithPublishedCriticalValues) {
  struct Row {
    std::size_t n, m;
    double alpha;
    std::size_t critical;
  };
  for (const Row& row :
       {Row{5, 5, 0.05, 2}, Row{8, 8, 0.05, 13}, Row{10, 10, 0.05, 23}, Row{15, 15, 0.05, 64},
        Row{20, 20, 0.05, 127}, Row{6, 12, 0.05, 14}, Row{8, 8, 0.01, 7}, Row{10, 10, 0.01, 16},
        Row{15, 15, 0.01, 51}, Row{20, 20, 0.01, 105}}) {
    const auto [a, b] = samples_with(row.n, row.m, row.critical);
    const auto [c, d] = samples_with(row.n, row.m, row.critical + 1);
    const MannWhitney at = mann_whitney(a, b);
    EXPECT_EQ(at.u, static_cast<double>(row.critical));
    EXPECT_TRUE(at.is_exact);
    EXPECT_LE(at.p, row.alpha) << row.n << " " << row.m;
    EXPECT_GT(mann_whitney(c, d).p, row.alpha) << row.n << " " << row.m;
    // The other side is as far out.
    EXPECT_DOUBLE_EQ(mann_whitney(b, a).p, at.p);
  }
}

TEST(MannWhitney, AgreesWithScipy) {
  std::ifstream file(std::string(ATTN_SOURCE_DIR) + "/tests/history/data/scipy_mannwhitneyu.json");
  const auto reference = nlohmann::json::parse(file);
  std::size_t exact = 0;
  for (const auto& c : reference.at("cases")) {
    const auto a = c.at("a").get<std::vector<double>>();
    const auto b = c.at("b").get<std::vector<double>>();
    const MannWhitney got = mann_whitney(a, b);
    EXPECT_EQ(got.u, c.at("u").get<double>());
    EXPECT_EQ(got.is_exact, c.at("method") == "exact");
    // erfc and SciPy's own normal tail agree to a few units of the last place.
    const double want = c.at("p");
    EXPECT_NEAR(got.p, want, 1e-12 + 1e-9 * want) << c.at("name");
    exact += got.is_exact ? 1 : 0;
  }
  EXPECT_GE(exact, 5U);
  EXPECT_GE(reference.at("cases").size(), 12U);
}

TEST(MannWhitney, SaysNothingWhereThereIsNothing) {
  const std::vector<double> same(20, 3.0);
  EXPECT_EQ(mann_whitney(same, same).p, 1.0);
  EXPECT_EQ(mann_whitney(same, {}).p, 1.0);
  EXPECT_EQ(mann_whitney({}, {}).p, 1.0);
}

/// The example of Benjamini and Hochberg, 1995, section 3.2: 15 p-values, of which the procedure
/// rejects the first four at q = 0.05 where Bonferroni's rejects three.
TEST(BenjaminiHochberg, AgreesWithItsPaper) {
  const std::vector<double> p{0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344,
                              0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000};
  const std::vector<double> q = benjamini_hochberg(p);
  EXPECT_EQ(std::ranges::count_if(q, [](double x) { return x <= 0.05; }), 4);
  EXPECT_NEAR(q[3], 0.0095 * 15 / 4, 1e-12);
  // Step-up: an earlier one is never worse than a later one.
  EXPECT_TRUE(std::ranges::is_sorted(q));
  std::vector<double> reversed(p.rbegin(), p.rend());
  const std::vector<double> same = benjamini_hochberg(reversed);
  EXPECT_TRUE(std::ranges::equal(q, std::vector<double>(same.rbegin(), same.rend())));
  EXPECT_TRUE(benjamini_hochberg({}).empty());
}

TEST(Summary, IsOfTheSample) {
  const std::vector<double> values{4.0, 1.0, 3.0, 2.0};
  const Summary s = summarise(values);
  EXPECT_EQ(s.median, 2.5);
  EXPECT_EQ(s.mean, 2.5);
  EXPECT_DOUBLE_EQ(s.stddev, std::sqrt(5.0 / 3.0));
  EXPECT_EQ(s.min, 1.0);
  EXPECT_EQ(s.max, 4.0);
  const std::vector<double> one{7.0};
  EXPECT_EQ(summarise(one).stddev, 0.0);
  EXPECT_EQ(median(one), 7.0);
  EXPECT_TRUE(std::isnan(median({})));
}

/// Of normal samples the interval of the ratio holds the true one as often as it says. 400
/// intervals of 95 %: fewer than 359 or more than 397 hits would have a probability below 1e-5 each
/// (binomial).
TEST(Bootstrap, CoversTheTrueRatio) {
  std::mt19937_64 engine(1);
  std::normal_distribution<double> normal;
  int hits = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    std::vector<double> a(25);
    std::vector<double> b(25);
    for (double& x : a) x = 100.0 + 3.0 * normal(engine);
    for (double& x : b) x = 105.0 + 3.0 * normal(engine);
    const Interval i = bootstrap_median_ratio(a, b, 0.95, 500, seed);
    hits += i.low <= 1.05 && 1.05 <= i.high ? 1 : 0;
    EXPECT_LT(i.low, i.high);
  }
  EXPECT_GE(hits, 359);
  EXPECT_LE(hits, 397);
}

TEST(Bootstrap, IsSeeded) {
  const std::vector<double> a{1.0, 1.1, 1.2, 0.9, 1.05};
  const std::vector<double> b{1.3, 1.2, 1.4, 1.25, 1.35};
  const Interval one = bootstrap_median_ratio(a, b, 0.9, 200, 5);
  EXPECT_EQ(one.low, bootstrap_median_ratio(a, b, 0.9, 200, 5).low);
  EXPECT_GT(one.low, 1.0);
}

}  // namespace
}  // namespace attn::history
