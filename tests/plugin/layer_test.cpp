// Plug-ins that are a whole layer, or one step of it fed with the reference's results.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "golden/golden_file.h"
#include "harness/backends/attn_plugin.h"
#include "harness/compare/compare.h"
#include "reference/core/paging.h"
#include "reference/reference.h"
#include "tests/plugin/plugin_runner.h"

namespace attn::test {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr unsigned kProjected =
    1U << ATTN_STAGE_Q_PROJ | 1U << ATTN_STAGE_K_PROJ | 1U << ATTN_STAGE_V_PROJ;
constexpr unsigned kNormed = 1U << ATTN_STAGE_Q_NORM | 1U << ATTN_STAGE_K_NORM;
constexpr unsigned kRotated = 1U << ATTN_STAGE_Q_ROPE | 1U << ATTN_STAGE_K_ROPE;
constexpr unsigned kCached = 1U << ATTN_STAGE_CACHE_K | 1U << ATTN_STAGE_CACHE_V;
constexpr unsigned kAttended = 1U << ATTN_STAGE_LSE | 1U << ATTN_STAGE_ATTN_OUT;
constexpr unsigned kOut = 1U << ATTN_STAGE_OUT;
constexpr unsigned kEverything = kProjected | kNormed | kRotated | kCached | kAttended | kOut;

/// The layer plug-in that begins at `step`, writes `stages` and may have a mistake in one.
std::string layer(int step, unsigned stages, int mistake = -1) {
  char options[64];
  std::snprintf(options, sizeof(options), "%d-%x-%d", step, stages, mistake);
  return plugin("layer", options);
}

struct Part {
  std::string name;
  int step;
  unsigned stages;
  std::string file;
  std::string judged;  ///< the stages of the verbose line, in order
  int mistake;         ///< a stage of it
  std::string first_bad;
};

void PrintTo(const Part& part, std::ostream* out) { *out << part.name; }

class PluginLayer : public testing::TestWithParam<Part> {};

TEST_P(PluginLayer, IsJudgedOnWhatItWritesAndNothingElse) {
  const Part& part = GetParam();
  const Outcome good = verify_on(layer(part.step, part.stages), {part.file}, {"-v"});
  EXPECT_EQ(good.code, 0) << good.out << good.err;
  EXPECT_THAT(unwrapped(good.out), ContainsRegex(part.judged));
  for (const std::vector<std::string>& taps : {std::vector<std::string>{}, {"--no-taps"}}) {
    const Outcome bad = verify_on(layer(part.step, part.stages, part.mistake), {part.file}, taps);
    EXPECT_EQ(bad.code, 1) << bad.out << bad.err;
    EXPECT_THAT(bad.out, HasSubstr("first bad stage  " + part.first_bad));
  }
}

/// attn_config has 0 for no bound: a bound of 0 cannot be told to who projects, nor matters to
/// others.
TEST(PluginLayerBound, OfZeroIsRefusedWhereItIsToBeHeld) {
  const char* const config =
      R"({"config":{"hidden_size":32,"num_attention_heads":2,"num_key_value_heads":1,"head_dim":16,)"
      R"("clip_activations":0.0,"dtype":"float32"},"rows":[[3,5],[0,4]]})";
  const auto run = [&](const std::string& backend) {
    return attn_compare({"run", "--config", config, "--seed", "1", "--backend", backend});
  };
  const Outcome whole = run(layer(ATTN_FROM_INPUTS, kEverything));
  EXPECT_EQ(whole.code, 1) << whole.out;
  EXPECT_THAT(whole.out, HasSubstr("clip_activations is 0, which"));
  const Outcome behind = run(layer(ATTN_FROM_NORM, kCached | kOut));
  EXPECT_EQ(behind.code, 0) << behind.out << behind.err;
}

constexpr char kFigure[] = " [0-9.<]+";

std::string figures(const std::vector<std::string>& stages) {
  std::string text;
  for (const std::string& stage : stages) text += (text.empty() ? " " : ", ") + stage + kFigure;
  return text + " ";
}

INSTANTIATE_TEST_SUITE_P(
    All, PluginLayer,
    testing::Values(Part{"Whole", ATTN_FROM_INPUTS, kEverything, "rope-llama3",
                         figures({"q_proj", "k_proj", "v_proj", "q_rope", "k_rope", "cache_k",
                                  "cache_v", "lse", "attn_out", "out"}),
                         ATTN_STAGE_K_PROJ, "k_proj"},
                    Part{"Partial", ATTN_FROM_INPUTS, kEverything, "rope-partial-last",
                         " out" + std::string(kFigure), ATTN_STAGE_CACHE_K, "cache_k"},
                    Part{"Bias", ATTN_FROM_INPUTS, kEverything, "qkv-bias",
                         " out" + std::string(kFigure), ATTN_STAGE_OUT, "out"},
                    Part{"Stacked", ATTN_FROM_INPUTS, kEverything, "stacked-qkv",
                         " out" + std::string(kFigure), ATTN_STAGE_V_PROJ, "v_proj"},
                    Part{"Projection", ATTN_FROM_INPUTS, kProjected, "rope-llama3",
                         figures({"q_proj", "k_proj", "v_proj"}), ATTN_STAGE_Q_PROJ, "q_proj"},
                    Part{"Rope", ATTN_FROM_ROPE, kRotated, "rope-interleaved",
                         figures({"q_rope", "k_rope"}), ATTN_STAGE_Q_ROPE, "q_rope"},
                    Part{"Cache", ATTN_FROM_CACHE, kCached, "gqa-odd-group",
                         figures({"cache_k", "cache_v"}), ATTN_STAGE_CACHE_K, "cache_k"},
                    Part{"RopeToAttention", ATTN_FROM_ROPE, kRotated | kCached | kAttended,
                         "zero-length-row",
                         figures({"q_rope", "k_rope", "cache_k", "cache_v", "lse", "attn_out"}),
                         ATTN_STAGE_ATTN_OUT, "attn_out"},
                    Part{"Attention", ATTN_FROM_ATTENTION, kAttended, "rope-yarn",
                         figures({"lse", "attn_out"}), ATTN_STAGE_ATTN_OUT, "attn_out"},
                    Part{"OutputOnly", ATTN_FROM_ATTENTION, 1U << ATTN_STAGE_ATTN_OUT,
                         "mha-causal-f32", figures({"attn_out"}), ATTN_STAGE_ATTN_OUT, "attn_out"},
                    Part{"Projected", ATTN_FROM_OUTPUT, kOut, "rope-linear", figures({"out"}),
                         ATTN_STAGE_OUT, "out"},
                    Part{"Core", ATTN_FROM_ATTENTION, kAttended, "core-zero-keys",
                         figures({"lse", "attn_out"}), ATTN_STAGE_ATTN_OUT, "attn_out"}),
    [](const auto& test) { return test.param.name; });

TEST(PluginLayers, EveryFileThatTheWholeLayerSupportsPasses) {
  const Outcome outcome = attn_compare({"verify", "data/golden", "--allow-unsupported", "--backend",
                                        layer(ATTN_FROM_INPUTS, kEverything)});
  EXPECT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_THAT(last_line(outcome.out), ContainsRegex("^[12][0-9] passed, 0 failed"));
}

/// Fused kernels that show nothing but their result.
TEST(PluginLayers, AFusedLayerIsJudgedByItsResult) {
  const std::string fused = layer(ATTN_FROM_INPUTS, kOut | kCached);
  EXPECT_EQ(verify_on(fused, {"rope-llama3"}).code, 0);
  const Outcome bad =
      verify_on(layer(ATTN_FROM_INPUTS, kOut | kCached, ATTN_STAGE_CACHE_K), {"rope-llama3"});
  EXPECT_EQ(bad.code, 1);
  EXPECT_THAT(bad.out, HasSubstr("first bad stage  cache_k"));
}

TEST(PluginLayers, WhatCannotBeIsSaid) {
  const Outcome core = verify_on(layer(ATTN_FROM_INPUTS, kEverything), {"core-zero-keys"});
  EXPECT_THAT(unwrapped(core.out),
              HasSubstr("unsupported: the plug-in starts at the inputs, the case at attention"));
  const Outcome order = verify_on(layer(ATTN_FROM_OUTPUT, kEverything), {"rope-llama3"});
  EXPECT_THAT(unwrapped(order.out),
              HasSubstr("declares stage q_proj, which comes before its first_step"));
  const Outcome step = verify_on(layer(9, kEverything), {"rope-llama3"});
  EXPECT_THAT(unwrapped(step.out), HasSubstr("declares first_step 9; use one of ATTN_FROM_..."));
  const Outcome stages = verify_on(layer(ATTN_FROM_INPUTS, 0), {"rope-llama3"});
  EXPECT_THAT(unwrapped(stages.out), HasSubstr("declares stages 0; use a sum of"));
  const Outcome nothing = verify_on(layer(ATTN_FROM_OUTPUT, kOut), {"mha-causal-f32"});
  EXPECT_EQ(nothing.code, 0) << nothing.out;
}

/// The layer's case as its attention kernel sees it, with these queries.
Case attention_of(const Case& layer, const Tensor& q, const KvCache& cache) {
  Case c;
  c.config = layer.config;
  c.config.entry_point = EntryPoint::kAttention;
  c.config.variant = Variant::kAttention;
  c.q = q;
  c.input_row_offsets = layer.input_row_offsets;
  c.cache_lengths = Tensor(ElementType::kUInt32, {layer.batch()});
  for (std::int64_t b = 0; b < layer.batch(); ++b) {
    c.cache_lengths.set_code(b, static_cast<std::uint64_t>(layer.key_count(b)));
  }
  c.cache = cache;
  return c;
}

/// Queries that are nowhere near the layer's own: what follows is judged on them all the same, with
/// and without taps, and they are not judged.
TEST(GivenStages, AreTakenAsTheyAre) {
  const Case layer = golden::to_case(golden::read(golden("rope-llama3")), PagingOptions{.seed = 1});
  const Trace exact = reference::evaluate(layer, reference::Mode::kExact);
  Tensor q(ElementType::kFloat32,
           {layer.tokens(), layer.config.num_attention_heads, layer.config.head_dim});
  for (std::int64_t i = 0; i < q.size(); ++i) q.set_value(i, exact[Stage::kQRope].value(i) * 1.5);
  Trace got = reference::evaluate(attention_of(layer, q, *exact.cache), reference::Mode::kExact);
  got.cache.reset();
  got[Stage::kQRope] = Tensor(ElementType::kFloat32, {layer.tokens(), layer.config.q_width()});
  std::ranges::copy(q.bytes(), got[Stage::kQRope].data());
  got[Stage::kCacheK] = exact[Stage::kCacheK];
  got[Stage::kCacheV] = exact[Stage::kCacheV];
  for (const bool taps : {true, false}) {
    harness::CompareOptions options;
    options.taps = taps;
    const harness::Verdict judged = harness::compare(layer, got, {}, options);
    EXPECT_EQ(judged.first_bad, Stage::kQRope);
    Trace fed = got;
    for (const Stage stage : {Stage::kQRope, Stage::kCacheK, Stage::kCacheV}) fed.give(stage);
    const harness::Verdict verdict = harness::compare(layer, fed, {}, options);
    EXPECT_EQ(verdict.status, harness::Status::kPassed) << verdict.detail;
    ASSERT_EQ(verdict.stages.size(), 2U);
    EXPECT_EQ(verdict.stages[0].stage, Stage::kLse);
    EXPECT_EQ(verdict.stages[1].stage, Stage::kAttnOut);
    fed[Stage::kAttnOut].set_value(0, fed[Stage::kAttnOut].value(0) + 0.01);
    EXPECT_EQ(harness::compare(layer, fed, {}, options).first_bad, Stage::kAttnOut);
  }
}

}  // namespace
}  // namespace attn::test
