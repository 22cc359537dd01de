// The lean decode kernel (backend cuda, and as cuda:decode=lean and lean-mail) against the
// exact reference and against the general kernel.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gpu/kernels/attention.h"
#include "harness/compare/compare.h"
#include "harness/generate/case_spec.h"
#include "tests/gpu/device_cases.h"
#include "tests/gpu/device_fixture.h"
#include "tests/gpu/seeds.h"

namespace attn::harness {
namespace {

constexpr std::array kWays{"cuda", "cuda:decode=lean", "cuda:decode=lean-mail"};

class LeanDecode : public OnDevice {
 protected:
  void SetUp() override {
    OnDevice::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    for (const char* const way : kWays) backends_.push_back(make_backend(way));
  }
  std::vector<std::unique_ptr<Backend>> backends_;
};

/// One query a sequence: keys of one block and of many, splits, empty sequences, every page that
/// the kernel takes and one that it leaves to the general one.
CaseSpec one_query_spec(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto draw = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  CaseSpec spec;
  AttentionConfig& config = spec.config;
  config.variant = Variant::kAttention;
  config.entry_point = EntryPoint::kAttention;
  config.num_key_value_heads = draw(1, 3);
  config.num_attention_heads = config.num_key_value_heads * draw(1, 8);
  config.head_dim = 128;
  config.head_dim_v = 128;
  config.dtype = draw(0, 2) == 0 ? ElementType::kFloat16 : ElementType::kBFloat16;
  config.kv_cache.dtype = config.dtype;
  if (draw(0, 3) == 0) {
    config.kv_cache.dtype = ElementType::kFloat8E4M3FN;
    config.kv_cache.scale_granularity =
        std::array{ScaleGranularity::kNone, ScaleGranularity::kTensor, ScaleGranularity::kHead}.at(
            static_cast<std::size_t>(draw(0, 2)));
  }
  config.kv_cache.page_size = std::array<std::int64_t, 6>{16, 32, 64, 128, 256, 48}.at(
      static_cast<std::size_t>(draw(0, 5)));
  config.mask.variant = draw(0, 1) == 0 ? MaskVariant::kCausal : MaskVariant::kNull;
  spec.sinks = draw(0, 3) == 0;
  const bool many = draw(0, 3) == 0;
  for (std::int64_t b = many ? draw(60, 90) : draw(1, 4); b > 0; --b) {
    const std::int64_t keys = draw(1, many ? 300 : 3000);
    const bool none = draw(0, 7) == 0;
    spec.rows.push_back({none ? 0 : 1, none ? 0 : keys});
  }
  if (spec.rows.back().first == 0) spec.rows.back() = {1, 77};
  validate(spec);
  return spec;
}

// Needs no device: the cases of these tests exist.
TEST(LeanDecodeCases, AreValid) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const CaseSpec spec = one_query_spec(seed);
    for (const auto& [rows, keys] : spec.rows) EXPECT_LE(rows, 1);
    if (seed % 40 == 0) {
      EXPECT_GT(make_case(spec, seed).tokens(), 0);
    }
  }
}

TEST_F(LeanDecode, PassesInEveryModeAndWay) {
  expect_none(for_each_seed(0, device_case_count(), [&](std::uint64_t seed) {
    return run_case(*backends_.at(seed % backends_.size()), one_query_spec(seed), seed,
                    mode_in_turn(seed / backends_.size()));
  }));
}

/// Which cuts keys in the same places and adds parts in the same order, as long as parts do not go
/// by mail: that pays for more of them.
TEST_F(LeanDecode, IsTheGeneralKernelToTheBit) {
  const auto general = make_backend("cuda:decode=general");
  expect_none(for_each_seed(500, std::min<std::uint64_t>(device_case_count(), 100),
                            [&](std::uint64_t seed) {
                              CaseSpec spec = one_query_spec(seed);
                              const std::int64_t most = gpu::DecodeWay{}.mail_keys - 1;
                              for (auto& [rows, keys] : spec.rows) keys = std::min(keys, most);
                              const Case c = make_case(spec, seed);
                              const Trace wanted = general->run(c, all_stages());
                              for (const std::size_t way : {0, 1}) {
                                const Trace got = backends_.at(way)->run(c, all_stages());
                                for (const Stage stage : {Stage::kAttnOut, Stage::kLse}) {
                                  const auto x = wanted[stage].bytes();
                                  const auto y = got[stage].bytes();
                                  if (std::memcmp(x.data(), y.data(), x.size()) != 0) {
                                    return std::string(kWays.at(way)) + " differs in " +
                                           std::string(name_of(stage)) + ": " + c.repro;
                                  }
                                }
                              }
                              return std::string();
                            }));
}

}  // namespace
}  // namespace attn::harness
