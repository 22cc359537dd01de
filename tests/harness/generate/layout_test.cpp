// Layouts of cases: how they are written, and what a gate's cases have.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/generate/space.h"
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

std::vector<PlannedCase> pr_cases() { return covering_cases(GatePlan{}); }

/// The features of layouts are axes like any other: each meets every value of every axis beside
/// which it is legal (the checker of covering_test counts them), and cases have several.
TEST(GateLayouts, CasesHaveSeveralFeatures) {
  const std::vector<PlannedCase> cases = pr_cases();
  std::int64_t features = 0, equal_heads = 0;
  for (const PlannedCase& planned : cases) {
    const Point point = point_of(planned.spec);
    for (std::size_t axis = 0; axis < point.size(); ++axis) {
      if (space_axes()[axis].of_layout && point[axis] != 0) ++features;
    }
    equal_heads += planned.spec.layout.broadcast ? 1 : 0;
  }
  EXPECT_GT(features, 3 * std::ssize(cases));
  EXPECT_GT(equal_heads, 0);
  EXPECT_LT(equal_heads, std::ssize(cases) / 8) << "they hide mistakes of the kv head";
}

TEST(GateLayouts, LeaveTheValuesOfACaseAlone) {
  GatePlan plan;
  plan.gate = Gate::kSmoke;
  for (const PlannedCase& planned : covering_cases(plan)) {
    EXPECT_EQ(parse_case_spec(to_json(planned.spec)), planned.spec);
    if (planned.spec.layout.broadcast) continue;
    const Case c = make_case(planned.spec, planned.seed);
    CaseSpec plain = planned.spec;
    plain.layout = {};
    const Case standard = make_case(plain, planned.seed);
    EXPECT_EQ(c.cache, standard.cache);
    EXPECT_EQ(c.weights, standard.weights);
  }
}

/// A random case has one or two features, and few have equal heads.
TEST(GateLayouts, RandomCasesAreThin) {
  constexpr std::int64_t kCases = 300;
  std::int64_t features = 0, equal_heads = 0;
  for (std::int64_t n = 0; n < kCases; ++n) {
    const CaseSpec spec = random_case({}, n).spec;
    const Point point = point_of(spec);
    for (std::size_t axis = 0; axis < point.size(); ++axis) {
      if (space_axes()[axis].of_layout && point[axis] != 0) ++features;
    }
    equal_heads += spec.layout.broadcast ? 1 : 0;
  }
  EXPECT_GT(features, kCases);
  EXPECT_LT(features, 2 * kCases);
  EXPECT_LT(equal_heads, kCases / 20);
}

}  // namespace
}  // namespace attn::harness
