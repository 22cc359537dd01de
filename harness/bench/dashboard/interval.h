#pragma once

#include <cstddef>
#include <vector>

namespace attn::dashboard {

struct Interval {
  double median = 0.0;
  double low = 0.0;
  double high = 0.0;
  double coverage = 0.0;  ///< probability that [low, high] holds the median that was sampled from
};

/// The rank k, from 1, for which the k-th smallest and k-th largest of n independent samples
/// enclose the median with a probability of at least `coverage`; 1 when no rank does. That
/// probability is 1 - 2 P(Binomial(n, 1/2) < k), whatever the distribution.
std::size_t median_rank(std::size_t n, double coverage);

/// Median and its interval from order statistics, 95 %; of fewer than 6 samples the whole range,
/// which covers less. Throws std::invalid_argument for no samples.
Interval median_interval(std::vector<double> samples);

}  // namespace attn::dashboard
