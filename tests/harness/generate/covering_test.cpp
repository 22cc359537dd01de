// Covering arrays, judged by a checker that shares no code with covering.cpp and legal_points.cpp:
// it counts the tuples of the rows for itself, holds every row to every constraint, and proves of
// each tuple that no row holds that it is forbidden, by an exhaustive search over the constraints
// themselves.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "harness/generate/space.h"
#include "harness/generate/space_constraints.h"

namespace attn::harness {
namespace {

using Constraints = std::vector<Constraint>;

Constraints all_constraints() { return {space_constraints().begin(), space_constraints().end()}; }

int size_of(int axis) {
  return static_cast<int>(space_axes()[static_cast<std::size_t>(axis)].values.size());
}

/// Whether the constraint forbids what is given; not while one of its axes is open (-1).
bool forbids(const Constraint& constraint, const Point& given) {
  std::vector<int> values;
  for (const int axis : constraint.axes) {
    values.push_back(given[static_cast<std::size_t>(axis)]);
    if (values.back() < 0) return false;
  }
  return !constraint.allows(values);
}

/// Whether some values of the open axes among `axes` break none of the constraints: tries all.
bool completes(const Constraints& constraints, const std::vector<int>& axes, Point& given) {
  const auto next = std::ranges::find_if(
      axes, [&](int axis) { return given[static_cast<std::size_t>(axis)] < 0; });
  if (next == axes.end()) return true;
  const auto axis = static_cast<std::size_t>(*next);
  for (int value = 0; value < size_of(*next); ++value) {
    given[axis] = value;
    const bool fits =
        std::ranges::none_of(constraints, [&](const Constraint& c) { return forbids(c, given); });
    if (fits && completes(constraints, axes, given)) return true;
  }
  given[axis] = -1;
  return false;
}

/// Proves that no point holds what is given: the axes of one, two or three constraints that hang
/// together, one of them on a given axis, have no values that go with it. All constraints within
/// those axes count.
bool is_impossible(const Constraints& constraints, const Point& given, std::vector<int> axes = {},
                   int more = 3) {
  if (std::ranges::any_of(constraints, [&](const Constraint& c) { return forbids(c, given); })) {
    return true;
  }
  Constraints within;
  for (const Constraint& c : constraints) {
    const bool inside = std::ranges::all_of(c.axes, [&](int axis) {
      return given[static_cast<std::size_t>(axis)] >= 0 ||
             std::ranges::find(axes, axis) != axes.end();
    });
    if (inside) within.push_back(c);
  }
  Point trial = given;
  if (!axes.empty() && !completes(within, axes, trial)) return true;
  if (more == 0) return false;
  for (const Constraint& c : constraints) {
    const bool hangs_on = std::ranges::any_of(c.axes, [&](int axis) {
      return axes.empty() ? given[static_cast<std::size_t>(axis)] >= 0
                          : std::ranges::find(axes, axis) != axes.end();
    });
    std::vector<int> wider = axes;
    for (const int axis : c.axes) {
      if (std::ranges::find(wider, axis) == wider.end()) wider.push_back(axis);
    }
    if (!hangs_on || wider.size() == axes.size()) continue;
    if (is_impossible(constraints, given, wider, more - 1)) return true;
  }
  return false;
}

std::string text(const Point& given) {
  std::string line;
  for (std::size_t axis = 0; axis < given.size(); ++axis) {
    if (given[axis] < 0) continue;
    const Axis& known = space_axes()[axis];
    line += known.name + "=" + known.values[static_cast<std::size_t>(given[axis])] + " ";
  }
  return line;
}

/// Values beside which a mistake in anything else may not show: equal keys, one key, equal heads.
bool is_hiding(std::size_t axis, int value) {
  const Axis& known = space_axes()[axis];
  const std::string& name = known.values[static_cast<std::size_t>(value)];
  return (known.name == "profile" && name == "equal_keys") ||
         (known.name == "kv_length" && name == "1") || (known.name == "broadcast" && name == "yes");
}

bool hides_something(const Point& row) {
  for (std::size_t axis = 0; axis < row.size(); ++axis) {
    if (is_hiding(axis, row[axis])) return true;
  }
  return false;
}

/// Pairs that no row holds (a row that hides something: only pairs with that) and no proof forbids,
/// and rows that break a constraint; at most `most`.
std::vector<std::string> faults_of(const std::vector<Point>& rows, const Constraints& constraints,
                                   std::size_t most = 1000) {
  std::vector<std::string> faults;
  std::set<std::vector<int>> held;  // axis, value, axis, value
  for (const Point& row : rows) {
    for (const Constraint& c : constraints) {
      if (forbids(c, row)) faults.push_back(c.why + ": broken by " + text(row));
    }
    const bool hides = hides_something(row);
    for (std::size_t a = 0; a < row.size(); ++a) {
      for (std::size_t b = a + 1; b < row.size(); ++b) {
        if (hides && !is_hiding(a, row[a]) && !is_hiding(b, row[b])) continue;
        held.insert({static_cast<int>(a), row[a], static_cast<int>(b), row[b]});
      }
    }
  }
  const auto axes = static_cast<int>(space_axes().size());
  for (int a = 0; a < axes; ++a) {
    for (int b = a + 1; b < axes; ++b) {
      for (int x = 0; x < size_of(a); ++x) {
        for (int y = 0; y < size_of(b); ++y) {
          if (held.contains({a, x, b, y})) continue;
          Point pair(space_axes().size(), -1);
          pair[static_cast<std::size_t>(a)] = x;
          pair[static_cast<std::size_t>(b)] = y;
          if (!is_impossible(constraints, pair)) faults.push_back("missing: " + text(pair));
          if (faults.size() >= most) return faults;
        }
      }
    }
  }
  return faults;
}

const std::vector<Point>& pr_array() {
  static const std::vector<Point> kArray = covering_array({});
  return kArray;
}

TEST(CoveringArray, HoldsEveryLegalPair) {
  EXPECT_THAT(faults_of(pr_array(), all_constraints()), testing::IsEmpty());
  RecordProperty("rows", static_cast<int>(pr_array().size()));
}

/// Each of the last rows was made for a pair that no other row holds.
TEST(CoveringArray, CheckerMissesNoDroppedRow) {
  for (std::size_t back = 1; back <= 11; back += 10) {
    std::vector<Point> rows = pr_array();
    rows.erase(rows.end() - static_cast<std::ptrdiff_t>(back));
    const Coverage coverage = coverage_of(rows, 2);
    EXPECT_FALSE(coverage.uncovered.empty());
    EXPECT_EQ(faults_of(rows, all_constraints()).size(), coverage.uncovered.size());
  }
}

TEST(CoveringArray, CheckerMissesNoDroppedConstraint) {
  for (const std::size_t dropped : {std::size_t{0}, std::size_t{20}}) {
    Constraints constraints = all_constraints();
    constraints.erase(constraints.begin() + static_cast<std::ptrdiff_t>(dropped));
    EXPECT_THAT(faults_of(pr_array(), constraints, 1), testing::Not(testing::IsEmpty()))
        << space_constraints()[dropped].why;
  }
}

/// The coverage report counts as the checker does.
TEST(CoverageReport, CountsLegalPairs) {
  const Coverage all = coverage_of(pr_array(), 2);
  EXPECT_EQ(all.covered, all.legal);
  EXPECT_THAT(all.uncovered, testing::IsEmpty());
  const std::vector<Point> one = {pr_array().front()};
  const auto axes = static_cast<std::int64_t>(space_axes().size());
  const Coverage little = coverage_of(one, 2);
  EXPECT_EQ(little.covered, axes * (axes - 1) / 2);
  EXPECT_EQ(little.legal, all.legal);
  EXPECT_EQ(std::ssize(little.uncovered), little.legal - little.covered);
  EXPECT_EQ(coverage_of(one, 1).covered, axes);
}

TEST(CoverageReport, CountsLegalTriples) {
  const auto axes = static_cast<std::int64_t>(space_axes().size());
  const std::vector<Point> one = {pr_array().front()};
  const Coverage little = coverage_of(one, 3);
  EXPECT_EQ(little.covered, axes * (axes - 1) * (axes - 2) / 6);
  EXPECT_EQ(std::ssize(little.uncovered), little.legal - little.covered);
}

TEST(CoverageReport, NamesTuples) {
  const Coverage::Tuple tuple{{0, 1}, {0, 1}};
  EXPECT_EQ(to_string(tuple),
            "variant=attention_with_rope, entry_point=materialize_kv_from_hidden");
}

/// Open axes of points that were read off other cases hold nothing.
TEST(CoverageReport, OpenAxesCoverNothing) {
  const std::vector<Point> open = {Point(space_axes().size(), -1)};
  EXPECT_EQ(coverage_of(open, 2).covered, 0);
}

TEST(CoveringArray, StrengthOneHoldsEveryValue) {
  const std::vector<Point> rows = covering_array({1, 1, {}, {}});
  for (std::size_t axis = 0; axis < space_axes().size(); ++axis) {
    std::set<int> values;
    for (const Point& row : rows) values.insert(row[axis]);
    EXPECT_EQ(values.size(), space_axes()[axis].values.size()) << space_axes()[axis].name;
  }
  EXPECT_LT(rows.size(), 40U);
}

}  // namespace
}  // namespace attn::harness
