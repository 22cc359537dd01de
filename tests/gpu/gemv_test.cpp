// The kernel for few rows (backends cuda:gemv=1, cuda:gemv=ahead) against the exact reference, and
// against the products and the pass that it takes the place of.
#include <array>
#include <cstdint>
#include <memory>
#include <random>
#include <string>

#include "harness/backends/execution.h"
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

class Gemv : public OnDevice {
 protected:
  void SetUp() override {
    OnDevice::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    backend_ = make_backend("cuda:gemv=1");
    ahead_ = make_backend("cuda:gemv=ahead");
  }
  const Backend& backend_of(std::uint64_t seed) const {
    return seed / 7 % 2 == 0 ? *backend_ : *ahead_;
  }
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Backend> ahead_;
};

/// A layer with at most eight rows: both head sizes and some that only the output's product is for,
/// depths that end within a line or a round, bias, bound, norm, both kinds of rotation.
CaseSpec few_rows(std::uint64_t seed) {
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
  config.head_dim = config.head_dim_v =
      std::array<std::int64_t, 5>{64, 128, 64, 128, 96}.at(static_cast<std::size_t>(draw(0, 4)));
  config.hidden_size = 8 * draw(1, 300);
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
  std::int64_t rows = draw(1, 8);
  for (std::int64_t left = draw(0, 4); left >= 0; --left) {
    const std::int64_t mine = left == 0 ? rows : draw(0, rows);
    rows -= mine;
    spec.rows.push_back({draw(0, 1) == 0 ? 0 : draw(0, 300), mine});
  }
  settle(spec);
  validate(spec);
  return spec;
}

// Needs no device: the cases of these tests exist.
TEST(GemvCases, AreValid) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const CaseSpec spec = few_rows(seed);
    std::int64_t rows = 0;
    for (const RowSpec& row : spec.rows) rows += row.second;
    EXPECT_LE(rows, 8);
    EXPECT_GT(rows, 0);
  }
}

TEST_F(Gemv, PassesOneRowOfTheShapeThatItIsMadeFor) {
  CaseSpec spec = parse_case_spec(
      R"({"config":{"hidden_size":1024,"num_attention_heads":8,"num_key_value_heads":2,)"
      R"("head_dim":128,"dtype":"bfloat16","rope":{"interleaved":false},)"
      R"("kv_cache":{"page_size":64,"dtype":"bfloat16"}},"rows":[[700,1]]})");
  EXPECT_EQ(run_case(*backend_, spec, 0, ExecMode::kPlain), "");
  spec.config.use_qk_norm = true;  // in clusters
  EXPECT_EQ(run_case(*backend_, spec, 0, ExecMode::kPlain), "");
  EXPECT_EQ(run_case(*ahead_, spec, 0, ExecMode::kGraphReplay), "");
}

TEST_F(Gemv, PassesLayersInEveryMode) {
  expect_none(for_each_seed(0, device_case_count(), [&](std::uint64_t seed) -> std::string {
    return run_case(backend_of(seed), few_rows(seed), seed, mode_in_turn(seed));
  }));
}

// Attention may read old keys while q, k and v are made, and must not take the new ones for old:
// here it is there long before them. Which keys are new depends on the lengths, where they lie in a
// block on the number of them.
TEST_F(Gemv, AttentionWaitsForWhatIsMadeAhead) {
  CaseSpec spec = parse_case_spec(
      R"({"config":{"hidden_size":4096,"num_attention_heads":4,"num_key_value_heads":2,)"
      R"("head_dim":128,"dtype":"bfloat16","rope":{"interleaved":false},)"
      R"("kv_cache":{"page_size":16,"dtype":"bfloat16"}},"rows":[[700,1]]})");
  expect_none(for_each_seed(0, 12, [&](std::uint64_t seed) -> std::string {
    CaseSpec own = spec;
    const auto cached = static_cast<std::int64_t>(128 * (seed % 3) + 250 + seed % 7);
    own.rows = {{cached, static_cast<std::int64_t>(seed % 8 + 1)}};
    return run_case(backend_of(7 * seed), own, seed, mode_in_turn(seed));
  }));
}

TEST_F(Gemv, PassesASmallCoveringSet) {
  const auto takes = [](const AttentionConfig& config) { return !config.starts_at_attention(); };
  EXPECT_GT(run_covering_set(*ahead_, 60, takes, true), 15U);
}

TEST_F(Gemv, AgreesWithTheSeparatePasses) {
  expect_alike(*backend_, *make_backend("cuda:gemv=0"), few_rows);
}

}  // namespace
}  // namespace attn::harness
