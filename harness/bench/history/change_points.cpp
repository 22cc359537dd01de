#include "harness/bench/history/change_points.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "harness/bench/history/random.h"
#include "harness/bench/history/statistics.h"

namespace attn::history {
namespace {

/// Sums of |x - y| over growing sets of numbers out of a known few: a binary indexed tree of counts
/// and sums by rank (Fenwick, 1994).
class DistanceSums {
 public:
  explicit DistanceSums(std::size_t ranks) : count_(ranks + 1), sum_(ranks + 1) {}
  void clear() {
    std::ranges::fill(count_, 0.0);
    std::ranges::fill(sum_, 0.0);
    all_count_ = all_sum_ = 0.0;
  }
  /// Adds a number and returns its distance to all that were there, summed.
  double add(std::size_t rank, double value) {
    double count = 0.0;
    double sum = 0.0;
    for (std::size_t i = rank; i > 0; i &= i - 1) {
      count += count_[i];
      sum += sum_[i];
    }
    const double distance = value * count - sum + (all_sum_ - sum) - value * (all_count_ - count);
    for (std::size_t i = rank; i < count_.size(); i += i & (~i + 1)) {
      count_[i] += 1.0;
      sum_[i] += value;
    }
    all_count_ += 1.0;
    all_sum_ += value;
    return distance;
  }

 private:
  std::vector<double> count_;
  std::vector<double> sum_;
  double all_count_ = 0.0;
  double all_sum_ = 0.0;
};

struct Split {
  std::size_t index = 0;  ///< first of the right part, within the segment
  double statistic = -1.0;
};

/// One segment: its best split, and those of its permutations, made when they are asked for.
class Segment {
 public:
  Segment(std::span<const double> points, std::size_t begin, const ChangePointOptions& options)
      : begin_(begin),
        minimum_(options.minimum_segment),
        points_(points.begin(), points.end()),
        order_(points.size()),
        sums_(points.size()),
        within_left_(points.size() + 1),
        random_(options.seed + 0x9e3779b97f4a7c15ULL * (begin + 1) + points.size()) {
    // Distances do not depend on where zero is; a middle one keeps digits.
    const double zero = median(points);
    for (double& point : points_) point -= zero;
    std::vector<std::size_t> by_value(points.size());
    std::iota(by_value.begin(), by_value.end(), std::size_t{0});
    std::ranges::sort(by_value, [&](auto i, auto j) { return points_[i] < points_[j]; });
    rank_.resize(points.size());
    for (std::size_t r = 0; r < by_value.size(); ++r) rank_[by_value[r]] = r + 1;
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    best_ = best_split();
  }

  std::size_t begin() const { return begin_; }
  std::size_t size() const { return points_.size(); }
  const Split& best() const { return best_; }

  /// The largest statistic of permutation r of the points.
  double permuted(std::size_t r) {
    while (permuted_.size() <= r) {
      for (std::size_t i = order_.size(); i > 1; --i) {
        std::swap(order_[i - 1], order_[random_.below(i)]);
      }
      permuted_.push_back(best_split().statistic);
    }
    return permuted_[r];
  }

 private:
  /// n m / (n + m) (2 / (n m) between - 1 / C(n, 2) left - 1 / C(m, 2) right), equation 5 of the
  /// paper, with the sums of distances between the parts and within them.
  static double statistic(double n, double m, double left, double right, double total) {
    const double between = total - left - right;
    const double pairs_left = n * (n - 1.0) / 2.0;
    const double pairs_right = m * (m - 1.0) / 2.0;
    const double energy = 2.0 * between / (n * m) - left / pairs_left - right / pairs_right;
    return n * m / (n + m) * energy;
  }

  Split best_split() {
    Split best;
    const std::size_t n = points_.size();
    const std::size_t least = std::max<std::size_t>(2, minimum_);
    if (n < 2 * least) return best;
    sums_.clear();
    for (std::size_t i = 0; i < n; ++i) {
      within_left_[i + 1] = within_left_[i] + sums_.add(rank_[order_[i]], points_[order_[i]]);
    }
    const double total = within_left_[n];
    sums_.clear();
    double right = 0.0;
    for (std::size_t i = n; i-- > least;) {
      right += sums_.add(rank_[order_[i]], points_[order_[i]]);
      if (n - i < least) continue;
      const double value = statistic(static_cast<double>(i), static_cast<double>(n - i),
                                     within_left_[i], right, total);
      if (value > best.statistic) best = {i, value};
    }
    return best;
  }

  std::size_t begin_;
  std::size_t minimum_;
  std::vector<double> points_;
  std::vector<std::size_t> rank_;
  std::vector<std::size_t> order_;
  DistanceSums sums_;
  std::vector<double> within_left_;
  Random random_;
  Split best_;
  std::vector<double> permuted_;
};

/// p of the best split of all segments; 1 as soon as it cannot be small enough.
double permutation_p(std::vector<Segment>& segments, double statistic,
                     const ChangePointOptions& options) {
  const auto most = static_cast<std::int64_t>(
      std::floor(options.significance * static_cast<double>(options.permutations + 1)));
  std::int64_t larger = 1;  // the series itself
  for (std::int64_t r = 0; r < options.permutations; ++r) {
    const bool exceeds = std::ranges::any_of(segments, [&](Segment& segment) {
      return segment.permuted(static_cast<std::size_t>(r)) >= statistic;
    });
    larger += exceeds ? 1 : 0;
    if (larger > most) return 1.0;
  }
  return static_cast<double>(larger) / static_cast<double>(options.permutations + 1);
}

void measure(std::span<const double> series, std::vector<ChangePoint>& points) {
  for (std::size_t i = 0; i < points.size(); ++i) {
    const std::size_t begin = i == 0 ? 0 : points[i - 1].index;
    const std::size_t end = i + 1 == points.size() ? series.size() : points[i + 1].index;
    points[i].before = median(series.subspan(begin, points[i].index - begin));
    points[i].after = median(series.subspan(points[i].index, end - points[i].index));
  }
}

/// Takes the smallest changes away, one at a time, since each joins two segments.
void drop_small(std::span<const double> series, double minimum_effect,
                std::vector<ChangePoint>& points) {
  while (!points.empty()) {
    const auto smallest = std::ranges::min_element(
        points, {}, [](const ChangePoint& point) { return std::abs(point.size()); });
    if (std::abs(smallest->size()) >= minimum_effect) return;
    points.erase(smallest);
    measure(series, points);
  }
}

}  // namespace

std::vector<ChangePoint> change_points(std::span<const double> series,
                                       const ChangePointOptions& options) {
  std::vector<ChangePoint> found;
  std::vector<Segment> segments;
  segments.emplace_back(series, 0, options);
  while (true) {
    const auto best = std::ranges::max_element(
        segments, {}, [](const Segment& segment) { return segment.best().statistic; });
    if (best->best().statistic <= 0.0) break;
    const double p = permutation_p(segments, best->best().statistic, options);
    if (p > options.significance) break;
    const std::size_t begin = best->begin();
    const std::size_t size = best->size();
    const std::size_t left = best->best().index;
    found.push_back({begin + left, 0.0, 0.0, p});
    segments.erase(best);
    segments.emplace_back(series.subspan(begin, left), begin, options);
    segments.emplace_back(series.subspan(begin + left, size - left), begin + left, options);
  }
  std::ranges::sort(found, {}, &ChangePoint::index);
  measure(series, found);
  drop_small(series, options.minimum_effect, found);
  return found;
}

}  // namespace attn::history
