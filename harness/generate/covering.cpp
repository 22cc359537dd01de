#include <algorithm>
#include <bit>
#include <functional>
#include <numeric>
#include <set>
#include <tuple>

#include "harness/generate/legal_points.h"
#include "harness/generate/space.h"
#include "harness/generate/space_axes.h"

namespace attn::harness {
namespace {

/// A set of values, one bit each; a value's bit is first_[axis] + value.
using Bits = std::vector<std::uint64_t>;

constexpr std::size_t kWord = 64;

void set_bit(Bits& bits, std::size_t i) { bits[i / kWord] |= std::uint64_t{1} << (i % kWord); }
bool has_bit(const std::uint64_t* bits, std::size_t i) {
  return ((bits[i / kWord] >> (i % kWord)) & 1U) != 0;
}

/// The tuples of one to three values that are still to be covered. A tuple is kept under each order
/// of its values, as one bit in the row of all but one of them: what a value adds to a row of
/// values is then a count of common bits.
class OpenTuples {
 public:
  explicit OpenTuples(int strength) : strength_(strength) {
    for (const Axis& axis : space_axes()) {
      first_.push_back(values_);
      values_ += axis.values.size();
      for (std::size_t v = 0; v < axis.values.size(); ++v) axis_of_.push_back(first_.size() - 1);
    }
    words_ = (values_ + kWord - 1) / kWord;
    hiding_ = no_values();
    for (const auto& [axis, value] :
         {std::pair{"profile", "equal_keys"}, {"kv_length", "1"}, {"broadcast", "yes"}}) {
      const int number = axis_number(axis);
      set_bit(hiding_, bit_of(static_cast<std::size_t>(number), value_number(number, value)));
    }
    std::size_t rows = 1;
    for (int i = 1; i < strength; ++i) rows *= values_;
    open_.assign(rows * words_, 0);
    fill();
  }

  Bits no_values() const { return Bits(words_, 0); }
  std::size_t bit_of(std::size_t axis, int value) const {
    return first_[axis] + static_cast<std::size_t>(value);
  }

  /// A value that hides what the others do: the answer is a mean of values or one value, whatever
  /// scale, mask or page order. Points with one hold only the tuples that it is part of.
  bool hides(std::size_t value) const { return has_bit(hiding_.data(), value); }

  /// How many open tuples a value closes beside the values of a row so far: listed and as bits.
  std::int64_t gain(std::size_t value, const std::vector<std::size_t>& row,
                    const Bits& bits) const {
    if (strength_ == 1) return has_bit(open_.data(), value) ? 1 : 0;
    const Bits hidden = hidden_by(row, bits, value);
    if (strength_ == 2) return common(row_of(value), hides(value) ? bits : hidden);
    std::int64_t twice = 0;
    for (const std::size_t other : row) {
      const Bits& third = hides(value) || hides(other) ? bits : hidden;
      twice += common(row_of(value * values_ + other), third);
    }
    return twice / 2;
  }

  /// Closes every tuple of a point; open axes have none.
  void close(const Point& point) {
    std::vector<std::size_t> row;
    Bits bits = no_values();
    for (std::size_t axis = 0; axis < point.size(); ++axis) {
      if (point[axis] < 0) continue;
      row.push_back(bit_of(axis, point[axis]));
      set_bit(bits, row.back());
    }
    close_among(row, bits);
  }

  /// Closes what is open in the other.
  void close_all_of(const OpenTuples& other) {
    for (std::size_t i = 0; i < open_.size(); ++i) open_[i] &= ~other.open_[i];
  }

  /// The first open tuple at or after the last one returned; empty when there is none. A tuple that
  /// stays open is returned again.
  std::vector<std::size_t> next() {
    for (; cursor_ < open_.size() * kWord; ++cursor_) {
      if (open_[cursor_ / kWord] == 0) {
        cursor_ |= kWord - 1;
        continue;
      }
      if (!has_bit(open_.data(), cursor_)) continue;
      std::size_t row = cursor_ / kWord / words_;
      std::vector<std::size_t> tuple = {cursor_ % (words_ * kWord)};
      for (int i = 1; i < strength_; ++i, row /= values_) tuple.push_back(row % values_);
      std::ranges::sort(tuple);
      return tuple;
    }
    return {};
  }

  Point point_with(const std::vector<std::size_t>& tuple) const {
    Point point(first_.size(), -1);
    for (const std::size_t value : tuple) {
      point[axis_of_[value]] = static_cast<int>(value - first_[axis_of_[value]]);
    }
    return point;
  }

  /// Open tuples, each counted once.
  std::int64_t count() const {
    std::int64_t orders = 0;
    for (const std::uint64_t word : open_) orders += std::popcount(word);
    return orders / (strength_ == 3 ? 6 : strength_);
  }

 private:
  std::uint64_t* row_of(std::size_t row) { return open_.data() + row * words_; }
  const std::uint64_t* row_of(std::size_t row) const { return open_.data() + row * words_; }

  std::int64_t common(const std::uint64_t* row, const Bits& bits) const {
    std::int64_t n = 0;
    for (std::size_t w = 0; w < words_; ++w) n += std::popcount(row[w] & bits[w]);
    return n;
  }

  template <typename Change>
  void for_rows_among(const std::vector<std::size_t>& values, const Change& change) {
    if (strength_ == 1) change(row_of(0), std::vector<std::size_t>{});
    if (strength_ == 2) {
      for (const std::size_t a : values) change(row_of(a), std::vector{a});
    }
    if (strength_ < 3) return;
    for (const std::size_t a : values) {
      for (const std::size_t b : values) {
        if (axis_of_[a] != axis_of_[b]) change(row_of(a * values_ + b), std::vector{a, b});
      }
    }
  }

  /// The values that make a tuple with values that hide nothing: all, or where a value of the row
  /// (or `added`) hides something only those that do.
  Bits hidden_by(const std::vector<std::size_t>& row, Bits bits, std::size_t added) const {
    const bool some =
        hides(added) || std::ranges::any_of(row, [&](std::size_t value) { return hides(value); });
    for (std::size_t w = 0; some && w < words_; ++w) bits[w] &= hiding_[w];
    return bits;
  }

  void close_among(const std::vector<std::size_t>& values, const Bits& bits) {
    if (values.empty()) return;
    const Bits hidden = hidden_by(values, bits, values.front());
    for_rows_among(values, [&](std::uint64_t* row, const std::vector<std::size_t>& fixed) {
      const bool shown = std::ranges::any_of(fixed, [&](std::size_t v) { return hides(v); });
      const Bits& closed = shown ? bits : hidden;
      for (std::size_t w = 0; w < words_; ++w) row[w] &= ~closed[w];
    });
  }

  /// Opens every tuple of values of different axes.
  void fill() {
    std::vector<std::size_t> all(values_);
    std::iota(all.begin(), all.end(), std::size_t{0});
    for_rows_among(all, [&](std::uint64_t* row, const std::vector<std::size_t>& fixed) {
      for (const std::size_t value : all) {
        const bool apart = std::ranges::none_of(
            fixed, [&](std::size_t other) { return axis_of_[other] == axis_of_[value]; });
        if (apart) row[value / kWord] |= std::uint64_t{1} << (value % kWord);
      }
    });
  }

  int strength_;
  std::size_t values_ = 0;
  std::size_t words_ = 0;
  std::vector<std::size_t> first_;    ///< per axis: the bit of its first value
  std::vector<std::size_t> axis_of_;  ///< per bit
  Bits hiding_;
  std::vector<std::uint64_t> open_;
  std::size_t cursor_ = 0;
};

/// 0 .. n-1 in a random order.
std::vector<std::size_t> shuffled(std::size_t n, Draw& draw) {
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t i = n; i > 1; --i) {
    std::swap(order[i - 1],
              order[static_cast<std::size_t>(draw.between(0, static_cast<std::int64_t>(i) - 1))]);
  }
  return order;
}

struct Candidate {
  Point point;
  std::int64_t gain = -1;
};

/// Completes a legal partial point: axis after axis in a random order takes the value that closes
/// most open tuples and leaves a legal completion, a random one among equals.
Candidate fill_greedily(const OpenTuples& open, Point point, Draw& draw) {
  const std::span<const Axis> axes = space_axes();
  std::vector<std::size_t> row;
  Bits bits = open.no_values();
  for (std::size_t axis = 0; axis < axes.size(); ++axis) {
    if (point[axis] < 0) continue;
    row.push_back(open.bit_of(axis, point[axis]));
    set_bit(bits, row.back());
  }
  std::int64_t total = 1;
  for (const std::size_t axis : shuffled(axes.size(), draw)) {
    if (point[axis] >= 0) continue;
    struct Choice {
      bool shows;  ///< what the other values do
      std::int64_t gain;
      std::int64_t tie;
      int value;
      bool operator<(const Choice& other) const {
        return std::tie(shows, gain, tie) > std::tie(other.shows, other.gain, other.tie);
      }
    };
    std::vector<Choice> choices;
    for (int v = 0; v < static_cast<int>(axes[axis].values.size()); ++v) {
      const std::size_t bit = open.bit_of(axis, v);
      choices.push_back({!open.hides(bit), open.gain(bit, row, bits), draw.between(0, 1 << 20), v});
    }
    std::ranges::sort(choices, std::less<>());
    for (const Choice& choice : choices) {
      point[axis] = choice.value;
      if (!is_legal(point)) continue;
      total += choice.gain;
      break;
    }
    row.push_back(open.bit_of(axis, point[axis]));
    set_bit(bits, row.back());
  }
  return {std::move(point), total};
}

/// The best of several ways to complete a legal partial point.
Candidate best_completion(const OpenTuples& open, const Point& partial, int candidates,
                          Draw& draw) {
  Candidate best;
  for (int i = 0; i < candidates; ++i) {
    Candidate candidate = fill_greedily(open, partial, draw);
    if (candidate.gain > best.gain) best = std::move(candidate);
  }
  return best;
}

/// `partial` with the values of a combination of compile-time values; empty when the two differ or
/// nothing legal holds both.
Point merged(const Point& partial, const Point& compiled) {
  Point point = partial;
  for (std::size_t axis = 0; axis < point.size(); ++axis) {
    if (compiled[axis] < 0) continue;
    if (point[axis] >= 0 && point[axis] != compiled[axis]) return {};
    point[axis] = compiled[axis];
  }
  return is_legal(point) ? point : Point{};
}

/// Places of a tuple in the allowed combinations of compile-time values, at most three of them.
std::vector<Point> starts_of(const Point& tuple, std::span<const Point> compiled, Draw& draw) {
  constexpr std::size_t kMost = 3;
  std::vector<Point> starts;
  for (const std::size_t i : shuffled(compiled.size(), draw)) {
    Point start = merged(tuple, compiled[i]);
    if (!start.empty()) starts.push_back(std::move(start));
    if (starts.size() == kMost) break;
  }
  return starts;
}

}  // namespace

std::vector<Point> compile_points(std::uint64_t seed, std::int64_t most) {
  constexpr int kCandidates = 4;
  const std::span<const Axis> axes = space_axes();
  OpenTuples open(2);
  Draw draw(seed, "compile_points");
  std::set<Point> found;
  std::vector<Point> points;
  // Where every pair is covered before there are enough, random points make up the rest.
  for (int tries = 0; std::ssize(points) < most && tries < 4 * most; ++tries) {
    Point point = best_completion(open, Point(axes.size(), -1), kCandidates, draw).point;
    open.close(point);
    for (std::size_t axis = 0; axis < axes.size(); ++axis) {
      if (!axes[axis].compile_time) point[axis] = -1;
    }
    if (found.insert(point).second) points.push_back(std::move(point));
  }
  return points;
}

std::vector<Point> covering_array(const CoveringOptions& options) {
  const int candidates = options.strength == 3 ? 2 : 8;
  OpenTuples open(options.strength);
  Draw draw(options.seed, "covering");
  std::vector<Point> compiled = {Point(space_axes().size(), -1)};
  if (options.max_compiles) compiled = compile_points(options.seed, *options.max_compiles);
  std::vector<Point> array;
  for (auto tuple = open.next(); !tuple.empty(); tuple = open.next()) {
    if (options.max_rows && std::ssize(array) >= *options.max_rows) break;
    const Point seed = open.point_with(tuple);
    Candidate best;
    for (const Point& start : starts_of(seed, compiled, draw)) {
      Candidate candidate = best_completion(open, start, candidates, draw);
      if (candidate.gain > best.gain) best = std::move(candidate);
    }
    open.close(seed);  // illegal, out of the bound's reach, or in the row that comes
    if (best.point.empty()) continue;
    open.close(best.point);
    array.push_back(std::move(best.point));
  }
  return array;
}

Coverage coverage_of(std::span<const Point> points, int strength) {
  // What a covering array leaves open is illegal: quicker than judging each tuple.
  CoveringOptions options;
  options.strength = strength;
  OpenTuples illegal(strength);
  for (const Point& point : covering_array(options)) illegal.close(point);
  OpenTuples open(strength);
  for (const Point& point : points) open.close(point);
  open.close_all_of(illegal);

  Coverage coverage;
  for (auto tuple = open.next(); !tuple.empty(); tuple = open.next()) {
    const Point point = open.point_with(tuple);
    Coverage::Tuple missing;
    for (std::size_t axis = 0; axis < point.size(); ++axis) {
      if (point[axis] < 0) continue;
      missing.axes.push_back(static_cast<int>(axis));
      missing.values.push_back(point[axis]);
    }
    coverage.uncovered.push_back(std::move(missing));
    open.close(point);
  }
  coverage.legal = OpenTuples(strength).count() - illegal.count();
  coverage.covered = coverage.legal - std::ssize(coverage.uncovered);
  return coverage;
}

std::string to_string(const Coverage::Tuple& tuple) {
  std::string text;
  for (std::size_t i = 0; i < tuple.axes.size(); ++i) {
    const Axis& axis = space_axes()[static_cast<std::size_t>(tuple.axes[i])];
    if (i > 0) text += ", ";
    text += axis.name + "=" + axis.values[static_cast<std::size_t>(tuple.values[i])];
  }
  return text;
}

}  // namespace attn::harness
