// shard(): stored layers cut by heads. The sharded reference runs each shard as a layer of its own
// and adds the outputs; the tensor_parallel layer, which cuts what it decoded, must agree with it.

#include "reference/layers/shard.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "reference/core/devices.h"
#include "reference/core/error.h"
#include "reference/core/rules.h"
#include "reference/layers/distribute.h"
#include "reference/layers/shard_heads.h"
#include "reference/reference.h"
#include "reference/stages/weights.h"
#include "tests/reference/make_case.h"
#include "tests/reference/parallel_case.h"

namespace attn::reference {
namespace {

using test::Dims;
using test::largest_magnitude;
using test::parallel_case;
using test::parallel_config;

Layer layer_of(const Case& c, const std::string& strategy = "tensor_parallel") {
  Layer layer{c.config, c.weights, {}};
  layer.set_sharding_strategy(strategy);
  return layer;
}

/// The shards of c as cases of one device each.
std::vector<Case> sharded(const Case& c) {
  const std::vector<Layer> shards = shard(layer_of(c), c.config.num_devices);
  std::vector<std::int64_t> devices(shards.size());
  std::iota(devices.begin(), devices.end(), 0);
  DeviceInputs inputs{distribute_value(c.x, devices),
                      distribute_value(c.input_row_offsets, devices),
                      distribute_value(c.cache_lengths, devices),
                      distribute_value(c.freqs_cis, devices),
                      {}};
  for (const DeviceHeads& heads : device_heads(c.config)) {
    inputs.kv_collections.push_back(take_kv_heads(c.cache, heads.kv_heads));
  }
  return device_cases(shards, inputs);
}

Matrix columns_of(const Trace& trace, Stage stage, std::int64_t rows, Range columns) {
  const std::int64_t width = trace[stage].size() / rows;
  return as_matrix(trace[stage], rows, width).middleCols(columns.first, columns.count);
}

struct Encoding {
  std::string name;
  std::string quant;
  Dims dims;
  std::string dtype;
  bool faithful = true;  ///< smaller blocks round partial sums elsewhere
};

std::vector<Encoding> encodings() {
  const std::string fp8 = R"({"encoding": "float8_e4m3fn", "weight_granularity": )";
  const std::string gptq = R"({"encoding": "gptq", "sym": true, "desc_act": )";
  return {
      {"none", "null", {}, "float32"},
      {"fp8_static", fp8 + R"("tensor", "activation": "static"})", {}, "bfloat16"},
      {"fp8_token_tensor", fp8 + R"("tensor", "activation": "token"})", {}, "bfloat16"},
      {"fp8_rowwise", fp8 + R"("rowwise", "activation": "token"})", {}, "bfloat16"},
      // Blocks of 64 rows and columns; a device of 8 holds 16 rows of k and 32 columns of o_proj.
      {"fp8_block",
       fp8 + R"("block", "block": [64, 64], "activation": "none"})",
       {},
       "bfloat16",
       false},
      {"fp8_block_block",
       fp8 + R"("block", "block": [64, 128], "activation": "block"})",
       {64, 256},
       "bfloat16",
       false},
      {"nvfp4", R"({"encoding": "nvfp4"})", {}, "bfloat16"},
      {"nvfp4_block", R"({"encoding": "nvfp4", "activation": "block"})", {}, "bfloat16"},
      {"mxfp4", R"({"encoding": "mxfp4", "activation": "block"})", {}, "bfloat16"},
      {"mxfp8", R"({"encoding": "mxfp8", "activation": "block"})", {}, "bfloat16"},
      {"q4_0", R"({"encoding": "q4_0", "activation": "int8"})", {}, "float32"},
      {"q8_0", R"({"encoding": "q8_0"})", {}, "float32"},
      {"q4_k", R"({"encoding": "q4_k"})", {128, 256}, "float32"},
      {"q5_k", R"({"encoding": "q5_k"})", {128, 256}, "float32"},
      {"q6_k", R"({"encoding": "q6_k", "activation": "int8"})", {128, 256}, "float32"},
      {"gptq4", gptq + R"(false, "bits": 4, "group_size": 64})", {}, "float16"},
      {"gptq8", gptq + R"(false, "bits": 8, "group_size": 32})", {}, "bfloat16"},
      {"gptq_whole_row", gptq + R"(false, "bits": 4, "group_size": -1})", {}, "bfloat16"},
      {"gptq_desc_act", gptq + R"(true, "bits": 4, "group_size": 32})", {}, "float16"},
      // 4 rows of k and 8 columns of o_proj for a device: words of 8 codes are split and refilled.
      {"gptq_packed", gptq + R"(true, "bits": 4, "group_size": 16})", {4, 64}, "float16"},
  };
}

class ShardedReference : public testing::TestWithParam<Encoding> {
 protected:
  static Case make(std::int64_t devices) {
    const Encoding& e = GetParam();
    return parallel_case(parallel_config(e.quant, devices, e.dims, e.dtype));
  }
};

TEST_P(ShardedReference, ShardsAreValidAndKeepEveryWeight) {
  const Rounding exact(Mode::kExact);
  for (const std::int64_t devices : {1, 2, 3, 4, 8}) {
    SCOPED_TRACE(devices);
    const Case whole = make(devices);
    const std::vector<Case> shards = sharded(whole);
    const std::vector<DeviceHeads> heads = device_heads(whole.config);
    ASSERT_EQ(shards.size(), heads.size());
    for (std::size_t i = 0; i < shards.size(); ++i) {
      ASSERT_NO_THROW(validate(shards[i]));
      const std::int64_t d = whole.config.head_dim;
      const auto q = Range{heads[i].q_heads.first * d, heads[i].q_heads.count * d};
      const auto kv = Range{heads[i].kv_heads.first * d, heads[i].kv_heads.count * d};
      for (const Projection p : {Projection::kQ, Projection::kK, Projection::kV}) {
        const Range rows = p == Projection::kQ ? q : kv;
        EXPECT_EQ(projection_weight(shards[i], p, exact),
                  projection_weight(whole, p, exact).middleRows(rows.first, rows.count));
      }
      EXPECT_EQ(projection_weight(shards[i], Projection::kO, exact),
                projection_weight(whole, Projection::kO, exact).middleCols(q.first, q.count));
    }
  }
}

TEST_P(ShardedReference, TensorParallelIsTheSumOfTheShards) {
  for (const std::int64_t devices : {1, 2, 3, 4, 8}) {
    for (const Mode mode : {Mode::kExact, Mode::kFaithful}) {
      if (mode == Mode::kFaithful && !GetParam().faithful) continue;
      SCOPED_TRACE(std::to_string(devices) + " devices, mode " +
                   std::to_string(static_cast<int>(mode)));
      const Case whole = make(devices);
      const Rounding r(mode);
      const Trace got = forward(whole, mode);
      const std::vector<Case> shards = sharded(whole);
      const std::vector<DeviceHeads> heads = device_heads(whole.config);
      Matrix sum = Matrix::Zero(whole.tokens(), whole.config.hidden_size);
      for (std::size_t i = 0; i < shards.size(); ++i) {
        const Trace part = forward(shards[i], mode);
        const std::int64_t d = whole.config.head_dim;
        const Range q{heads[i].q_heads.first * d, heads[i].q_heads.count * d};
        const Range kv{heads[i].kv_heads.first * d, heads[i].kv_heads.count * d};
        for (const Stage stage : {Stage::kQRope, Stage::kAttnOut, Stage::kLse}) {
          const Range range = stage == Stage::kLse ? heads[i].q_heads : q;
          EXPECT_EQ(as_matrix(part[stage], whole.tokens(), range.count),
                    columns_of(got, stage, whole.tokens(), range))
              << name_of(stage);
        }
        for (const Stage stage : {Stage::kCacheK, Stage::kCacheV}) {
          EXPECT_EQ(as_matrix(part[stage], whole.total_keys(), kv.count),
                    columns_of(got, stage, whole.total_keys(), kv));
        }
        EXPECT_EQ(*part.cache, take_kv_heads(*got.cache, heads[i].kv_heads));
        sum += as_matrix(part[Stage::kOut], sum.rows(), sum.cols());
      }
      const Tensor want = to_tensor(r.to(whole.config.dtype, sum), got[Stage::kOut].shape());
      // Equal terms in another order, n of them: each side errs by at most n 2^-53 sum|t|, and
      // sum|t| <= n max|attn_out| max|w|; 2 for codes, whose value may exceed attn_out's. The
      // faithful mode rounds the difference away.
      const auto n = static_cast<double>(whole.config.attn_width());
      const double w =
          projection_weight(whole, Projection::kO, Rounding(Mode::kExact)).cwiseAbs().maxCoeff();
      const double bound =
          r.exact() ? 2 * n * 0x1p-53 * n * 2 * largest_magnitude(got[Stage::kAttnOut]) * w : 0.0;
      EXPECT_LE(test::largest_difference(got[Stage::kOut], want), bound);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Encodings, ShardedReference, testing::ValuesIn(encodings()),
                         [](const auto& encoding) { return encoding.param.name; });

// ---- What a shard holds, by hand.

/// 3 query heads on 3 kv heads of 2 channels, hidden 2: element i of every tensor is i.
Layer counting_layer(bool stacked) {
  Layer layer;
  layer.config = test::small_config();
  layer.config.num_attention_heads = 3;
  layer.config.num_key_value_heads = 3;
  layer.config.head_dim = 2;
  layer.config.head_dim_v = 2;
  layer.config.hidden_size = 2;
  layer.config.stacked_qkv = stacked;
  layer.config.has_bias = !stacked;
  layer.config.use_qk_norm = true;
  for (const TensorSpec& spec : expected_weights(layer.config)) {
    std::vector<double> values(static_cast<std::size_t>(num_elements(spec.shape)));
    std::iota(values.begin(), values.end(), 0.0);
    layer.weights[spec.name] = Tensor::from_values(spec.types.front(), spec.shape, values);
  }
  layer.set_sharding_strategy("tensor_parallel");
  return layer;
}

using Values = std::vector<double>;

TEST(Shard, SeparateWeightsOfUnevenHeads) {
  const std::vector<Layer> shards = shard(counting_layer(false), 2);
  ASSERT_EQ(shards.size(), 2U);
  EXPECT_EQ(shards[0].config.num_attention_heads, 2);
  EXPECT_EQ(shards[0].config.num_key_value_heads, 2);
  EXPECT_EQ(shards[1].config.num_key_value_heads, 1);
  EXPECT_EQ(shards[1].config.num_devices, 1);
  EXPECT_FALSE(shards[1].sharding_strategy.has_value());
  // Device 1 holds head 2: rows 4 and 5 of q, k, v; columns 4 and 5 of o_proj [2, 6].
  const LayerWeights& w = shards[1].weights;
  for (const std::string p : {"q_proj", "k_proj", "v_proj"}) {
    EXPECT_EQ(w.at(p + ".weight").values(), (Values{8, 9, 10, 11}));
    EXPECT_EQ(w.at(p + ".bias").values(), (Values{4, 5}));
  }
  EXPECT_EQ(w.at("o_proj.weight").values(), (Values{4, 5, 10, 11}));
  EXPECT_EQ(w.at("q_norm.weight").values(), (Values{0, 1}));
  EXPECT_EQ(w.at("sinks").values(), (Values{2}));
}

TEST(Shard, StackedWeightIsSplitByQKAndV) {
  // [18, 2]: q rows 0-5, k rows 6-11, v rows 12-17; device 1 holds the last two of each.
  const LayerWeights w = shard(counting_layer(true), 2)[1].weights;
  EXPECT_EQ(w.at("qkv_proj.weight").values(),
            (Values{8, 9, 10, 11, 20, 21, 22, 23, 32, 33, 34, 35}));
}

TEST(Shard, ReplicateGivesFullCopies) {
  Layer layer = counting_layer(false);
  layer.set_sharding_strategy("replicate");
  const std::vector<Layer> copies = shard(layer, 5);  // more than kv heads
  ASSERT_EQ(copies.size(), 5U);
  for (const Layer& copy : copies) {
    EXPECT_EQ(copy.config, layer.config);
    EXPECT_EQ(copy.weights, layer.weights);
    EXPECT_FALSE(copy.sharding_strategy.has_value());
  }
}

TEST(Shard, ReplicatedKvHeadsByHand) {
  // 3 kv heads on 6 devices would leave half of them without the one query head of their group.
  Layer layer = counting_layer(false);
  layer.config.num_attention_heads = 6;
  for (const TensorSpec& spec : expected_weights(layer.config)) {
    std::vector<double> values(static_cast<std::size_t>(num_elements(spec.shape)));
    std::iota(values.begin(), values.end(), 0.0);
    layer.weights[spec.name] = Tensor::from_values(spec.types.front(), spec.shape, values);
  }
  layer.config.kv_head_replication = true;
  const std::vector<Layer> shards = shard(layer, 6);
  // Device 3 holds query head 3 and, with device 2, kv head 3 / (6 / 3) = 1.
  EXPECT_EQ(shards[3].weights.at("q_proj.bias").values(), (Values{6, 7}));
  EXPECT_EQ(shards[3].weights.at("k_proj.bias").values(), (Values{2, 3}));
  EXPECT_EQ(shards[2].weights.at("v_proj.bias").values(), (Values{2, 3}));
}

// ---- Refusals.

/// Field, rule and text of a refusal.
void expect_refusal(const std::function<void()>& action, const std::string& field,
                    const std::string& rule, const std::string& message) {
  try {
    action();
    ADD_FAILURE() << "accepted: " << message;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kConfig);
    EXPECT_EQ(error.field(), field);
    EXPECT_EQ(error.rule(), rule);
    EXPECT_EQ(std::string(error.what()), message);
  }
}

TEST(ShardRefusals, BeforeAStrategyIsSet) {
  Layer layer = counting_layer(false);
  layer.sharding_strategy.reset();
  expect_refusal([&] { shard(layer, 2); }, "sharding_strategy", "15a",
                 "sharding_strategy = \"\": a layer has no shards before a strategy is set; set "
                 "tensor_parallel or replicate");
}

TEST(ShardRefusals, OtherStrategies) {
  Layer layer = counting_layer(false);
  expect_refusal([&] { layer.set_sharding_strategy("replicated"); }, "sharding_strategy", "15b",
                 "sharding_strategy = \"replicated\": an unknown strategy; did you mean "
                 "\"replicate\"?");
  expect_refusal([&] { layer.set_sharding_strategy("rowwise"); }, "sharding_strategy", "15b",
                 "sharding_strategy = \"rowwise\": an unknown strategy; known: tensor_parallel, "
                 "replicate");
  EXPECT_EQ(layer.sharding_strategy, ShardingStrategy::kTensorParallel) << "kept";
}

TEST(ShardRefusals, MoreDevicesThanKvHeads) {
  expect_refusal([] { shard(counting_layer(false), 4); }, "num_devices", "8a",
                 "num_devices = 4: more than num_key_value_heads = 3; use fewer devices, or set "
                 "kv_head_replication to true");
  Layer layer = counting_layer(false);
  layer.config.kv_head_replication = true;
  expect_refusal([&] { shard(layer, 4); }, "num_devices", "8b",
                 "num_devices = 4: must be a multiple of num_key_value_heads = 3 to replicate each "
                 "as often; use such a device count");
  expect_refusal([&] { shard(layer, 6); }, "num_devices", "",
                 "num_devices = 6: device 1 would hold no query head; use at most "
                 "num_attention_heads = 3 devices");
}

TEST(ShardRefusals, NoDevices) {
  expect_refusal([] { shard(counting_layer(false), 0); }, "num_devices", "8c",
                 "num_devices = 0: a layer runs on at least 1 device; use 1");
}

TEST(ShardRefusals, CutBlocksOfAFixedSize) {
  const Case q4_k = parallel_case(parallel_config(R"({"encoding": "q4_k"})", 8, {64, 256}));
  expect_refusal([&] { shard(layer_of(q4_k), 8); }, "num_devices", "",
                 "num_devices = 8: device 0 would hold columns 0 .. 127 of o_proj, which cut a "
                 "block of 256 columns (q4_k); use a device count that gives each a multiple of "
                 "256");
  // The layer of all devices cuts what it decoded: it is the layer of one device.
  Case one = q4_k;
  one.config.num_devices = 1;
  const Tensor want = forward(one, Mode::kExact)[Stage::kOut];
  const Tensor got = forward(q4_k, Mode::kExact)[Stage::kOut];
  EXPECT_LE(test::largest_difference(got, want), 1e-12 * largest_magnitude(want));

  const Case fp8 = parallel_case(parallel_config(
      R"({"encoding": "float8_e4m3fn", "weight_granularity": "block", "block": [16, 128],
          "activation": "block"})",
      8, {16, 128}));
  expect_refusal([&] { shard(layer_of(fp8), 8); }, "num_devices", "",
                 "num_devices = 8: device 0 would hold columns 0 .. 31 of o_proj, which cut a "
                 "block of 128 columns (float8_e4m3fn); use a device count that gives each a "
                 "multiple of 128");
}

TEST(TensorParallel, Int8CodesOfSlicesThatCutAWeightsBlock) {
  // Each device quantises 128 columns; a q4_k block of the weight has 256.
  const Case c =
      parallel_case(parallel_config(R"({"encoding": "q4_k", "activation": "int8"})", 8, {64, 256}));
  const Trace exact = forward(c, Mode::kExact);
  const Tensor faithful = forward(c, Mode::kFaithful)[Stage::kOut];
  // Float32 sums of n products: n 2^-24 sum|t|, with sum|t| <= n max|attn_out| max|w|.
  const auto n = static_cast<double>(c.config.attn_width());
  const double w =
      projection_weight(c, Projection::kO, Rounding(Mode::kExact)).cwiseAbs().maxCoeff();
  EXPECT_LE(test::largest_difference(faithful, exact[Stage::kOut]),
            n * 0x1p-24 * n * largest_magnitude(exact[Stage::kAttnOut]) * w);
}

TEST(ShardRefusals, WeightsThatTheConfigDoesNotHave) {
  Layer layer = counting_layer(false);
  layer.weights["q_proj.weight"] = Tensor(ElementType::kFloat32, {6, 3});
  expect_refusal([&] { shard(layer, 2); }, "weights/q_proj.weight", "",
                 "weights/q_proj.weight = float32 [6, 3]: the config needs float32 [6, 2]; store "
                 "it so");
  layer.weights.erase("q_proj.weight");
  expect_refusal([&] { shard(layer, 2); }, "weights/q_proj.weight", "",
                 "weights/q_proj.weight = nothing: the config needs [6, 2]; add it");
  layer = counting_layer(false);
  layer.weights["q_proj.weights"] = layer.weights["q_proj.weight"];
  expect_refusal([&] { shard(layer, 2); }, "weights/q_proj.weights", "",
                 "weights/q_proj.weights = [6, 2]: the config has no weight of this name; did you "
                 "mean \"q_proj.weight\"?");
}

TEST(ShardRefusals, GroupsThatDoNotExist) {
  const std::string quant =
      R"({"encoding": "gptq", "bits": 4, "group_size": 64, "desc_act": true, "sym": true})";
  Layer layer = layer_of(parallel_case(parallel_config(quant, 2, {}, "float16")));
  layer.weights.at("o_proj.g_idx").as<std::int32_t>()[7] = 4;  // of 256 / 64 groups
  expect_refusal([&] { shard(layer, 2); }, "weights/o_proj.g_idx", "",
                 "weights/o_proj.g_idx = 4: must be below the number of groups, 4; repair the "
                 "checkpoint");
}

}  // namespace
}  // namespace attn::reference
