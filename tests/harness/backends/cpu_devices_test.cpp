// tensor_parallel and data_parallel in the cpu backend against one device with all heads.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "harness/backends/cpu/cpu_backend.h"
#include "reference/core/devices.h"
#include "tests/harness/backends/test_cases.h"

namespace attn::harness::cpu {
namespace {

const RowPairs kRows = {
    {5, 7}, {0, 3}, {9, 0}, {15, 2}, {31, 1}};  // new tokens straddle pages of 16

Trace run_cpu(const Case& c) { return make_cpu_backend({64, 1})->run(c, all_stages()); }

Case with_devices(Case c, Variant variant, std::int64_t devices) {
  c.config.variant = variant;
  c.config.num_devices = devices;
  c.config.kv_head_replication =
      variant == Variant::kTensorParallel && devices > c.config.num_key_value_heads;
  validate(c);
  return c;
}

void expect_same_bits_but_out(const Trace& got, const Trace& want) {
  for (const Stage stage : all_stages()) {
    if (stage == Stage::kOut) continue;
    EXPECT_EQ(got[stage], want[stage]) << name_of(stage);
  }
  EXPECT_EQ(*got.cache, *want.cache);
}

/// Two float32 evaluations of attn_out Wo^T. Any order of n products and n - 1 additions is off by
/// at most n 2^-24 of the sum of magnitudes, to first order (1 % for the rest); there are two.
void expect_near_sums(const Case& c, const Trace& got, const Trace& want) {
  const std::vector<double> x = want[Stage::kAttnOut].values();
  const std::vector<double> w = c.weights.at("o_proj.weight").values();
  const std::int64_t n = c.config.attn_width();
  for (std::int64_t t = 0; t < c.tokens(); ++t) {
    for (std::int64_t j = 0; j < c.config.hidden_size; ++j) {
      double magnitude = 0.0;
      for (std::int64_t i = 0; i < n; ++i) {
        magnitude += std::abs(x[static_cast<std::size_t>(t * n + i)] *
                              w[static_cast<std::size_t>(j * n + i)]);
      }
      const std::int64_t at = t * c.config.hidden_size + j;
      ASSERT_NEAR(got[Stage::kOut].value(at), want[Stage::kOut].value(at),
                  1.01 * 2.0 * static_cast<double>(n) * 0x1p-24 * magnitude)
          << t << " " << j;
    }
  }
}

TEST(CpuDevices, TensorParallelHasTheBitsOfOneDeviceUpToTheSumOverDevices) {
  AttentionConfig config = layer_config(12, 6, 16, 64);
  config.has_bias = true;
  config.use_qk_norm = true;
  const Case plain = random_case(config, kRows, 12, /*sinks=*/true);
  const Trace want = run_cpu(plain);
  for (const std::int64_t devices : {1, 2, 3, 4, 5, 6}) {
    SCOPED_TRACE(devices);
    const Case c = with_devices(plain, Variant::kTensorParallel, devices);
    const Trace got = run_cpu(c);
    expect_same_bits_but_out(got, want);
    expect_near_sums(c, got, want);
    // One device adds nothing up.
    EXPECT_EQ(got[Stage::kOut] == want[Stage::kOut], devices == 1);
  }
}

TEST(CpuDevices, StackedWeightsAreSplitByHeads) {
  AttentionConfig config = layer_config(6, 3, 16, 96);
  config.stacked_qkv = true;
  const Case plain = random_case(config, kRows, 3);
  const Trace want = run_cpu(plain);
  const Case c = with_devices(plain, Variant::kTensorParallel, 2);
  const Trace got = run_cpu(c);
  expect_same_bits_but_out(got, want);
  expect_near_sums(c, got, want);
}

TEST(CpuDevices, ReplicatedKvHeadsAreOnTheirDevices) {
  // Groups of three query heads on two devices each (two and one of them), and on four (the last of
  // which has none).
  const Case plain = random_case(layer_config(6, 2, 16, 64), kRows, 5, /*sinks=*/true);
  const Trace want = run_cpu(plain);
  for (const std::int64_t devices : {4, 6, 8}) {
    SCOPED_TRACE(devices);
    const Case c = with_devices(plain, Variant::kTensorParallel, devices);
    const Trace got = run_cpu(c);
    expect_same_bits_but_out(got, want);
    expect_near_sums(c, got, want);
  }
}

TEST(CpuDevices, Fp8CachesHaveTheScalesOfTheirHeads) {
  for (const auto granularity : {ScaleGranularity::kNone, ScaleGranularity::kTensor,
                                 ScaleGranularity::kHead, ScaleGranularity::kTokenHead}) {
    AttentionConfig config = layer_config(6, 3, 16, 64);
    config.kv_cache.dtype = ElementType::kFloat8E4M3FN;
    config.kv_cache.scale_granularity = granularity;
    const Case plain = random_case(config, kRows, 5);
    const Trace want = run_cpu(plain);
    for (const std::int64_t devices : {2, 3, 6}) {
      SCOPED_TRACE(std::string(name_of(granularity)) + " on " + std::to_string(devices));
      expect_same_bits_but_out(run_cpu(with_devices(plain, Variant::kTensorParallel, devices)),
                               want);
    }
    expect_same_bits_but_out(run_cpu(with_devices(plain, Variant::kDataParallel, 3)), want);
  }
}

TEST(CpuDevices, DataParallelHasEveryBitOfOneDevice) {
  const Case plain = random_case(layer_config(4, 2, 16, 64), kRows, 12);
  const Trace want = run_cpu(plain);
  for (const std::int64_t devices : {1, 2, 3, 5, 9}) {
    SCOPED_TRACE(devices);
    const Trace got = run_cpu(with_devices(plain, Variant::kDataParallel, devices));
    for (const Stage stage : all_stages()) EXPECT_EQ(got[stage], want[stage]) << name_of(stage);
    EXPECT_EQ(*got.cache, *want.cache);
  }
}

TEST(CpuDevices, NoRowsAtAll) {
  for (const Variant variant : {Variant::kTensorParallel, Variant::kDataParallel}) {
    for (const RowPairs& rows : {RowPairs{}, RowPairs{{0, 0}}, RowPairs{{7, 0}, {0, 0}}}) {
      const Case c = with_devices(random_case(layer_config(4, 2, 16, 64), rows, 12), variant, 2);
      const Trace got = run_cpu(c);
      EXPECT_EQ(got[Stage::kOut].shape(), (Shape{0, 64}));
      EXPECT_EQ(*got.cache, c.cache);
    }
  }
}

}  // namespace
}  // namespace attn::harness::cpu
