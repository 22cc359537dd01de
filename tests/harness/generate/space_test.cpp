#include "harness/generate/space.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "harness/generate/space_axes.h"
#include "reference/core/rules.h"

namespace attn::harness {
namespace {

Point open_point() { return Point(space_axes().size(), -1); }

std::string words(const Point& point) {
  Coverage::Tuple tuple;
  for (std::size_t axis = 0; axis < point.size(); ++axis) {
    if (point[axis] < 0) continue;
    tuple.axes.push_back(static_cast<int>(axis));
    tuple.values.push_back(point[axis]);
  }
  return to_string(tuple);
}

/// Reading a spec is written apart from writing it, so each checks the other.
void expect_case_of(const Point& point, std::uint64_t seed) {
  const CaseSpec spec = spec_of(point, seed);
  ASSERT_NO_THROW(validate(spec)) << words(point);
  EXPECT_EQ(words(point_of(spec)), words(point)) << to_json(spec);
  EXPECT_EQ(parse_case_spec(to_json(spec)), spec);
  ASSERT_NO_THROW(attn::validate(make_case(spec, seed))) << to_json(spec);
}

TEST(Space, AxesHaveNamesOfTheirOwn) {
  std::set<std::string> names;
  for (const Axis& axis : space_axes()) {
    EXPECT_TRUE(names.insert(axis.name).second) << axis.name;
    const std::set<std::string> values(axis.values.begin(), axis.values.end());
    EXPECT_EQ(values.size(), axis.values.size()) << axis.name;
    EXPECT_GE(values.size(), 2U) << axis.name;
    EXPECT_LE(values.size(), 31U) << axis.name << ": one bit each";
  }
  EXPECT_EQ(axis_rules().size(), space_axes().size());
}

/// The issue's own list, so that an axis that loses a value is noticed.
TEST(Space, HoldsWhatMustBeTested) {
  const auto holds = [](const std::string& axis, const std::vector<std::string>& values) {
    const Axis& known = space_axes()[static_cast<std::size_t>(axis_number(axis))];
    for (const std::string& value : values) EXPECT_THAT(known.values, testing::Contains(value));
  };
  holds("group_size", {"1", "2", "3", "4", "5", "6", "7", "8", "11", "16", "24"});
  holds("head_dim", {"16", "20", "59", "72", "104", "256"});
  holds("page_size", {"1", "7", "16", "64", "128", "256"});
  holds("kv_length", {"1", "page-1", "page", "page+1", "31", "32", "33", "63", "64", "65", "127",
                      "128", "129", "long"});
  holds("batch", {"rows without queries", "one long row", "more queries than keys",
                  "rows that see nothing"});
  holds("span", {"1", "shorter", "length-1", "length", "length+1", "longer"});
  holds("cache_order", {"nhd", "hnd"});
  holds("kv_pairing", {"separate", "page_pairs", "row_pairs"});
  holds("q_order", {"dense", "fused_qkv", "transposed"});
  holds("out_order", {"dense", "transposed"});
  holds("broadcast", {"no", "yes"});
  for (const char* axis : {"row_stride", "pool_offset"}) holds(axis, {"0", "2^31", "2^32"});
  for (const char* axis : {"gap", "offset", "channel_stride"}) {
    EXPECT_EQ(space_axes()[static_cast<std::size_t>(axis_number(axis))].values.size(), 2U);
  }
  std::vector<std::string> profiles;
  for (const ProfileInfo& profile : list_profiles()) profiles.push_back(profile.name);
  holds("profile", profiles);
}

TEST(Space, EveryValueOccursInACase) {
  for (std::size_t axis = 0; axis < space_axes().size(); ++axis) {
    for (std::size_t v = 0; v < space_axes()[axis].values.size(); ++v) {
      Point point = open_point();
      point[axis] = static_cast<int>(v);
      EXPECT_TRUE(is_legal(point)) << words(point);
    }
  }
}

TEST(Space, EveryPointOfTheCoveringArrayIsACase) {
  std::uint64_t seed = 0;
  for (const Point& point : covering_array({2, 5, {}, {}})) {
    ASSERT_TRUE(is_legal(point)) << words(point);
    expect_case_of(point, ++seed);
  }
}

/// One point drawn again and again: what the axes leave open is drawn, the point stays.
TEST(Space, SeedsChangeTheCaseNotThePoint) {
  const std::vector<Point> points = covering_array({1, 2, {}, {}});
  for (const Point& point : points) {
    std::set<std::string> specs;
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
      const CaseSpec spec = spec_of(point, seed);
      ASSERT_NO_THROW(validate(spec)) << to_json(spec);
      ASSERT_EQ(words(point_of(spec)), words(point)) << to_json(spec);
      EXPECT_EQ(spec, spec_of(point, seed));
      specs.insert(to_json(spec));
    }
    EXPECT_GT(specs.size(), 1U) << words(point);
  }
}

TEST(Space, RandomCasesReachEveryValue) {
  constexpr std::int64_t kCases = 1500;
  std::vector<std::set<int>> reached(space_axes().size());
  for (std::int64_t n = 0; n < kCases; ++n) {
    const PlannedCase planned = random_case({}, n);
    const Point point = point_of(planned.spec);
    EXPECT_TRUE(std::ranges::find(point, -1) == point.end()) << to_json(planned.spec);
    EXPECT_TRUE(is_legal(point)) << to_json(planned.spec);
    for (std::size_t axis = 0; axis < point.size(); ++axis) reached[axis].insert(point[axis]);
    if (n % 10 == 0) {
      ASSERT_NO_THROW(attn::validate(make_case(planned.spec, planned.seed)));
    }
  }
  for (std::size_t axis = 0; axis < reached.size(); ++axis) {
    EXPECT_EQ(reached[axis].size(), space_axes()[axis].values.size()) << space_axes()[axis].name;
  }
}

TEST(Space, CasesFromElsewhereHaveAPoint) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const Point point = point_of(random_small_spec(seed));
    ASSERT_EQ(point.size(), space_axes().size());
    for (std::size_t axis = 0; axis < point.size(); ++axis) {
      EXPECT_GE(point[axis], -1);
      EXPECT_LT(point[axis], static_cast<int>(space_axes()[axis].values.size()));
    }
  }
  CaseSpec spec = spec_of(covering_array({1, 1, {}, {}}).front(), 1);
  spec.rows.clear();
  EXPECT_NO_THROW(point_of(spec)) << "a batch of nothing";
}

std::vector<std::string> json_of(const std::vector<PlannedCase>& cases) {
  std::vector<std::string> texts;
  for (const PlannedCase& planned : cases) {
    texts.push_back(to_json(planned.spec) + std::to_string(planned.seed));
  }
  return texts;
}

TEST(Gates, SamePlanSameCases) {
  const GatePlan plan{Gate::kSmoke, 3, std::nullopt};
  const std::vector<std::string> cases = json_of(covering_cases(plan));
  EXPECT_EQ(cases, json_of(covering_cases(plan)));
  EXPECT_NE(cases, json_of(covering_cases({Gate::kSmoke, 4, std::nullopt})));
  EXPECT_EQ(json_of({random_case(plan, 7)}), json_of({random_case(plan, 7)}));
  EXPECT_NE(json_of({random_case(plan, 7)}), json_of({random_case(plan, 8)}));
}

TEST(Gates, SmokeIsTheBeginningOfPr) {
  const std::vector<std::string> smoke = json_of(covering_cases({Gate::kSmoke, 1, std::nullopt}));
  const std::vector<std::string> pr = json_of(covering_cases({Gate::kPr, 1, std::nullopt}));
  EXPECT_LT(2 * smoke.size(), pr.size());
  EXPECT_TRUE(std::equal(smoke.begin(), smoke.end(), pr.begin()));
}

std::set<std::vector<int>> compiled_values(const std::vector<PlannedCase>& cases) {
  std::set<std::vector<int>> combinations;
  for (const PlannedCase& planned : cases) {
    const Point point = point_of(planned.spec);
    std::vector<int> values;
    for (std::size_t axis = 0; axis < point.size(); ++axis) {
      if (space_axes()[axis].compile_time) values.push_back(point[axis]);
    }
    combinations.insert(values);
  }
  return combinations;
}

/// Covering and random cases together stay within the same few combinations.
TEST(Gates, MaxCompilesBoundsTheCombinations) {
  for (const std::int64_t most : {1, 12}) {
    const GatePlan plan{Gate::kPr, 1, most};
    std::vector<PlannedCase> cases = covering_cases(plan);
    EXPECT_GT(cases.size(), 30U);
    for (std::int64_t n = 0; n < 200; ++n) cases.push_back(random_case(plan, n));
    EXPECT_EQ(std::ssize(compiled_values(cases)), most);
  }
  EXPECT_GT(compiled_values(covering_cases({})).size(), 100U) << "without a bound there are many";
}

}  // namespace
}  // namespace attn::harness
