// The Hopper projection (backend cuda:projection=hopper-always) against the exact reference, by
// itself and with the Hopper prefill kernel, and against the product and the pass that it takes the
// place of.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "harness/backends/execution.h"
#include "harness/compare/compare.h"
#include "harness/fuzz/case_source.h"
#include "harness/fuzz/fit.h"
#include "harness/generate/case_spec.h"
#include "harness/generate/feature_axes.h"
#include "reference/core/error.h"
#include "tests/gpu/device_cases.h"
#include "tests/gpu/device_fixture.h"
#include "tests/gpu/seeds.h"

namespace attn::harness {
namespace {

constexpr const char* kProjection = "cuda:projection=hopper-always";
constexpr const char* kBoth = "cuda:projection=hopper-always,prefill=hopper";

class HopperProjection : public OnDevice {
 protected:
  void SetUp() override {
    OnDevice::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    try {
      backend_ = make_backend(kProjection);
      both_ = make_backend(kBoth);
    } catch (const Error& error) {
      GTEST_SKIP() << "NOT TESTED: " << error.what();
    }
  }
  /// Only configs that have a projection.
  bool supports(const AttentionConfig& config) const {
    return !config.starts_at_attention() && backend_->unsupported_reason(config).empty();
  }
  /// The kernel under test alone, or with the prefill kernel where that takes the config.
  const Backend& backend_of(std::uint64_t seed, const AttentionConfig& config) const {
    return seed % 2 == 1 && both_->unsupported_reason(config).empty() ? *both_ : *backend_;
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Backend> both_;
};

/// A layer with ragged rows, one tile or several: both head sizes, columns that end within a tile,
/// depths that end within a stage or wrap the ring, bias, bound, norm, both kinds of rotation.
CaseSpec layer_case(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto draw = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  CaseSpec spec = parse_case_spec(
      R"({"config":{"hidden_size":64,"num_attention_heads":2,"num_key_value_heads":1,)"
      R"("head_dim":128,"dtype":"bfloat16","kv_cache":{"dtype":"bfloat16"}},"rows":[[0,4]]})");
  AttentionConfig& config = spec.config;
  config.entry_point =
      draw(0, 4) == 0 ? EntryPoint::kMaterializeKvFromHidden : EntryPoint::kForward;
  config.dtype = draw(0, 2) == 0 ? ElementType::kFloat16 : ElementType::kBFloat16;
  config.kv_cache.dtype = config.dtype;
  config.num_key_value_heads = draw(1, 3);
  config.num_attention_heads = config.num_key_value_heads * draw(1, 4);
  config.head_dim = config.head_dim_v = draw(0, 1) == 0 ? 64 : 128;
  config.hidden_size = 8 * draw(1, 60);
  config.kv_cache.page_size = std::array<std::int64_t, 5>{8, 16, 64, 128, 7}.at(seed % 5);
  config.has_bias = draw(0, 1) == 0;
  config.use_qk_norm = draw(0, 1) == 0;
  if (draw(0, 3) == 0) config.clip_activations = seed % 4 == 0 ? 0.0 : 0.5;
  config.rope.interleaved = draw(0, 1) == 0;
  if (config.rope.interleaved && draw(0, 1) == 0) {
    config.rope.rotary_dim = 2 * draw(1, config.head_dim / 2);
    if (draw(0, 1) == 0) config.rope.rotary_side = RotarySide::kLast;
  }
  spec.rows.clear();
  const std::int64_t sequences = draw(1, 4);
  for (std::int64_t b = 0; b < sequences; ++b) {
    const std::int64_t rows = b > 0 && draw(0, 3) == 0 ? 0 : draw(1, 150);
    spec.rows.push_back({draw(0, 1) == 0 ? 0 : draw(0, 200), rows});
  }
  settle(spec);
  validate(spec);
  return spec;
}

// Needs no device: the cases of these tests exist.
TEST(HopperProjectionCases, AreValid) {
  std::int64_t halves = 0;
  std::int64_t several_tiles = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const CaseSpec spec = layer_case(seed);
    EXPECT_EQ(spec.config.head_dim % 64, 0);
    halves += spec.config.rope.interleaved ? 0 : 1;
    if (seed % 20 != 0) continue;
    several_tiles += make_case(spec, seed).tokens() > 128 ? 1 : 0;
  }
  EXPECT_GT(halves, 50);
  EXPECT_GT(several_tiles, 2);
}

TEST_F(HopperProjection, PassesOneTileOfTheShapeThatItIsMadeFor) {
  CaseSpec spec = parse_case_spec(
      R"({"config":{"hidden_size":256,"num_attention_heads":2,"num_key_value_heads":1,)"
      R"("head_dim":128,"dtype":"bfloat16","rope":{"interleaved":false},)"
      R"("kv_cache":{"page_size":64,"dtype":"bfloat16"}},"rows":[[0,128]]})");
  EXPECT_EQ(run_case(*backend_, spec, 0, ExecMode::kPlain), "");
  spec.config.hidden_size = 1024;  // more steps than stages
  EXPECT_EQ(run_case(*backend_, spec, 0, ExecMode::kPlain), "");
  spec.rows = {{100, 300}, {0, 77}};
  EXPECT_EQ(run_case(*backend_, spec, 0, ExecMode::kPlain), "");
  EXPECT_EQ(run_case(*both_, spec, 0, ExecMode::kPlain), "");
}

TEST_F(HopperProjection, PassesLayersInEveryMode) {
  expect_none(for_each_seed(0, device_case_count(), [&](std::uint64_t seed) -> std::string {
    const CaseSpec spec = layer_case(seed);
    if (!supports(spec.config)) return "refused: " + backend_->unsupported_reason(spec.config);
    return run_case(backend_of(seed / 7, spec.config), spec, seed, mode_in_turn(seed));
  }));
}

/// More tiles than multiprocessors: blocks come to their second and third.
TEST_F(HopperProjection, PassesMoreTilesThanBlocks) {
  const CaseSpec spec = parse_case_spec(
      R"({"config":{"entry_point":"materialize_kv_from_hidden","hidden_size":320,)"
      R"("num_attention_heads":12,"num_key_value_heads":12,"head_dim":128,"dtype":"bfloat16",)"
      R"("use_qk_norm":true,"kv_cache":{"page_size":64,"dtype":"bfloat16"}},)"
      R"("rows":[[0,1900],[40,1300]]})");
  EXPECT_EQ(run_case(*backend_, spec, 0, ExecMode::kPlain), "");
}

TEST_F(HopperProjection, PassesASmallCoveringSet) {
  const auto takes = [&](const AttentionConfig& config) { return supports(config); };
  EXPECT_GT(run_covering_set(*backend_, 60, takes, true), 15U);
}

TEST_F(HopperProjection, PassesRandomCases) {
  std::atomic<std::uint64_t> judged{0};
  expect_none(for_each_seed(0, device_case_count(), [&](std::uint64_t seed) -> std::string {
    const CaseSpec wild = random_small_spec(seed);
    if (wild.config.starts_at_attention()) return "";
    const auto spec = fitted(wild, [&](const auto& c) { return supports(c); });
    if (!spec) return "";
    ++judged;
    return run_case(backend_of(seed / 7, spec->config), *spec, seed, mode_in_turn(seed));
  }));
  EXPECT_GT(judged.load(), device_case_count() / 4);
}

TEST_F(HopperProjection, AgreesWithTheSeparatePass) {
  expect_alike(*backend_, *make_backend("cuda:projection=separate"), layer_case);
}

TEST_F(HopperProjection, RefusesWhatItIsNotMadeForByName) {
  AttentionConfig config = layer_case(1).config;
  config.head_dim = config.head_dim_v = 96;
  EXPECT_EQ(backend_->unsupported_reason(config),
            "projection=hopper: head_dim 96 is neither 64 nor 128");
}

}  // namespace
}  // namespace attn::harness
