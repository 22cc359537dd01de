// tensor_parallel, data_parallel and no_opaque as whole layers, and the calls with lists.

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "reference/core/devices.h"
#include "reference/core/error.h"
#include "reference/layers/distribute.h"
#include "reference/layers/rope_and_store.h"
#include "reference/layers/shard_axis.h"
#include "reference/reference.h"
#include "reference/stages/rope_table.h"
#include "tests/reference/make_case.h"
#include "tests/reference/parallel_case.h"

namespace attn::reference {
namespace {

using test::largest_difference;
using test::largest_magnitude;
using test::parallel_case;
using test::parallel_config;

const std::vector<Mode> kModes{Mode::kExact, Mode::kFaithful};

Case single_device(Case c) {
  c.config.variant = Variant::kAttentionWithRope;
  c.config.num_devices = 1;
  c.config.kv_head_replication = false;
  return c;
}

void expect_near(const Trace& got, const Trace& want, const AttentionConfig& config) {
  for (const Stage stage : stages_of(config)) {
    // Sums of at most 256 terms in another order, a few after each other: 1e-12 is 2^13 roundings.
    EXPECT_LE(largest_difference(got[stage], want[stage]), 1e-12 * largest_magnitude(want[stage]))
        << name_of(stage);
  }
}

// ---- tensor_parallel.

TEST(TensorParallel, UnquantisedIsTheLayerOfOneDevice) {
  for (const std::int64_t devices : {1, 2, 3, 4, 8}) {
    for (const bool stacked : {false, true}) {
      SCOPED_TRACE(std::to_string(devices) + (stacked ? " stacked" : " separate"));
      AttentionConfig config = parallel_config("null", devices);
      config.stacked_qkv = stacked;
      config.has_bias = !stacked;
      config.use_qk_norm = true;
      Case c = parallel_case(config);
      std::vector<double> sinks(16);
      std::iota(sinks.begin(), sinks.end(), -8.0);
      c.weights["sinks"] = Tensor::from_values(ElementType::kFloat32, {16}, sinks);
      expect_near(forward(c, Mode::kExact), forward(single_device(c), Mode::kExact), config);
      EXPECT_EQ(forward(c, Mode::kExact).cache, forward(single_device(c), Mode::kExact).cache);
    }
  }
}

TEST(TensorParallel, ReplicatedKvHeadsAreTheLayerOfOneDevice) {
  for (const std::int64_t devices : {16, 24}) {  // with 24, every third device has no query head
    AttentionConfig config = parallel_config("null", 8);
    config.num_devices = devices;
    config.kv_head_replication = true;
    const Case c = parallel_case(config);
    for (const Mode mode : kModes) {
      EXPECT_EQ(forward(c, mode).cache, forward(single_device(c), mode).cache);
    }
    expect_near(forward(c, Mode::kExact), forward(single_device(c), Mode::kExact), config);
  }
}

/// Two query heads of two channels on `kv_heads` kv heads, hidden 2, bfloat16; one token x = (1, 0)
/// without a cache, which attends to itself: attn_out of a head is v of its kv head, the first
/// column of v_proj.
Case one_token(std::int64_t kv_heads, std::int64_t devices, const std::vector<double>& v_column,
               const std::vector<double>& o) {
  AttentionConfig config = test::small_config();
  config.variant = Variant::kTensorParallel;
  config.num_devices = devices;
  config.kv_head_replication = devices > kv_heads;
  config.num_attention_heads = 2;
  config.num_key_value_heads = kv_heads;
  config.head_dim = 2;
  config.head_dim_v = 2;
  config.hidden_size = 2;
  config.dtype = ElementType::kBFloat16;
  config.kv_cache.dtype = ElementType::kBFloat16;
  Case c = test::make_case(config, {{1, 0, 1}});
  c.x = Tensor::from_values(config.dtype, {1, 2}, std::vector<double>{1, 0});
  std::vector<double> v;
  for (const double element : v_column) v.insert(v.end(), {element, 0.0});
  c.weights["v_proj.weight"] = Tensor::from_values(config.dtype, {2 * kv_heads, 2}, v);
  c.weights["o_proj.weight"] = Tensor::from_values(config.dtype, {2, 4}, o);
  return c;
}

TEST(TensorParallel, AllReduceRoundsPartialOutputsAndTheirSumByHand) {
  const double e = 0x1p-8;  // half an ulp of bfloat16 between 1 and 2, whose ulp is 2^-7
  // v is (1, 1) for head 0 and (1, 0) for head 1. Row 0: device 0 has 1 + e, a tie that goes to the
  // even 1; device 1 has e; their sum 1 + e is again a tie and gives 1. One device has 1 + 2e =
  // 1 + 2^-7, a bfloat16 value. Row 1: 1 + 3e goes up to 1 + 4e on device 0, and to 1 + 3e + e = 1
  // + 4e in one: the same.
  const std::vector<double> o{1, e, e, 0, 1, 3 * e, 0, 0};
  const Case c = one_token(2, 2, {1, 1, 1, 0}, o);
  EXPECT_EQ(forward(c, Mode::kFaithful)[Stage::kOut].values(),
            (std::vector<double>{1.0, 1.0 + 4 * e}));
  EXPECT_EQ(forward(single_device(c), Mode::kFaithful)[Stage::kOut].values(),
            (std::vector<double>{1.0 + 2 * e, 1.0 + 4 * e}));
  EXPECT_EQ(forward(c, Mode::kExact)[Stage::kOut].values(),
            (std::vector<double>{1.0 + 2 * e, 1.0 + 3 * e}));
}

TEST(TensorParallel, ReplicatedKvHeadByHand) {
  // One kv head with v = (3, 5) on two devices, device i with query head i. attn_out = (3, 5, 3,
  // 5); o_proj rows (1, 10, 100, 1000) and (0, 0, 0, 1): 3 + 50 + 300 + 5000 = 5353, and 5. In
  // bfloat16 device 0 has 53, device 1 has 5300, which lies between 5280 and 5312 (ulp 32) and
  // goes to 5312; 53 + 5312 = 5365 goes to 5376 (5344 is 21 away, 5376 is 11).
  const Case c = one_token(1, 2, {3, 5}, {1, 10, 100, 1000, 0, 0, 0, 1});
  EXPECT_EQ(forward(c, Mode::kExact)[Stage::kAttnOut].values(), (std::vector<double>{3, 5, 3, 5}));
  EXPECT_EQ(forward(c, Mode::kExact)[Stage::kOut].values(), (std::vector<double>{5353, 5}));
  EXPECT_EQ(forward(c, Mode::kFaithful)[Stage::kOut].values(), (std::vector<double>{5376, 5}));
}

TEST(TensorParallel, EachDeviceQuantisesItsOwnSlice) {
  // Rows of attn_out whose halves differ in magnitude get other codes with one scale a device.
  const std::string token =
      R"({"encoding": "float8_e4m3fn", "weight_granularity": "tensor", "activation": "token"})";
  const Case c = parallel_case(parallel_config(token, 2, {}, "bfloat16"));
  const Trace two = forward(c, Mode::kExact);
  const Trace one = forward(single_device(c), Mode::kExact);
  EXPECT_EQ(two[Stage::kAttnOut], one[Stage::kAttnOut]);
  EXPECT_GT(largest_difference(two[Stage::kOut], one[Stage::kOut]), 0.0);
}

// ---- data_parallel.

TEST(DataParallel, IsTheLayerOfOneDevice) {
  for (const std::int64_t devices : {1, 2, 3, 7}) {  // of 4 sequences; 7 leaves devices without
    for (const Mode mode : kModes) {
      AttentionConfig config = parallel_config("null", 1, {}, "bfloat16");
      config.variant = Variant::kDataParallel;
      config.num_devices = devices;
      const Case c = parallel_case(config, 3, {{1, 5, 3}, {2, 0, 0}, {3, 0, 2}, {4, 6, 1}});
      const Trace got = forward(c, mode);
      const Trace want = forward(single_device(c), mode);
      // A product of fewer rows may add in another order, which faithful stages round away.
      if (mode == Mode::kExact) expect_near(got, want, config);
      for (const Stage stage : stages_of(config)) {
        if (mode == Mode::kFaithful) {
          EXPECT_EQ(got[stage], want[stage]) << name_of(stage);
        }
      }
      EXPECT_EQ(got.cache, want.cache);
    }
  }
}

TEST(DataParallel, NoSequencesAtAll) {
  AttentionConfig config = parallel_config("null", 1);
  config.variant = Variant::kDataParallel;
  config.num_devices = 2;
  const Trace got = forward(test::make_case(config, {}), Mode::kExact);
  EXPECT_EQ(got[Stage::kOut].shape(), (Shape{0, config.hidden_size}));
}

// ---- Calls with lists.

TEST(DistributeValue, CopiesInOrderOfTheDevices) {
  const Tensor value = Tensor::from_values(ElementType::kBFloat16, {2}, std::vector<double>{1, -3});
  const std::vector<std::int64_t> devices{0, 1, 1};
  const std::vector<Tensor> copies = distribute_value(value, devices);
  ASSERT_EQ(copies.size(), 3U);
  for (const Tensor& copy : copies) EXPECT_EQ(copy, value);
  EXPECT_TRUE(distribute_value(value, {}).empty());
}

TEST(DeviceCases, RefusesListsOfAnotherLength) {
  const Case c = test::make_case(test::small_config(), {{1, 2, 1}});
  Layer layer{c.config, c.weights, {}};
  layer.set_sharding_strategy("replicate");
  const std::vector<Layer> replicas = shard(layer, 2);
  const DeviceInputs good{{c.x, c.x},
                          {c.input_row_offsets, c.input_row_offsets},
                          {c.cache_lengths, c.cache_lengths},
                          {c.freqs_cis, c.freqs_cis},
                          {c.cache, c.cache}};
  EXPECT_EQ(device_cases(replicas, good).size(), 2U);
  const auto expect_refusal = [&](const std::string& list,
                                  const std::function<void(DeviceInputs&)>& shorten) {
    DeviceInputs bad = good;
    shorten(bad);
    try {
      device_cases(replicas, bad);
      ADD_FAILURE() << list << " accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.field(), list);
      EXPECT_EQ(error.rule(), "15c");
      EXPECT_EQ(std::string(error.what()), list +
                                               ".length = 1: needs one entry for each of the "
                                               "num_devices = 2 devices; give as many");
    }
  };
  expect_refusal("xs", [](DeviceInputs& in) { in.xs.pop_back(); });
  expect_refusal("input_row_offsets", [](DeviceInputs& in) { in.input_row_offsets.pop_back(); });
  expect_refusal("cache_lengths", [](DeviceInputs& in) { in.cache_lengths.pop_back(); });
  expect_refusal("freqs_cis", [](DeviceInputs& in) { in.freqs_cis.pop_back(); });
  expect_refusal("kv_collections", [](DeviceInputs& in) { in.kv_collections.pop_back(); });
}

// ---- no_opaque.

TEST(NoOpaque, TakesItsTableFromTheRope) {
  AttentionConfig config = test::small_config();
  config.variant = Variant::kNoOpaque;
  config.stacked_qkv = true;
  config.rope.interleaved = true;
  const Case c = test::make_case(config, {{1, 5, 3}});
  for (const Mode mode : kModes) {
    const Tensor want = forward(single_device(c), mode)[Stage::kOut];
    EXPECT_EQ(forward(c, mode)[Stage::kOut], want) << "the general layer, stacked, interleaved";
    Case other_argument = c;
    other_argument.freqs_cis = Tensor(ElementType::kFloat32, c.freqs_cis.shape());
    EXPECT_EQ(forward(other_argument, mode)[Stage::kOut], want);
    EXPECT_NE(forward(single_device(other_argument), mode)[Stage::kOut], want);
    Case other_rope = c;
    other_rope.config.rope.theta = 500.0;
    EXPECT_NE(forward(other_rope, mode)[Stage::kOut], want);
  }
}

// ---- Ways to the same cache.

std::vector<AttentionConfig> cache_configs() {
  std::vector<AttentionConfig> configs;
  for (const std::string cache :
       {R"("bfloat16")", R"("float8_e4m3fn")", R"("float8_e4m3fn", "scale_granularity": "tensor")",
        R"("float8_e4m3fn", "scale_granularity": "head")",
        R"("float8_e4m3fn", "scale_granularity": "token_head")"}) {
    const std::string json = R"({"dtype": "bfloat16", "entry_point": "forward",
        "variant": "attention_with_rope", "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 16, "hidden_size": 64, "use_qk_norm": true, "mask": {"variant": "causal"},
        "rope": {"interleaved": false, "rotary_dim": 8, "theta": 10000.0},
        "kv_cache": {"page_size": 4, "dtype": )" +
                             cache + "}}";
    configs.push_back(parse_config(json));
  }
  return configs;
}

TEST(SameCache, DevicesKeepTheirPartsOfTheCacheAndItsScales) {
  for (AttentionConfig config : cache_configs()) {
    for (const Variant variant : {Variant::kTensorParallel, Variant::kDataParallel}) {
      config.variant = variant;
      config.num_devices = 2;
      SCOPED_TRACE(to_json(config));
      const Case c = parallel_case(config);
      for (const Mode mode : kModes) {
        const Trace got = forward(c, mode);
        const Trace want = forward(single_device(c), mode);
        EXPECT_EQ(got.cache, want.cache);
        EXPECT_EQ(got[Stage::kCacheV], want[Stage::kCacheV]);
      }
      expect_near(forward(c, Mode::kExact), forward(single_device(c), Mode::kExact), config);
    }
  }
}

TEST(SameCache, RopeAndStoreFusedAndSeparate) {
  for (const AttentionConfig& config : cache_configs()) {
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
      SCOPED_TRACE(to_json(config) + " seed " + std::to_string(seed));
      const Case c = parallel_case(config, seed, {{1, 5, 3}, {2, 0, 7}, {3, 2, 0}});
      for (const Mode mode : kModes) {
        const Rounding r(mode);
        const Trace trace = forward(c, mode);
        const auto q = as_matrix(trace[Stage::kQNorm], c.tokens(), config.q_width());
        const auto k = as_matrix(trace[Stage::kKNorm], c.tokens(), config.k_width());
        const auto v = as_matrix(trace[Stage::kVProj], c.tokens(), config.v_width());
        const RotatedQueries fused = rope_and_store(c, q, k, v, r);
        const RotatedQueries separate = rope_then_store(c, q, k, v, r);
        EXPECT_EQ(fused.q, separate.q);
        EXPECT_EQ(fused.cache, separate.cache);
        EXPECT_EQ(fused.cache, trace.cache) << "what the layer leaves";
        EXPECT_NE(fused.cache, c.cache);
      }
    }
  }
}

TEST(SameCache, MaterializeLeavesForwardsBits) {
  for (AttentionConfig config : cache_configs()) {
    for (const Variant variant :
         {Variant::kAttentionWithRope, Variant::kTensorParallel, Variant::kDataParallel}) {
      config.variant = variant;
      config.num_devices = variant == Variant::kAttentionWithRope ? 1 : 2;
      for (std::uint64_t seed = 0; seed < 5; ++seed) {
        SCOPED_TRACE(to_json(config) + " seed " + std::to_string(seed));
        const Case forward_case = parallel_case(config, seed);
        Case only_cache = forward_case;
        only_cache.config.entry_point = EntryPoint::kMaterializeKvFromHidden;
        for (const Mode mode : kModes) {
          const Trace want = forward(forward_case, mode);
          const Trace got = materialize_kv_from_hidden(only_cache, mode);
          EXPECT_EQ(got.cache, want.cache);
          for (const Stage stage : stages_of(only_cache.config)) {
            EXPECT_EQ(got[stage], want[stage]) << name_of(stage);
          }
        }
      }
    }
  }
}

TEST(SameCache, MaterializeLeavesForwardsBitsInEveryEncoding) {
  const std::string fp8 = R"({"encoding": "float8_e4m3fn", "weight_granularity": )";
  for (const std::string& quant :
       {fp8 + R"("tensor", "activation": "static"})", fp8 + R"("rowwise", "activation": "token"})",
        std::string(R"({"encoding": "nvfp4", "activation": "block"})"),
        std::string(R"({"encoding": "mxfp4", "activation": "block"})"),
        std::string(R"({"encoding": "mxfp8"})"),
        std::string(R"({"encoding": "gptq", "bits": 4, "group_size": 32, "desc_act": true,
                        "sym": true})"),
        std::string(R"({"encoding": "q4_0", "activation": "int8"})")}) {
    SCOPED_TRACE(quant);
    const bool gguf = quant.find("q4_0") != std::string::npos;
    const Case forward_case =
        parallel_case(parallel_config(quant, 3, {}, gguf ? "float32" : "bfloat16"));
    Case only_cache = forward_case;
    only_cache.config.entry_point = EntryPoint::kMaterializeKvFromHidden;
    for (const Mode mode : kModes) {
      EXPECT_EQ(materialize_kv_from_hidden(only_cache, mode).cache,
                forward(forward_case, mode).cache);
    }
  }
}

}  // namespace
}  // namespace attn::reference
