#include "reference/core/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "reference/core/error.h"
#include "tests/core/case_fixture.h"

namespace attn {
namespace {

using testing::ElementsAre;

std::vector<std::string> names(const AttentionConfig& config) {
  std::vector<std::string> list;
  for (const Stage stage : stages_of(config)) list.emplace_back(name_of(stage));
  return list;
}

TEST(Stages, FollowTheEntryPoint) {
  AttentionConfig config = test::layer_config();
  EXPECT_THAT(names(config), ElementsAre("freqs_cis", "q_proj", "k_proj", "v_proj", "q_rope",
                                         "k_rope", "cache_k", "cache_v", "lse", "attn_out", "out"));
  config.use_qk_norm = true;
  EXPECT_THAT(names(config),
              ElementsAre("freqs_cis", "q_proj", "k_proj", "v_proj", "q_norm", "k_norm", "q_rope",
                          "k_rope", "cache_k", "cache_v", "lse", "attn_out", "out"));
  config.entry_point = EntryPoint::kMaterializeKvFromHidden;
  EXPECT_THAT(names(config), ElementsAre("freqs_cis", "k_proj", "v_proj", "k_norm", "k_rope",
                                         "cache_k", "cache_v"));
  EXPECT_THAT(names(test::attention_config()), ElementsAre("lse", "attn_out"));
}

TEST(Stages, AreFoundByName) {
  EXPECT_EQ(all_stages().size(), kNumStages);
  for (const Stage stage : all_stages()) EXPECT_EQ(parse_stage(name_of(stage)), stage);
  try {
    parse_stage("q_rop");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("did you mean \"q_rope\"?"));
  }
}

TEST(Stages, HaveTheShapesOfTheFormat) {
  const Case layer = test::make_case(test::layer_config());
  EXPECT_EQ(stage_shape(layer, Stage::kFreqsCis), (Shape{21, 16}));
  EXPECT_EQ(stage_shape(layer, Stage::kQProj), (Shape{4, 64}));
  EXPECT_EQ(stage_shape(layer, Stage::kKRope), (Shape{4, 32}));
  EXPECT_EQ(stage_shape(layer, Stage::kCacheK), (Shape{29, 2, 16}));
  EXPECT_EQ(stage_shape(layer, Stage::kLse), (Shape{4, 4}));
  EXPECT_EQ(stage_shape(layer, Stage::kOut), (Shape{4, 64}));
  AttentionConfig config = test::attention_config();
  config.head_dim_v = 8;
  const Case attention = test::make_case(config);
  EXPECT_EQ(stage_shape(attention, Stage::kCacheV), (Shape{29, 2, 8}));
  EXPECT_EQ(stage_shape(attention, Stage::kAttnOut), (Shape{4, 32}));
}

TEST(Case, CountsRowsAndKeys) {
  const Case layer = test::make_case(test::layer_config());
  EXPECT_EQ(layer.batch(), 2);
  EXPECT_EQ(layer.tokens(), 4);
  EXPECT_EQ(layer.row_begin(1), 3);
  EXPECT_EQ(layer.row_count(0), 3);
  EXPECT_EQ(layer.key_count(0), 8);
  EXPECT_EQ(layer.total_keys(), 29);
  EXPECT_EQ(layer.query_position(0, 0), 5);
  EXPECT_EQ(layer.query_position(1, 0), 20);
}

TEST(Case, AlignsQueries) {
  Case attention = test::make_case(test::attention_config());
  EXPECT_EQ(attention.key_count(0), 8);
  EXPECT_EQ(attention.query_position(0, 0), 5);
  attention.config.mask.align = MaskAlign::kTopLeft;
  EXPECT_EQ(attention.query_position(0, 0), 0);
  attention.config.mask.align = MaskAlign::kBottomRight;
  attention.cache_lengths = test::index_tensor({1, 21});
  EXPECT_EQ(attention.query_position(0, 0), -2);  // more queries than keys
}

TEST(Trace, HoldsAnySubset) {
  Trace trace;
  EXPECT_FALSE(trace.has(Stage::kOut));
  trace[Stage::kOut] = Tensor(ElementType::kFloat64, {1, 2});
  EXPECT_TRUE(trace.has(Stage::kOut));
}

}  // namespace
}  // namespace attn
