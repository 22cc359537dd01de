// The Hopper prefill kernel (backend cuda:prefill=hopper) against the exact reference, against
// itself and against the tiled kernel.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "harness/backends/execution.h"
#include "harness/compare/compare.h"
#include "harness/fuzz/case_source.h"
#include "harness/fuzz/fit.h"
#include "harness/generate/case_spec.h"
#include "reference/core/error.h"
#include "tests/gpu/device_cases.h"
#include "tests/gpu/device_fixture.h"
#include "tests/gpu/seeds.h"

namespace attn::harness {
namespace {

constexpr const char* kHopper = "cuda:prefill=hopper";

class HopperPrefill : public OnDevice {
 protected:
  void SetUp() override {
    OnDevice::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    try {
      backend_ = make_backend(kHopper);
      fp8_ = make_backend("cuda:prefill=fp8");
    } catch (const Error& error) {
      GTEST_SKIP() << "NOT TESTED: " << error.what();
    }
  }
  bool supports(const AttentionConfig& config) const {
    return backend_->unsupported_reason(config).empty();
  }

  /// One tile of one step, then of more, with a tail, and several tiles with a mask.
  void expect_few_steps_pass(CaseSpec spec) const {
    EXPECT_EQ(run_case(*backend_, spec, 0, ExecMode::kPlain), "");
    spec.rows = {{128, 384}};  // further steps
    EXPECT_EQ(run_case(*backend_, spec, 0, ExecMode::kPlain), "");
    spec.rows = {{128, 300}};  // values behind the end
    EXPECT_EQ(run_case(*backend_, spec, 0, ExecMode::kPlain), "");
    spec.config.mask.variant = MaskVariant::kCausal;
    spec.rows = {{500, 500}};
    EXPECT_EQ(run_case(*backend_, spec, 0, ExecMode::kPlain), "");
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Backend> fp8_;
};

/// Attention of a ragged batch whose sequences have more rows than decode: every head size bucket
/// and what is between, groups that are packed and others, pages of one and of several boxes,
/// masks, soft-cap, sinks, rows that see nothing, several steps and tiles.
CaseSpec ragged_spec(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto draw = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  const auto pick = [&](const auto& values) {
    return values.at(static_cast<std::size_t>(draw(0, std::ssize(values) - 1)));
  };
  CaseSpec spec;
  AttentionConfig& config = spec.config;
  config.variant = Variant::kAttention;
  config.entry_point = EntryPoint::kAttention;
  config.num_key_value_heads = draw(1, 3);
  config.num_attention_heads =
      config.num_key_value_heads * pick(std::array<std::int64_t, 7>{1, 2, 3, 4, 5, 8, 16});
  config.head_dim = pick(std::array<std::int64_t, 10>{128, 128, 64, 256, 192, 72, 112, 40, 136, 8});
  config.head_dim_v = config.head_dim;
  config.dtype = draw(0, 2) == 0 ? ElementType::kFloat16 : ElementType::kBFloat16;
  config.kv_cache.dtype = config.dtype;
  config.kv_cache.page_size =
      pick(std::array<std::int64_t, 9>{8, 16, 24, 32, 48, 64, 128, 160, 256});
  config.mask.variant = static_cast<MaskVariant>(draw(0, 4));
  if (draw(0, 3) == 0 && config.mask.variant != MaskVariant::kNull) {
    config.mask.align = MaskAlign::kTopLeft;
  }
  const std::int64_t span = draw(0, 1) == 0 ? draw(1, 40) : draw(41, 500);
  if (config.mask.variant == MaskVariant::kChunkedCausal) config.mask.chunk_size = span;
  if (config.mask.variant == MaskVariant::kSlidingWindowCausal ||
      config.mask.variant == MaskVariant::kSlidingWindowNoncausal) {
    config.mask.window_size = span;
  }
  if (draw(0, 3) == 0) config.logit_softcap = 20.0;
  if (draw(0, 7) == 0) config.scale = -0.125;
  spec.sinks = draw(0, 3) == 0;
  const std::int64_t sequences = draw(1, 5);
  for (std::int64_t b = 0; b < sequences; ++b) {
    const std::int64_t rows = b == 0 ? draw(17, 260) : draw(0, 3) == 0 ? 0 : draw(1, 200);
    const bool equal = draw(0, 2) == 0;
    spec.rows.push_back({rows, equal ? rows : draw(0, 700)});
  }
  validate(spec);
  return spec;
}

/// The same from a cache of e4m3 codes, as the kernel takes them.
CaseSpec coded_spec(std::uint64_t seed) {
  CaseSpec spec = ragged_spec(seed);
  AttentionConfig& config = spec.config;
  config.head_dim = (config.head_dim + 15) / 16 * 16;
  config.head_dim_v = config.head_dim;
  config.kv_cache.dtype = ElementType::kFloat8E4M3FN;
  config.kv_cache.scale_granularity =
      std::array{ScaleGranularity::kTensor, ScaleGranularity::kHead, ScaleGranularity::kNone}.at(
          seed % 3);
  validate(spec);
  return spec;
}

// Needs no device: the cases of these tests exist.
TEST(HopperCases, AreValidAndHaveMoreRowsThanDecode) {
  std::int64_t with_values = 0;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const CaseSpec spec = ragged_spec(seed);
    EXPECT_GT(spec.rows.at(0).first, 16);
    EXPECT_EQ(spec.config.kv_cache.page_size % 8, 0);
    EXPECT_EQ(spec.config.head_dim % 8, 0);
    if (seed % 20 != 0) continue;
    const Case c = make_case(spec, seed);
    const OtherCase other = other_case(spec, seed);
    EXPECT_EQ(other.spec.config, spec.config);
    with_values += c.tokens();
    const Case coded = make_case(coded_spec(seed), seed);
    EXPECT_EQ(coded.config.head_dim % 16, 0);
    EXPECT_EQ(coded.cache.k.type(), ElementType::kFloat8E4M3FN);
  }
  EXPECT_GT(with_values, 1000);
}

TEST_F(HopperPrefill, PassesOneTileOfTheShapeThatItIsMadeFor) {
  CaseSpec spec = parse_case_spec(
      R"({"config":{"variant":"attention","entry_point":"attention","num_attention_heads":1,)"
      R"("num_key_value_heads":1,"head_dim":128,"dtype":"bfloat16","mask":{"variant":"null"},)"
      R"("kv_cache":{"page_size":128,"dtype":"bfloat16"}},"rows":[[128,128]]})");
  expect_few_steps_pass(spec);
}

TEST_F(HopperPrefill, PassesRaggedCasesInEveryMode) {
  expect_none(for_each_seed(0, device_case_count(), [&](std::uint64_t seed) -> std::string {
    const CaseSpec spec = ragged_spec(seed);
    if (!supports(spec.config)) return "refused: " + backend_->unsupported_reason(spec.config);
    return run_case(*backend_, spec, seed, mode_in_turn(seed));
  }));
}

TEST_F(HopperPrefill, PassesOneTileOfCodes) {
  CaseSpec spec = parse_case_spec(
      R"({"config":{"variant":"attention","entry_point":"attention","num_attention_heads":1,)"
      R"("num_key_value_heads":1,"head_dim":128,"dtype":"bfloat16","mask":{"variant":"null"},)"
      R"("kv_cache":{"page_size":128,"dtype":"float8_e4m3fn","scale_granularity":"tensor"}},)"
      R"("rows":[[128,128]]})");
  expect_few_steps_pass(spec);
}

TEST_F(HopperPrefill, PassesRaggedCasesOfCodesInEveryMode) {
  expect_none(for_each_seed(0, device_case_count(), [&](std::uint64_t seed) -> std::string {
    const CaseSpec spec = coded_spec(seed);
    if (!supports(spec.config)) return "refused: " + backend_->unsupported_reason(spec.config);
    return run_case(*backend_, spec, seed, mode_in_turn(seed));
  }));
}

TEST_F(HopperPrefill, PassesOneTileByFp8Products) {
  CaseSpec spec = parse_case_spec(
      R"({"config":{"variant":"attention","entry_point":"attention","num_attention_heads":1,)"
      R"("num_key_value_heads":1,"head_dim":128,"dtype":"bfloat16","mask":{"variant":"null"},)"
      R"("kv_cache":{"page_size":128,"dtype":"float8_e4m3fn","scale_granularity":"tensor"}},)"
      R"("rows":[[128,128]]})");
  for (const std::int64_t dim : {128, 64}) {
    spec.config.head_dim = spec.config.head_dim_v = dim;
    spec.config.mask.variant = MaskVariant::kNull;
    for (const std::int64_t keys : {128, 384, 300}) {  // further steps; values behind the end
      spec.rows = {{128, keys}};
      EXPECT_EQ(run_case(*fp8_, spec, 0, ExecMode::kPlain), "") << dim << " " << keys;
    }
    spec.config.mask.variant = MaskVariant::kCausal;
    spec.rows = {{500, 500}};
    EXPECT_EQ(run_case(*fp8_, spec, 0, ExecMode::kPlain), "") << dim;
  }
}

TEST_F(HopperPrefill, PassesRaggedCasesByFp8ProductsInEveryMode) {
  std::atomic<std::uint64_t> judged{0};
  expect_none(for_each_seed(0, device_case_count(), [&](std::uint64_t seed) -> std::string {
    CaseSpec spec = coded_spec(seed);
    spec.config.head_dim = spec.config.head_dim_v =
        std::min<std::int64_t>(spec.config.head_dim, 128);
    if (!fp8_->unsupported_reason(spec.config).empty()) return "";
    ++judged;
    return run_case(*fp8_, spec, seed, mode_in_turn(seed));
  }));
  EXPECT_GT(judged.load(), device_case_count() / 2);
}

TEST_F(HopperPrefill, PassesRandomCasesByFp8Products) {
  const auto takes = [&](const AttentionConfig& c) { return fp8_->unsupported_reason(c).empty(); };
  expect_none(for_each_seed(0, device_case_count(), [&](std::uint64_t seed) -> std::string {
    const auto spec = fitted(random_small_spec(seed), takes);
    return spec ? run_case(*fp8_, *spec, seed, mode_in_turn(seed)) : "";
  }));
}

TEST_F(HopperPrefill, PassesASmallCoveringSet) {
  const auto takes = [&](const AttentionConfig& config) { return supports(config); };
  EXPECT_GT(run_covering_set(*backend_, 18, takes, false), 12U);
}

TEST_F(HopperPrefill, PassesRandomCases) {
  std::atomic<std::uint64_t> judged{0};
  expect_none(for_each_seed(0, device_case_count(), [&](std::uint64_t seed) -> std::string {
    const auto spec = fitted(random_small_spec(seed), [&](const auto& c) { return supports(c); });
    if (!spec) return "";
    ++judged;
    return run_case(*backend_, *spec, seed, mode_in_turn(seed));
  }));
  EXPECT_GT(judged.load(), device_case_count() / 2);
}

/// A value of 16 bits as its place among all values.
int ordered(std::uint16_t bits) {
  return (bits & 0x8000U) != 0 ? -static_cast<int>(bits & 0x7fffU) : static_cast<int>(bits);
}

// Both lie within the bound; here they are set against each other, which tells a systematic
// difference from roundings: most outputs are equal, and few are a unit apart.
void set_beside_the_tiled_kernel(const Backend& hopper, CaseSpec (*spec_of)(std::uint64_t)) {
  const auto tiled = make_backend("cuda:prefill=tiled");
  std::atomic<std::uint64_t> equal{0}, near{0}, all{0};
  expect_none(for_each_seed(7000, std::min<std::uint64_t>(device_case_count(), 100),
                            [&](std::uint64_t seed) -> std::string {
                              const Case c = make_case(spec_of(seed), seed);
                              const Trace a = hopper.run(c, all_stages());
                              const Trace b = tiled->run(c, all_stages());
                              const Tensor& x = a[Stage::kAttnOut];
                              const Tensor& y = b[Stage::kAttnOut];
                              const auto count = x.bytes().size() / 2;
                              for (std::size_t i = 0; i < count; ++i) {
                                const int p = ordered(x.as<std::uint16_t>()[i]);
                                const int q = ordered(y.as<std::uint16_t>()[i]);
                                equal += p == q ? 1 : 0;
                                near += std::abs(p - q) <= 1 ? 1 : 0;
                              }
                              all += count;
                              const std::string wrong = why_wrong(c, a, hopper);
                              return wrong.empty() ? why_wrong(c, b, *tiled) : wrong;
                            }));
  std::printf("%llu outputs: %.4f equal to the tiled kernel's, %.4f within one unit\n",
              static_cast<unsigned long long>(all.load()),
              static_cast<double>(equal.load()) / static_cast<double>(all.load()),
              static_cast<double>(near.load()) / static_cast<double>(all.load()));
}

TEST_F(HopperPrefill, AgreesWithTheTiledKernel) {
  set_beside_the_tiled_kernel(*backend_, ragged_spec);
}

TEST_F(HopperPrefill, AgreesWithTheTiledKernelOnCodes) {
  set_beside_the_tiled_kernel(*backend_, coded_spec);
}

TEST_F(HopperPrefill, RefusesWhatItIsNotMadeForByName) {
  AttentionConfig config = ragged_spec(1).config;
  config.kv_cache.page_size = 12;
  EXPECT_EQ(backend_->unsupported_reason(config),
            "prefill=hopper: page_size 12 is no multiple of 8");
  config = coded_spec(0).config;
  config.kv_cache.scale_granularity = ScaleGranularity::kTokenHead;
  EXPECT_EQ(backend_->unsupported_reason(config),
            "prefill=hopper: scales of codes by token and head are not implemented, those by "
            "tensor or head are");
  EXPECT_EQ(fp8_->unsupported_reason(ragged_spec(1).config),
            "prefill=fp8: products of codes want a cache of e4m3 codes");
}

}  // namespace
}  // namespace attn::harness
