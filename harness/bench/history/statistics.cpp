#include "harness/bench/history/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "harness/bench/history/random.h"

namespace attn::history {
namespace {

double median_in_place(std::vector<double>& values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return 0.5 * (*std::max_element(values.begin(), middle) + *middle);
}

/// The probability, under the null hypothesis and without ties, that U of samples of n and m values
/// is at most u. By the largest value of all: with probability n / (n + m) it is of the first
/// sample and larger than the m of the other, which leaves samples of n - 1 and m values with U -
/// m; else n and m - 1 with the same U. Probabilities instead of numbers of arrangements never
/// overflow.
double probability_at_most(std::size_t n, std::size_t m, std::size_t u) {
  // point[j][k]: probability that U is k, for i and j values.
  std::vector<std::vector<double>> point(m + 1, std::vector<double>(u + 1, 0.0));
  for (std::vector<double>& of_none : point) of_none[0] = 1.0;
  for (std::size_t i = 1; i <= n; ++i) {
    // point[0] stays: without values in the other sample U is 0.
    for (std::size_t j = 1; j <= m; ++j) {
      const double first = static_cast<double>(i) / static_cast<double>(i + j);
      for (std::size_t k = u + 1; k-- > 0;) {
        const double largest_is_first = k >= j ? point[j][k - j] : 0.0;
        point[j][k] = first * largest_is_first + (1.0 - first) * point[j - 1][k];
      }
    }
  }
  return std::accumulate(point[m].begin(), point[m].end(), 0.0);
}

struct Ranked {
  double rank_sum = 0.0;  ///< of the first sample, ranks from 1, ties sharing theirs
  double tie_term = 0.0;  ///< sum of t^3 - t over groups of equal values
};

Ranked rank(std::span<const double> a, std::span<const double> b) {
  std::vector<std::pair<double, bool>> all;
  all.reserve(a.size() + b.size());
  for (const double value : a) all.emplace_back(value, true);
  for (const double value : b) all.emplace_back(value, false);
  std::ranges::sort(all);
  Ranked ranked;
  for (std::size_t begin = 0; begin < all.size();) {
    std::size_t end = begin;
    std::size_t of_a = 0;
    for (; end < all.size() && all[end].first == all[begin].first; ++end) {
      of_a += all[end].second ? 1 : 0;
    }
    const auto ties = static_cast<double>(end - begin);
    const double shared = 0.5 * static_cast<double>(begin + 1 + end);
    ranked.rank_sum += shared * static_cast<double>(of_a);
    ranked.tie_term += ties * ties * ties - ties;
    begin = end;
  }
  return ranked;
}

}  // namespace

double median(std::span<const double> values) {
  std::vector<double> copy(values.begin(), values.end());
  return median_in_place(copy);
}

Summary summarise(std::span<const double> values) {
  const auto n = static_cast<double>(values.size());
  Summary s;
  s.median = median(values);
  s.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0.0;
  for (const double value : values) squares += (value - s.mean) * (value - s.mean);
  s.stddev = values.size() > 1 ? std::sqrt(squares / (n - 1.0)) : 0.0;
  const auto [min, max] = std::ranges::minmax_element(values);
  s.min = *min;
  s.max = *max;
  return s;
}

MannWhitney mann_whitney(std::span<const double> a, std::span<const double> b) {
  MannWhitney result;
  const std::size_t n = a.size();
  const std::size_t m = b.size();
  if (n == 0 || m == 0) return result;
  const Ranked ranked = rank(a, b);
  const auto nd = static_cast<double>(n);
  const auto md = static_cast<double>(m);
  result.u = ranked.rank_sum - nd * (nd + 1.0) / 2.0;
  const double mean = nd * md / 2.0;
  const double smaller = std::min(result.u, nd * md - result.u);
  if (ranked.tie_term == 0.0 && n <= kExactLimit && m <= kExactLimit) {
    result.is_exact = true;
    result.p = std::min(1.0, 2.0 * probability_at_most(n, m, static_cast<std::size_t>(smaller)));
    return result;
  }
  const double total = nd + md;
  const double variance =
      nd * md / 12.0 * (total + 1.0 - ranked.tie_term / (total * (total - 1.0)));
  if (variance <= 0.0) return result;
  const double z = std::max(0.0, mean - smaller - 0.5) / std::sqrt(variance);
  result.p = std::min(1.0, std::erfc(z / std::sqrt(2.0)));
  return result;
}

std::vector<double> benjamini_hochberg(std::span<const double> p) {
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, [&](std::size_t i, std::size_t j) { return p[i] < p[j]; });
  std::vector<double> adjusted(p.size());
  double smallest = 1.0;
  for (std::size_t rank = p.size(); rank-- > 0;) {
    const double raised =
        p[order[rank]] * static_cast<double>(p.size()) / static_cast<double>(rank + 1);
    smallest = std::min(smallest, raised);
    adjusted[order[rank]] = smallest;
  }
  return adjusted;
}

Interval bootstrap_median_ratio(std::span<const double> a, std::span<const double> b,
                                double confidence, std::int64_t resamples, std::uint64_t seed) {
  Random random(seed);
  std::vector<double> ratios;
  ratios.reserve(static_cast<std::size_t>(resamples));
  std::vector<double> drawn_a(a.size());
  std::vector<double> drawn_b(b.size());
  for (std::int64_t i = 0; i < resamples; ++i) {
    for (double& value : drawn_a) value = a[random.below(a.size())];
    for (double& value : drawn_b) value = b[random.below(b.size())];
    ratios.push_back(median_in_place(drawn_b) / median_in_place(drawn_a));
  }
  std::ranges::sort(ratios);
  const double tail = (1.0 - confidence) / 2.0;
  const auto at = [&](double quantile) {
    const double place = quantile * static_cast<double>(ratios.size() - 1);
    return ratios[static_cast<std::size_t>(std::lround(place))];
  };
  return {at(tail), at(1.0 - tail)};
}

}  // namespace attn::history
