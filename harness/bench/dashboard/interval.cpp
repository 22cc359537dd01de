#include "harness/bench/dashboard/interval.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace attn::dashboard {
namespace {

/// P(Binomial(n, 1/2) = i), through logarithms: 2^-n underflows.
double half_binomial(std::size_t n, std::size_t i) {
  const auto x = static_cast<double>(n);
  const auto y = static_cast<double>(i);
  return std::exp(std::lgamma(x + 1) - std::lgamma(y + 1) - std::lgamma(x - y + 1) -
                  x * std::log(2.0));
}

double coverage_of(std::size_t n, std::size_t rank) {
  double below = 0.0;
  for (std::size_t i = 0; i < rank; ++i) below += half_binomial(n, i);
  return 1.0 - 2.0 * below;
}

}  // namespace

std::size_t median_rank(std::size_t n, double coverage) {
  std::size_t rank = 1;
  double below = half_binomial(n, 0);
  while (2 * (rank + 1) <= n) {
    below += half_binomial(n, rank);
    if (1.0 - 2.0 * below < coverage) break;
    ++rank;
  }
  return rank;
}

Interval median_interval(std::vector<double> samples) {
  if (samples.empty()) throw std::invalid_argument("the median of no samples");
  std::sort(samples.begin(), samples.end());
  const std::size_t n = samples.size();
  const std::size_t rank = median_rank(n, 0.95);
  Interval interval;
  interval.median = 0.5 * (samples[(n - 1) / 2] + samples[n / 2]);
  interval.low = samples[rank - 1];
  interval.high = samples[n - rank];
  interval.coverage = n == 1 ? 0.0 : coverage_of(n, rank);
  return interval;
}

}  // namespace attn::dashboard
