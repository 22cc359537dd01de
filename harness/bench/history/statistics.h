#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace attn::history {

/// The middle value, or the mean of the two middle ones. Of no values: NaN.
double median(std::span<const double> values);

struct Summary {
  double median = 0.0;
  double mean = 0.0;
  double stddev = 0.0;  ///< of the sample: divided by n - 1; 0 for one value
  double min = 0.0;
  double max = 0.0;
};
/// Of at least one value.
Summary summarise(std::span<const double> values);

/// Two-sided p of the Mann-Whitney U test (Mann and Whitney, 1947, Annals of Mathematical
/// Statistics 18, 50-60) that both samples come from one distribution. Exact, by counting all
/// arrangements, without ties and up to kExactLimit values on each side; beyond, normal with the
/// variance corrected for ties and half a step of continuity. 1 when a side is empty or all values
/// are equal.
struct MannWhitney {
  double u = 0.0;  ///< pairs in which a's value is the larger, ties half
  double p = 1.0;
  bool is_exact = false;
};
inline constexpr std::size_t kExactLimit = 50;
MannWhitney mann_whitney(std::span<const double> a, std::span<const double> b);

/// The p-values adjusted for so many tests (Benjamini and Hochberg, 1995, JRSS B 57, 289-300): to
/// reject where the result is at most q keeps the expected fraction of false rejections at most q.
std::vector<double> benjamini_hochberg(std::span<const double> p);

struct Interval {
  double low = 0.0;
  double high = 0.0;
};
/// Percentile bootstrap (Efron, 1979, Annals of Statistics 7, 1-26) of median(b) / median(a): both
/// sides are drawn again with replacement, `resamples` times.
Interval bootstrap_median_ratio(std::span<const double> a, std::span<const double> b,
                                double confidence, std::int64_t resamples, std::uint64_t seed);

}  // namespace attn::history
