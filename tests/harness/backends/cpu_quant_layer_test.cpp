// Whole quantised layers in the cpu backend: projections against float64 sums of decoded operands,
// shards, threads, entry points.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "harness/backends/cpu/activations.h"
#include "harness/backends/cpu/cpu_backend.h"
#include "harness/backends/cpu/weight_rows.h"
#include "reference/core/devices.h"
#include "tests/harness/backends/test_cases.h"

namespace attn::harness::cpu {
namespace {

const RowPairs kRows = {{5, 7}, {0, 3}, {9, 0}, {15, 2}};

Trace run_cpu(const Case& c, int threads = 1) {
  return make_cpu_backend({64, threads})->run(c, all_stages());
}

QuantConfig quant_of(QuantEncoding encoding, ActivationQuant activation = ActivationQuant::kNone) {
  QuantConfig quant;
  quant.q_proj = quant.k_proj = quant.v_proj = quant.o_proj = encoding;
  quant.activation = activation;
  return quant;
}

struct NamedQuant {
  std::string name;
  QuantConfig quant;
};

/// Every encoding with every activation that goes with it.
std::vector<NamedQuant> all_quants() {
  using Granularity = WeightGranularity;
  using Activation = ActivationQuant;
  std::vector<NamedQuant> list;
  for (const auto granularity :
       {Granularity::kTensor, Granularity::kRowwise, Granularity::kBlock}) {
    for (const auto activation :
         {Activation::kNone, Activation::kStatic, Activation::kToken, Activation::kBlock}) {
      if (activation == Activation::kStatic && granularity != Granularity::kTensor) continue;
      QuantConfig quant = quant_of(QuantEncoding::kFloat8E4M3FN, activation);
      quant.weight_granularity = granularity;
      quant.block_n = 32;  // two heads of 16: shards begin inside of a block
      quant.block_k = 128;
      list.push_back(
          {"float8 " + std::string(name_of(granularity)) + " " + std::string(name_of(activation)),
           quant});
    }
  }
  for (const QuantEncoding encoding :
       {QuantEncoding::kNvfp4, QuantEncoding::kMxfp4, QuantEncoding::kMxfp8}) {
    list.push_back({std::string(name_of(encoding)), quant_of(encoding)});
    list.push_back(
        {std::string(name_of(encoding)) + " block", quant_of(encoding, ActivationQuant::kBlock)});
  }
  for (const std::int64_t bits : {4, 8}) {
    for (const std::int64_t group_size : {32, -1}) {
      QuantConfig quant = quant_of(QuantEncoding::kGptq);
      quant.bits = bits;
      quant.group_size = group_size;
      quant.desc_act = bits == 4;
      quant.checkpoint_v2 = bits == 8;
      list.push_back({"gptq " + std::to_string(bits) + " " + std::to_string(group_size), quant});
    }
  }
  for (const QuantEncoding encoding :
       {QuantEncoding::kQ4_0, QuantEncoding::kQ8_0, QuantEncoding::kQ4_K, QuantEncoding::kQ5_K,
        QuantEncoding::kQ6_K}) {
    list.push_back({std::string(name_of(encoding)), quant_of(encoding)});
    list.push_back(
        {std::string(name_of(encoding)) + " int8", quant_of(encoding, ActivationQuant::kInt8)});
  }
  QuantConfig mixed = quant_of(QuantEncoding::kQ4_K, ActivationQuant::kInt8);
  mixed.k_proj = QuantEncoding::kQ8_0;
  mixed.v_proj = QuantEncoding::kQ5_K;
  mixed.o_proj = QuantEncoding::kQ6_K;
  list.push_back({"mixed int8", mixed});
  return list;
}

/// 16 query and 8 kv heads of 16 channels: o_proj's input is 256 wide, as K-quants need.
AttentionConfig config_of(const QuantConfig& quant) {
  AttentionConfig config = layer_config(16, 8, 16, 256);
  config.quant = quant;
  return config;
}

std::vector<double> decoded_weight(const Case& c, Matrix matrix, std::int64_t out,
                                   std::int64_t in) {
  Rows rows(out, in);
  open_weight(c, matrix)->decode(0, rows);
  std::vector<double> values;
  for (std::int64_t n = 0; n < out; ++n) values.insert(values.end(), rows.row(n), rows.row(n) + in);
  return values;
}

/// got [tokens, out] against sums of the decoded operands, in any order of float32 additions: n
/// products and n - 1 additions of 2^-24 each, to first order (1 % for the rest), and one more
/// addition for each of `parts`.
void expect_projection(const Rows& x, const std::vector<double>& w, std::int64_t parts,
                       const Tensor& got) {
  const std::int64_t out = got.dim(1);
  for (std::int64_t t = 0; t < x.count; ++t) {
    for (std::int64_t j = 0; j < out; ++j) {
      double sum = 0.0, magnitude = 0.0;
      for (std::int64_t i = 0; i < x.width; ++i) {
        const double term =
            static_cast<double>(x.row(t)[i]) * w[static_cast<std::size_t>(j * x.width + i)];
        sum += term;
        magnitude += std::abs(term);
      }
      ASSERT_NEAR(got.value(t * out + j), sum,
                  1.01 * static_cast<double>(x.width + parts) * 0x1p-24 * magnitude)
          << t << " " << j;
    }
  }
}

/// What o_proj multiplies: each device's slice of attn_out in its own codes.
Rows output_codes(const Case& c, const Tensor& attn_out) {
  Rows all(c.tokens(), c.config.attn_width());
  for (const DeviceHeads& heads : device_heads(c.config)) {
    if (heads.q_heads.count == 0) continue;
    const std::int64_t first = heads.q_heads.first * c.config.head_dim;
    Rows slice(all.count, heads.q_heads.count * c.config.head_dim);
    for (std::int64_t t = 0; t < all.count; ++t) {
      const float* const source = attn_out.as<float>() + t * all.width + first;
      std::copy(source, source + slice.width, slice.row(t));
    }
    if (quantises_activations(c.config)) quantise_activations(c, Matrix::kO, slice);
    for (std::int64_t t = 0; t < all.count; ++t) {
      std::copy(slice.row(t), slice.row(t) + slice.width, all.row(t) + first);
    }
  }
  return all;
}

TEST(CpuQuantLayer, ProjectionsAreSumsOfDecodedOperands) {
  for (const auto& [name, quant] : all_quants()) {
    SCOPED_TRACE(name);
    const Case c = random_case(config_of(quant), kRows, 8);
    const Trace got = run_cpu(c);
    const struct {
      Matrix matrix;
      Stage stage;
    } inputs[] = {
        {Matrix::kQ, Stage::kQProj}, {Matrix::kK, Stage::kKProj}, {Matrix::kV, Stage::kVProj}};
    for (const auto& [matrix, stage] : inputs) {
      Rows x(c.tokens(), c.config.hidden_size);
      unpack_rows(c.x, 0, x);
      if (quantises_activations(c.config)) quantise_activations(c, matrix, x);
      expect_projection(x, decoded_weight(c, matrix, got[stage].dim(1), x.width), 0, got[stage]);
    }
    const Rows attended = output_codes(c, got[Stage::kAttnOut]);
    expect_projection(attended, decoded_weight(c, Matrix::kO, 256, 256), 0, got[Stage::kOut]);
  }
}

TEST(CpuQuantLayer, ShardsHaveTheBitsOfOneDeviceUpToTheOutput) {
  for (const auto& [name, quant] : all_quants()) {
    const Case plain = random_case(config_of(quant), kRows, 8);
    const Trace want = run_cpu(plain);
    for (const std::int64_t devices : {2, 3, 4, 8, 16}) {
      SCOPED_TRACE(name + " on " + std::to_string(devices));
      Case c = plain;
      c.config.variant = Variant::kTensorParallel;
      c.config.num_devices = devices;
      c.config.kv_head_replication = devices > 8;
      validate(c);
      const Trace got = run_cpu(c);
      for (const Stage stage : all_stages()) {
        if (stage == Stage::kOut) continue;
        EXPECT_EQ(got[stage], want[stage]) << name_of(stage);
      }
      EXPECT_EQ(*got.cache, *want.cache);
      expect_projection(output_codes(c, got[Stage::kAttnOut]),
                        decoded_weight(c, Matrix::kO, 256, 256), devices, got[Stage::kOut]);
    }
  }
}

/// By hand: two devices of one head, o_proj an identity. Each slice is quantised with its own
/// largest value: 0.7 beside 448 is 0.6875 (11.2 steps of 2^-4), 0.7 beside 0.7 is itself.
TEST(CpuQuantLayer, EachDeviceQuantisesItsOwnSlice) {
  AttentionConfig config = layer_config(2, 2, 2, 4);
  config.rope.rotary_dim = 2;
  config.quant = quant_of(QuantEncoding::kFloat8E4M3FN, ActivationQuant::kToken);
  Case c = random_case(config, {{0, 1}}, 1);
  const auto identity = [](std::int64_t rows) {
    std::vector<double> values(static_cast<std::size_t>(rows * 4), 0.0);
    for (std::int64_t i = 0; i < rows; ++i) values[static_cast<std::size_t>(i * 5)] = 1.0;
    return Tensor::from_values(ElementType::kFloat8E4M3FN, {rows, 4}, values);
  };
  for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
    c.weights[std::string(name) + ".weight"] = identity(4);
    c.weights[std::string(name) + ".weight_scale"] = Tensor::scalar(ElementType::kFloat32, 1.0);
  }
  // x is its own code: 448 sets the scale 1, and the codes are exact. So v, and with one key
  // attn_out, are x.
  c.x =
      Tensor::from_values(ElementType::kFloat32, {1, 4}, std::vector<double>{448, 1, 1.25, 1.875});
  const std::vector<double> exact{448, 1, 1.25, 1.875};
  EXPECT_EQ(run_cpu(c)[Stage::kAttnOut].values(), exact);
  EXPECT_EQ(run_cpu(c)[Stage::kOut].values(), exact);
  // Alone, device 1 has the scale float(1.875 / 448), and 1.25 is 298.67 of it, 9.33 steps of 32.
  c.config.variant = Variant::kTensorParallel;
  c.config.num_devices = 2;
  const auto scale = static_cast<double>(1.875f / 448.0f);
  const std::vector<double> sliced{448, 1, static_cast<double>(static_cast<float>(288.0 * scale)),
                                   static_cast<double>(static_cast<float>(448.0 * scale))};
  EXPECT_EQ(run_cpu(c)[Stage::kOut].values(), sliced);
}

TEST(CpuQuantLayer, MaterializeLeavesTheCacheOfForward) {
  for (const auto& [name, quant] : all_quants()) {
    SCOPED_TRACE(name);
    Case c = random_case(config_of(quant), kRows, 8);
    const Trace forward = run_cpu(c);
    c.config.entry_point = EntryPoint::kMaterializeKvFromHidden;
    const Trace materialized = run_cpu(c);
    EXPECT_EQ(*materialized.cache, *forward.cache);
    EXPECT_FALSE(materialized.has(Stage::kQProj));
    EXPECT_FALSE(materialized.has(Stage::kOut));
  }
}

TEST(CpuQuantLayer, ThreadsDoNotChangeABit) {
  for (const auto& [name, quant] : all_quants()) {
    SCOPED_TRACE(name);
    // 60 rows times 256 x 256 weights: work for several threads.
    Case c = random_case(config_of(quant), {{20, 60}}, 8);
    for (const Variant variant : {Variant::kAttentionWithRope, Variant::kTensorParallel}) {
      c.config.variant = variant;
      c.config.num_devices = variant == Variant::kTensorParallel ? 2 : 1;
      const Trace one = run_cpu(c, 1);
      const Trace three = run_cpu(c, 3);
      for (const Stage stage : all_stages()) EXPECT_EQ(three[stage], one[stage]) << name_of(stage);
      EXPECT_EQ(*three.cache, *one.cache);
    }
  }
}

/// Bias, qk-norm, activation clip, every mask, fp8 caches and sinks go with quantised weights.
TEST(CpuQuantLayer, EveryOptionGoesWithQuantisedWeights) {
  for (const QuantEncoding encoding : {QuantEncoding::kQ4_0, QuantEncoding::kGptq}) {
    AttentionConfig config = config_of(quant_of(encoding));
    config.variant = encoding == QuantEncoding::kGptq ? Variant::kGptq : Variant::kGguf;
    config.quant->group_size = 64;
    config.has_bias = true;
    config.use_qk_norm = true;
    config.clip_activations = 2.0;
    config.kv_cache.dtype = ElementType::kFloat8E4M3FN;
    config.kv_cache.scale_granularity = ScaleGranularity::kTokenHead;
    for (const MaskVariant mask :
         {MaskVariant::kNull, MaskVariant::kCausal, MaskVariant::kChunkedCausal,
          MaskVariant::kSlidingWindowCausal, MaskVariant::kSlidingWindowNoncausal}) {
      config.mask = {};
      config.mask.variant = mask;
      if (mask == MaskVariant::kChunkedCausal) config.mask.chunk_size = 5;
      if (mask >= MaskVariant::kSlidingWindowCausal) config.mask.window_size = 5;
      const Case c = random_case(config, kRows, 8, /*sinks=*/true);
      const Trace got = run_cpu(c);
      for (const Stage stage : stages_of(config)) {
        ASSERT_TRUE(got.has(stage)) << name_of(stage);
        for (const double v : got[stage].values()) ASSERT_TRUE(std::isfinite(v)) << name_of(stage);
      }
      const std::vector<double> clipped = got[Stage::kVProj].values();
      EXPECT_EQ(*std::ranges::max_element(clipped), 2.0);
    }
  }
}

}  // namespace
}  // namespace attn::harness::cpu
