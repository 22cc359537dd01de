// Layouts of cases: how they are written, and which a gate deals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "harness/generate/random_layout.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const std::string kAttentionConfig =
    R"({"variant": "attention", "entry_point": "attention", "num_attention_heads": 4,)"
    R"( "num_key_value_heads": 2, "head_dim": 16})";

std::string spec_with(const std::string& more) {
  return "{\"config\": " + kAttentionConfig + ", " + more + "}";
}

std::string refusal(const std::string& json) {
  try {
    parse_case_spec(json);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kConfig);
    return error.what();
  }
  return "accepted";
}

TEST(LayoutJson, ALayoutSurvivesTheWayThereAndBack) {
  MemoryLayout layout;
  layout.cache = CacheOrder::kHnd;
  layout.kv = KvPairing::kRowPairs;
  layout.q = QueryOrder::kFusedQkv;
  layout.out = OutputOrder::kTransposed;
  layout.broadcast = true;
  layout.gap = 3;
  layout.channel_stride = 2;
  layout.offset = 5;
  layout.row_stride = 1 << 30;
  layout.pool_offset = std::int64_t{1} << 32;
  CaseSpec spec = parse_case_spec("{\"config\": " + kAttentionConfig + "}");
  EXPECT_THAT(to_json(spec), Not(HasSubstr("layout")));
  spec.layout = layout;
  EXPECT_THAT(to_json(spec),
              HasSubstr(R"("layout":{"cache":"hnd","kv":"row_pairs","q":"fused_qkv",)"
                        R"("out":"transposed","broadcast":true,"gap":3,)"
                        R"("channel_stride":2,"offset":5,"row_stride":1073741824,)"
                        R"("pool_offset":4294967296})"));
  EXPECT_EQ(parse_case_spec(to_json(spec)), spec);
  EXPECT_EQ(make_case(spec, 1).layout, layout);
}

TEST(LayoutJson, RefusesLayoutsThatDoNotExist) {
  const std::pair<std::string, std::string> wrong[] = {
      {R"({"cache": "hdn"})", "did you mean \"hnd\""},
      {R"({"gapp": 1})", "did you mean \"gap\""},
      {R"({"gap": -1})", "gap: -1 is not in 0 to 4096"},
      {R"({"channel_stride": 0})", "channel_stride: 0 is not in 1 to 8"},
      {R"({"pool_offset": 1e9})", "not an integer"},
      {R"({"broadcast": 1})", "not true or false"},
      {R"("hnd")", "not an object"}};
  for (const auto& [layout, says] : wrong) {
    EXPECT_THAT(refusal(spec_with("\"layout\": " + layout)), HasSubstr(says)) << layout;
  }
}

/// With stride 0 in mind: every kv head is equal, every row of the mask too.
TEST(LayoutJson, ABroadcastLayoutMakesHeadsEqual) {
  const std::string json = R"({"config": {"variant": "attention", "entry_point": "attention",)"
                           R"( "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,)"
                           R"( "mask": {"variant": "tensor"}}, "rows": [[2, 5], [3, 9]],)"
                           R"( "layout": {"broadcast": true}})";
  const Case c = make_case(parse_case_spec(json), 7);
  for (std::int64_t p = 0; p < 9; ++p) {
    for (std::int64_t d = 0; d < 16; ++d) {
      const std::int64_t i = c.cache.k_index(1, p) + d;
      EXPECT_EQ(c.cache.k.code(i), c.cache.k.code(i + 16));
    }
  }
  for (std::int64_t i = 0; i < c.mask.size(); ++i) {
    EXPECT_EQ(c.mask.code(i), c.mask.code(i % c.mask.dim(1)));
  }
}

/// Every layout meets every value of every axis that the pr gate has.
TEST(DealtLayouts, MeetEveryValueOfEveryAxis) {
  const std::vector<Point> points = covering_array(CoveringOptions{});
  std::vector<PlannedCase> cases(points.size());
  const std::vector<int> given = deal_layouts(points, cases);
  const std::size_t layouts = dealt_layouts().size();
  std::map<std::pair<std::size_t, int>, std::set<int>> met;  // (axis, value): layouts
  for (std::size_t i = 0; i < points.size(); ++i) {
    for (std::size_t axis = 0; axis < points[i].size(); ++axis) {
      met[{axis, points[i][axis]}].insert(given[i]);
    }
  }
  std::size_t missing = 0;
  for (const auto& [value, dealt] : met) {
    missing += layouts - dealt.size();
    EXPECT_EQ(dealt.size(), layouts)
        << space_axes()[value.first].name << " = "
        << space_axes()[value.first].values[static_cast<std::size_t>(value.second)];
  }
  RecordProperty("missing", static_cast<int>(missing));
}

TEST(DealtLayouts, LeaveTheRestOfACaseAlone) {
  GatePlan plan;
  plan.gate = Gate::kSmoke;
  const std::vector<PlannedCase> cases = covering_cases(plan);
  std::set<std::string> seen;
  for (const PlannedCase& planned : cases) {
    EXPECT_FALSE(planned.spec.layout.broadcast);
    EXPECT_EQ(parse_case_spec(to_json(planned.spec)), planned.spec);
    const Case c = make_case(planned.spec, planned.seed);
    CaseSpec plain = planned.spec;
    plain.layout = {};
    const Case standard = make_case(plain, planned.seed);
    EXPECT_EQ(c.cache, standard.cache);
    EXPECT_EQ(c.weights, standard.weights);
    seen.insert(to_json(planned.spec).substr(to_json(plain).size() - 1));
  }
  EXPECT_GT(seen.size(), 10U);
}

}  // namespace
}  // namespace attn::harness
