#include "reference/core/philox.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <set>
#include <vector>

namespace attn {
namespace {

using Block = std::array<std::uint32_t, 4>;

// The known answers published with the generator (Random123, kat_vectors, philox4x32 with 10
// rounds).
TEST(Philox, GivesThePublishedAnswers) {
  EXPECT_EQ(philox4x32_10({0, 0, 0, 0}, {0, 0}),
            (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const std::uint32_t ones = 0xffffffff;
  EXPECT_EQ(philox4x32_10({ones, ones, ones, ones}, {ones, ones}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(
      philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
      (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// Worked out once by a separate program in Python from the definitions in philox.h. They pin the
// bytes of every generated case: a change here makes all recorded seeds mean other cases.
TEST(RandomStream, GivesItsGoldenValues) {
  struct Golden {
    std::uint64_t i;
    std::uint64_t bits;
    double uniform;
    std::uint64_t below_1000;
    std::uint64_t below_large;
    double normal;
  };
  const std::uint64_t large = (std::uint64_t{1} << 63) + 5;
  const Golden golden[] = {
      {0, 0xc4b0f379e08b47d3, 0x1.8961e6f3c1168p-1, 768, 7086547866059383789, 0x1.aee0328682ee3p+0},
      {1, 0x7156f55f3fdbe6cc, 0x1.c55bd57cff6f8p-2, 442, 4083492381862523752, 0x1.2527777cce27fp+0},
      {2, 0xa70d78d16d6d78f9, 0x1.4e1af1a2dadafp-1, 652, 6018705109955296383, 0x1.aa3612349baccp-7},
      {123456789012, 0xdb7f16fde18b2ead, 0x1.b6fe2dfbc3165p-1, 857, 7908192848007501658,
       0x1.fe3c43ea4e956p+0}};
  const RandomStream random(42, "weights/q_proj");
  for (const Golden& g : golden) {
    EXPECT_EQ(random.bits(g.i), g.bits);
    EXPECT_EQ(random.uniform(g.i), g.uniform);
    EXPECT_EQ(random.below(g.i, 1000), g.below_1000);
    EXPECT_EQ(random.below(g.i, large), g.below_large);
    EXPECT_EQ(random.normal(g.i), g.normal);
  }
}

TEST(RandomStream, DrawsTheSameInBulkAndFromAnyStart) {
  const RandomStream random(5, "bulk");
  std::vector<double> all(1000);
  random.normals(0, all);
  std::vector<double> tail(300);
  random.normals(700, tail);
  for (std::size_t i = 0; i < all.size(); ++i) ASSERT_EQ(all[i], random.normal(i));
  for (std::size_t i = 0; i < tail.size(); ++i) ASSERT_EQ(tail[i], all[700 + i]);
}

TEST(RandomStream, DiffersBySeedNameAndIndex) {
  std::set<std::uint64_t> seen;
  std::size_t drawn = 0;
  for (const std::uint64_t seed : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1} << 32}) {
    for (const char* name : {"", "a", "b", "ab", "ba"}) {
      const RandomStream random(seed, name);
      for (const std::uint64_t i : {0ULL, 1ULL, 2ULL, 1ULL << 32, 1ULL << 62}) {
        seen.insert(random.bits(i));
        ++drawn;
      }
    }
  }
  EXPECT_EQ(seen.size(), drawn);
}

constexpr std::size_t kDraws = 1 << 20;
// Five standard deviations: a right generator fails once in two million seeds, and the seed is
// fixed.
constexpr double kSigmas = 5.0;

double correlation(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum / static_cast<double>(a.size());
}

// The mean of n products of independent standard normals has standard deviation 1 / sqrt(n).
TEST(RandomStream, StreamsAreIndependent) {
  std::vector<double> x(kDraws);
  std::vector<double> y(kDraws);
  std::vector<double> z(kDraws);
  std::vector<double> shifted(kDraws);
  RandomStream(1, "x").normals(0, x);
  RandomStream(1, "y").normals(0, y);
  RandomStream(2, "x").normals(0, z);
  RandomStream(1, "x").normals(1, shifted);
  const double bound = kSigmas / std::sqrt(static_cast<double>(kDraws));
  EXPECT_LT(std::fabs(correlation(x, y)), bound);
  EXPECT_LT(std::fabs(correlation(x, z)), bound);
  EXPECT_LT(std::fabs(correlation(x, shifted)), bound);
}

// Sum of 8 uniforms: mean 0, variance 1, no skew, kurtosis 3 - 6/(5*8) = 2.85. Standard deviations
// of the sample moments over n draws: 1/sqrt(n) for the mean, sqrt((2.85 - 1)/n) for the variance;
// for the third and fourth at most the normal distribution's sqrt(15/n) and sqrt((105 - 9)/n),
// whose tails are longer.
TEST(RandomStream, NormalHasItsMoments) {
  std::vector<double> x(kDraws);
  RandomStream(9, "moments").normals(0, x);
  double m1 = 0.0;
  double m2 = 0.0;
  double m3 = 0.0;
  double m4 = 0.0;
  double largest = 0.0;
  for (const double v : x) {
    m1 += v;
    m2 += v * v;
    m3 += v * v * v;
    m4 += v * v * v * v;
    largest = std::max(largest, std::fabs(v));
  }
  const auto n = static_cast<double>(kDraws);
  const double sigma = kSigmas / std::sqrt(n);
  EXPECT_LT(std::fabs(m1 / n), sigma);
  EXPECT_LT(std::fabs(m2 / n - 1.0), sigma * std::sqrt(1.85));
  EXPECT_LT(std::fabs(m3 / n), sigma * std::sqrt(15.0));
  EXPECT_LT(std::fabs(m4 / n - 2.85), sigma * std::sqrt(96.0));
  EXPECT_LT(largest, 4.9);  // 8 * 65535 / 2 divided by the standard deviation 53509.9
  EXPECT_GT(largest, 4.0);  // P(|v| > 4) is about 1.4e-5: 15 of 2^20 draws
}

// Counts in 64 bins: chi-squared with 63 degrees of freedom, standard deviation sqrt(126).
TEST(RandomStream, UniformAndBelowAreFlat) {
  const RandomStream random(13, "flat");
  std::vector<double> uniform(64, 0.0);
  std::vector<double> below(64, 0.0);
  const std::uint64_t draws = 1 << 18;
  for (std::uint64_t i = 0; i < draws; ++i) {
    const double u = random.uniform(i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    uniform[static_cast<std::size_t>(u * 64)] += 1.0;
    below[random.below(draws + i, 64)] += 1.0;
  }
  const double expected = static_cast<double>(draws) / 64;
  for (const std::vector<double>& counts : {uniform, below}) {
    double chi2 = 0.0;
    for (const double count : counts) chi2 += (count - expected) * (count - expected) / expected;
    EXPECT_LT(std::fabs(chi2 - 63.0), kSigmas * std::sqrt(126.0));
  }
  EXPECT_EQ(random.below(0, 1), 0U);
}

}  // namespace
}  // namespace attn
