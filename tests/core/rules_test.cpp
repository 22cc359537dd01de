// Every rule of the two tables has an entry here that breaks it and nothing before it. The tests
// walk the tables, so a rule without an entry fails.
#include "reference/core/rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <map>
#include <set>
#include <string>

#include "reference/core/error.h"
#include "tests/core/case_fixture.h"

namespace attn {
namespace {

using test::attention_config;
using test::layer_config;
using test::make_case;
using test::quantised_config;

/// A subject that breaks one rule, and how its message starts: field and value.
template <typename Subject>
struct Breaker {
  std::function<Subject()> make;
  std::string says;
};

template <typename Change>
Breaker<AttentionConfig> layer(const std::string& says, Change change) {
  return {[change] {
            AttentionConfig c = layer_config();
            change(c);
            return c;
          },
          says};
}

template <typename Change>
Breaker<AttentionConfig> quantised(QuantEncoding encoding, const std::string& says, Change change) {
  return {[encoding, change] {
            AttentionConfig c = quantised_config(encoding);
            change(c);
            return c;
          },
          says};
}

template <typename Change>
Breaker<AttentionConfig> no_opaque(const std::string& says, Change change) {
  return layer(says, [change](AttentionConfig& c) {
    c.variant = Variant::kNoOpaque;
    c.stacked_qkv = true;
    change(c);
  });
}

template <typename Change>
Breaker<AttentionConfig> tensor_parallel(const std::string& says, Change change) {
  return layer(says, [change](AttentionConfig& c) {
    c.variant = Variant::kTensorParallel;
    change(c);
  });
}

using Config = AttentionConfig;
using enum QuantEncoding;

const std::multimap<std::string, Breaker<AttentionConfig>>& config_breakers() {
  static const std::multimap<std::string, Breaker<AttentionConfig>> kBreakers{
      {"1a", layer("has_bias = true", [](Config& c) { c.stacked_qkv = c.has_bias = true; })},
      {"1b", layer("clip_qkv = 0.5",
                   [](Config& c) {
                     c.stacked_qkv = true;
                     c.clip_qkv = 0.5;
                   })},
      {"1c",
       quantised(kMxfp4, "quant.encoding = \"mxfp4\"", [](Config& c) { c.stacked_qkv = true; })},
      {"2a", quantised(kQ4_0, "clip_qkv = 0.5", [](Config& c) { c.clip_qkv = 0.5; })},
      {"2a", quantised(kQ6_K, "clip_qkv = 0", [](Config& c) { c.clip_qkv = 0.0; })},
      {"2b", quantised(kGptq, "clip_qkv = 0.5", [](Config& c) { c.clip_qkv = 0.5; })},
      {"2c", quantised(kNvfp4, "clip_qkv = 0.5", [](Config& c) { c.clip_qkv = 0.5; })},
      {"2d", quantised(kMxfp4, "clip_qkv = 0.5", [](Config& c) { c.clip_qkv = 0.5; })},
      {"2e", quantised(kMxfp8, "clip_qkv = 0.5", [](Config& c) { c.clip_qkv = 0.5; })},
      {"3a", no_opaque("stacked_qkv = false", [](Config& c) { c.stacked_qkv = false; })},
      {"3b", no_opaque("rope.interleaved = false", [](Config& c) { c.rope.interleaved = false; })},
      {"3c", no_opaque("has_bias = true", [](Config& c) { c.has_bias = true; })},
      {"3d", no_opaque("clip_qkv = 0.5", [](Config& c) { c.clip_qkv = 0.5; })},
      {"3e", no_opaque("clip_activations = 2", [](Config& c) { c.clip_activations = 2; })},
      {"3f", no_opaque("use_qk_norm = true", [](Config& c) { c.use_qk_norm = true; })},
      {"3g", quantised(kMxfp8, "quant.encoding = \"mxfp8\"",
                       [](Config& c) {
                         c.variant = Variant::kNoOpaque;
                         c.stacked_qkv = true;
                       })},
      {"4", layer("num_attention_heads = 5", [](Config& c) { c.num_attention_heads = 5; })},
      {"4", layer("num_attention_heads = 1", [](Config& c) { c.num_attention_heads = 1; })},
      {"5a", layer("rope.rotary_dim = 7", [](Config& c) { c.rope.rotary_dim = 7; })},
      {"5a", layer("head_dim = 15", [](Config& c) { c.head_dim = c.head_dim_v = 15; })},
      {"5b", layer("rope.rotary_dim = 18", [](Config& c) { c.rope.rotary_dim = 18; })},
      {"5c", layer("rope.rotary_dim = 0", [](Config& c) { c.rope.rotary_dim = 0; })},
      {"7a", layer("mask.variant = \"sliding_window_causal\"",
                   [](Config& c) { c.mask.variant = MaskVariant::kSlidingWindowCausal; })},
      {"7a", layer("mask.variant = \"sliding_window_noncausal\"",
                   [](Config& c) { c.mask.variant = MaskVariant::kSlidingWindowNoncausal; })},
      {"7b", layer("mask.variant = \"chunked_causal\"",
                   [](Config& c) { c.mask.variant = MaskVariant::kChunkedCausal; })},
      {"7c", layer("mask.window_size = 4", [](Config& c) { c.mask.window_size = 4; })},
      {"7d", layer("mask.chunk_size = 4", [](Config& c) { c.mask.chunk_size = 4; })},
      {"7e", layer("mask.window_size = 0",
                   [](Config& c) {
                     c.mask.variant = MaskVariant::kSlidingWindowCausal;
                     c.mask.window_size = 0;
                   })},
      {"7f", layer("mask.chunk_size = -3",
                   [](Config& c) {
                     c.mask.variant = MaskVariant::kChunkedCausal;
                     c.mask.chunk_size = -3;
                   })},
      {"8a", tensor_parallel("num_devices = 4", [](Config& c) { c.num_devices = 4; })},
      {"8b", tensor_parallel("num_devices = 3",
                             [](Config& c) {
                               c.num_devices = 3;
                               c.kv_head_replication = true;
                             })},
      {"8c", layer("num_devices = 0", [](Config& c) { c.num_devices = 0; })},
      {"9a", quantised(kQ4_0, "dtype = \"bfloat16\"",
                       [](Config& c) { c.dtype = ElementType::kBFloat16; })},
      {"9b", quantised(kQ4_K, "hidden_size = 128", [](Config& c) { c.hidden_size = 128; })},
      {"9b", quantised(kQ8_0, "num_attention_heads * head_dim = 240",
                       [](Config& c) { c.head_dim = c.head_dim_v = 60; })},
      {"10a", quantised(kGptq, "quant.bits = 3", [](Config& c) { c.quant->bits = 3; })},
      {"10b",
       quantised(kGptq, "quant.group_size = 100", [](Config& c) { c.quant->group_size = 100; })},
      {"10b", quantised(kGptq, "quant.group_size = 0", [](Config& c) { c.quant->group_size = 0; })},
      {"10c", quantised(kGptq, "quant.sym = false", [](Config& c) { c.quant->sym = false; })},
      {"11a", quantised(kFloat8E4M3FN, "quant.weight_granularity = \"rowwise\"",
                        [](Config& c) {
                          c.quant->activation = ActivationQuant::kStatic;
                          c.quant->weight_granularity = WeightGranularity::kRowwise;
                        })},
      {"11b", quantised(kFloat8E4M3FN, "quant.weight_granularity = \"block\"",
                        [](Config& c) {
                          c.quant->activation = ActivationQuant::kStatic;
                          c.quant->weight_granularity = WeightGranularity::kBlock;
                        })},
      {"11c", quantised(kFloat8E4M3FN, "quant.block[0] = 256",
                        [](Config& c) {
                          c.quant->weight_granularity = WeightGranularity::kBlock;
                          c.quant->block_n = 256;  // divides q's 256 rows, not k's 128
                        })},
      {"11e",
       quantised(kFloat8E4M3FN, "quant.block[0] = 0", [](Config& c) { c.quant->block_n = 0; })},
      {"11e",
       quantised(kFloat8E4M3FN, "quant.block[1] = -1", [](Config& c) { c.quant->block_k = -1; })},
      {"11f", quantised(kFloat8E4M3FN, "quant.block[1] = 64",
                        [](Config& c) {
                          c.quant->activation = ActivationQuant::kBlock;
                          c.quant->weight_granularity = WeightGranularity::kBlock;
                          c.quant->block_k = 64;
                        })},
      {"12a", quantised(kNvfp4, "hidden_size = 248", [](Config& c) { c.hidden_size = 248; })},
      {"12b", quantised(kMxfp4, "hidden_size = 240", [](Config& c) { c.hidden_size = 240; })},
      {"12c", quantised(kMxfp8, "num_attention_heads * head_dim = 240",
                        [](Config& c) { c.head_dim = c.head_dim_v = 60; })},
      {"13a", layer("rms_norm_eps = 0", [](Config& c) { c.rms_norm_eps = 0; })},
      {"13b", layer("rope.theta = -1", [](Config& c) { c.rope.theta = -1; })},
      {"13c", layer("kv_cache.page_size = 0", [](Config& c) { c.kv_cache.page_size = 0; })},
      {"13d", layer("clip_qkv = -0.5", [](Config& c) { c.clip_qkv = -0.5; })},
      {"13e", layer("clip_activations = -0.5", [](Config& c) { c.clip_activations = -0.5; })},
      {"13f", layer("head_dim = 0", [](Config& c) { c.head_dim = 0; })},
      {"13g", layer("hidden_size = 1099511627776", [](Config& c) { c.hidden_size = 1LL << 40; })},
      {"13g", layer("mask.window_size = 9223372036854775807",
                    [](Config& c) {
                      c.mask.variant = MaskVariant::kSlidingWindowCausal;
                      c.mask.window_size = std::numeric_limits<std::int64_t>::max();
                    })},
      {"13i",
       layer("scale = inf", [](Config& c) { c.scale = std::numeric_limits<double>::infinity(); })},
      {"13j", layer("logit_softcap = 0", [](Config& c) { c.logit_softcap = 0; })},
      {"13k", layer("dtype = \"float64\"", [](Config& c) { c.dtype = ElementType::kFloat64; })},
      {"13l", layer("kv_cache.dtype = \"int32\"",
                    [](Config& c) { c.kv_cache.dtype = ElementType::kInt32; })},
      {"13m", layer("kv_cache.scale_granularity = \"head\"",
                    [](Config& c) { c.kv_cache.scale_granularity = ScaleGranularity::kHead; })},
      {"13n", quantised(kQ4_0, "quant.activation = \"token\"",
                        [](Config& c) { c.quant->activation = ActivationQuant::kToken; })},
      {"13n", quantised(kGptq, "quant.activation = \"int8\"",
                        [](Config& c) { c.quant->activation = ActivationQuant::kInt8; })},
      {"13n", quantised(kNvfp4, "quant.activation = \"static\"",
                        [](Config& c) { c.quant->activation = ActivationQuant::kStatic; })},
      {"13n", quantised(kFloat8E4M3FN, "quant.activation = \"int8\"",
                        [](Config& c) { c.quant->activation = ActivationQuant::kInt8; })},
      {"13o", quantised(kQ4_0, "quant.encoding.v_proj = \"gptq\"",
                        [](Config& c) { c.quant->v_proj = kGptq; })},
      {"13o", quantised(kNone, "quant.encoding.q_proj = \"none\"", [](Config&) {})},
      {"13p", layer("rope.scaling.factor = 0",
                    [](Config& c) {
                      c.rope.scaling.type = RopeScalingType::kLinear;
                      c.rope.scaling.factor = 0;
                    })},
      {"13p", layer("rope.scaling.original_max_position_embeddings = 0",
                    [](Config& c) { c.rope.scaling.type = RopeScalingType::kYarn; })},
      {"13q", layer("rope.scaling.long_factor.length = 7",
                    [](Config& c) {
                      c.rope.scaling.type = RopeScalingType::kLongrope;
                      c.rope.scaling.original_max_position_embeddings = 64;
                      c.rope.scaling.max_position_embeddings = 128;
                      c.rope.scaling.short_factor.assign(8, 1.0);
                      c.rope.scaling.long_factor.assign(7, 1.0);
                    })},
      {"14a", layer("entry_point = \"materialize_kv_from_hidden\"",
                    [](Config& c) {
                      c.variant = Variant::kAttention;
                      c.entry_point = EntryPoint::kMaterializeKvFromHidden;
                    })},
      {"14b",
       {[] {
          AttentionConfig c = attention_config();
          c.hidden_size = 64;
          return c;
        },
        "hidden_size = 64"}},
      {"14b",
       {[] {
          AttentionConfig c = attention_config();
          c.rope.theta = 5;
          return c;
        },
        "rope.theta = 5"}},
      {"14c", layer("head_dim_v = 8", [](Config& c) { c.head_dim_v = 8; })},
  };
  return kBreakers;
}

Breaker<Case> broken(const AttentionConfig& config, const std::string& says,
                     const std::function<void(Case&)>& change) {
  return {[config, change] {
            Case c = make_case(config);
            change(c);
            return c;
          },
          says};
}

AttentionConfig fp8_tensor() { return quantised_config(kFloat8E4M3FN); }

AttentionConfig fp8_cache() {
  AttentionConfig c = attention_config();
  c.kv_cache.dtype = ElementType::kFloat8E4M3FN;
  c.kv_cache.scale_granularity = ScaleGranularity::kHead;
  return c;
}

AttentionConfig tensor_mask() {
  AttentionConfig c = attention_config();
  c.mask.variant = MaskVariant::kTensor;
  return c;
}

AttentionConfig gptq_v2() {
  AttentionConfig c = quantised_config(kGptq);
  c.quant->checkpoint_v2 = true;
  return c;
}

const std::multimap<std::string, Breaker<Case>>& case_breakers() {
  static const std::multimap<std::string, Breaker<Case>> kBreakers{
      {"6a", broken(layer_config(), "inputs/input_row_offsets[0] = 1",
                    [](Case& c) { c.input_row_offsets.set_code(0, 1); })},
      {"6a", broken(layer_config(), "inputs/input_row_offsets = []",
                    [](Case& c) {
                      c.input_row_offsets = Tensor(ElementType::kUInt32, {0});
                      c.cache_lengths = c.cache.page_table = Tensor();
                      c.cache_lengths = Tensor(ElementType::kUInt32, {0});
                      c.cache.page_table = Tensor(ElementType::kUInt32, {0, 1});
                    })},
      {"6b", broken(layer_config(), "inputs/input_row_offsets[2] = 2",
                    [](Case& c) { c.input_row_offsets.set_code(2, 2); })},
      {"6c", broken(layer_config(), "inputs/input_row_offsets[2] = 5",
                    [](Case& c) { c.input_row_offsets.set_code(2, 5); })},
      {"6c", broken(attention_config(), "inputs/input_row_offsets[2] = 3",
                    [](Case& c) { c.input_row_offsets.set_code(2, 3); })},
      {"6d", broken(layer_config(), "inputs/cache_lengths[1] = 20",
                    [](Case& c) {
                      c.freqs_cis = Tensor(ElementType::kFloat32, {20, 16});
                    })},
      {"10d", broken(quantised_config(kGptq), "weights/o_proj.g_idx[3] = 2",
                     [](Case& c) { c.weights["o_proj.g_idx"].set_code(3, 2); })},
      {"10d", broken(quantised_config(kGptq), "weights/q_proj.g_idx[0] = -1",
                     [](Case& c) { c.weights["q_proj.g_idx"].set_value(0, -1); })},
      {"10e", broken(quantised_config(kGptq), "weights/v_proj.g_idx[7] = 1",
                     [](Case& c) { c.weights["v_proj.g_idx"].set_code(7, 1); })},
      {"10f", broken(quantised_config(kGptq), "weights/k_proj.qzeros group 1 row 127 = 8",
                     [](Case& c) { c.weights["k_proj.qzeros"].set_code(31, 0x87777777); })},
      {"10f", broken(gptq_v2(), "weights/q_proj.qzeros group 0 row 0 = 7", [](Case&) {})},
      {"11d", broken(fp8_tensor(), "weights/k_proj.weight_scale = shape [1]",
                     [](Case& c) {
                       c.weights["k_proj.weight_scale"] = Tensor(ElementType::kFloat32, {1});
                     })},
      {"11d", broken(fp8_cache(), "cache/v_scale = shape []",
                     [](Case& c) { c.cache.v_scale = Tensor(ElementType::kFloat32, {}); })},
      {"13r", broken(layer_config(), "weights/sink = [4]",
                     [](Case& c) { c.weights["sink"] = Tensor(ElementType::kFloat32, {4}); })},
      {"t1", broken(layer_config(), "weights/v_proj.weight = nothing",
                    [](Case& c) { c.weights.erase("v_proj.weight"); })},
      {"t1", broken(layer_config(), "inputs/freqs_cis = nothing",
                    [](Case& c) { c.freqs_cis = Tensor(); })},
      {"t1", broken(attention_config(), "inputs/kv_lengths = nothing",
                    [](Case& c) { c.cache_lengths = Tensor(); })},
      {"t1", broken(layer_config(), "cache/k = nothing", [](Case& c) { c.cache.k = Tensor(); })},
      {"t2", broken(layer_config(), "inputs/x = float64",
                    [](Case& c) {
                      c.x = Tensor(ElementType::kFloat64, {4, 64});
                    })},
      {"t2", broken(layer_config(), "inputs/cache_lengths = int32",
                    [](Case& c) { c.cache_lengths = Tensor(ElementType::kInt32, {2}); })},
      {"t3", broken(layer_config(), "weights/o_proj.weight = shape [64, 32]",
                    [](Case& c) {
                      c.weights["o_proj.weight"] = Tensor(ElementType::kFloat32, {64, 32});
                    })},
      {"t3", broken(layer_config(), "cache/v = shape [6, 1, 16, 2, 8]",
                    [](Case& c) {
                      c.cache.v = Tensor(ElementType::kFloat32, {6, 1, 16, 2, 8});
                    })},
      {"t4", broken(layer_config(), "inputs/mask = [4, 21]",
                    [](Case& c) {
                      c.mask = Tensor(ElementType::kFloat32, {4, 21});
                    })},
      {"t4", broken(attention_config(), "inputs/x = [4, 64]",
                    [](Case& c) {
                      c.x = Tensor(ElementType::kFloat32, {4, 64});
                    })},
      {"t5", broken(tensor_mask(), "inputs/mask = shape [4, 20]",
                    [](Case& c) {
                      c.mask = Tensor(ElementType::kFloat32, {4, 20});
                    })},
      {"t6", broken(layer_config(), "cache.layer = 1", [](Case& c) { c.cache.layer = 1; })},
      {"t7", broken(layer_config(), "cache.page_size = 8", [](Case& c) { c.cache.page_size = 8; })},
      {"t8", broken(layer_config(), "cache/page_table = shape [2, 1]",
                    [](Case& c) {
                      c.cache.page_table = Tensor(ElementType::kUInt32, {2, 1});
                    })},
      {"t9", broken(layer_config(), "cache/page_table[1, 1] = 6",
                    [](Case& c) { c.cache.page_table.set_code(3, 6); })},
      {"t10", broken(layer_config(), "cache/page_table[0, 0] =",
                     [](Case& c) { c.cache.page_table.set_code(0, c.cache.page_table.code(2)); })},
  };
  return kBreakers;
}

/// The message is one line that starts with field and value and says what to try.
void expect_message(const Error& error, std::string_view rule, const std::string& says) {
  const std::string message = error.what();
  EXPECT_EQ(error.kind(), ErrorKind::kConfig);
  EXPECT_EQ(error.rule(), rule) << message;
  EXPECT_THAT(message, testing::StartsWith(says));
  EXPECT_EQ(message.find(error.field()), 0U) << message;
  EXPECT_THAT(message, testing::HasSubstr(": "));
  EXPECT_THAT(message, testing::HasSubstr("; ")) << "what to try";
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

template <typename Rule, typename Subject>
void expect_every_rule_to_fire(std::span<const Rule> rules,
                               const std::multimap<std::string, Breaker<Subject>>& breakers) {
  std::set<std::string> ids;
  for (const Rule& rule : rules) {
    const std::string id(rule.id);
    EXPECT_TRUE(ids.insert(id).second) << id << " is in the table twice";
    EXPECT_FALSE(rule.summary.empty());
    const auto [first, last] = breakers.equal_range(id);
    EXPECT_NE(first, last) << "rule " << id << " (" << rule.summary << ") has no test";
    for (auto it = first; it != last; ++it) {
      SCOPED_TRACE("rule " + id + ", " + it->second.says);
      const Subject subject = it->second.make();
      EXPECT_TRUE(rule.check(subject));
      try {
        validate(subject);
        ADD_FAILURE() << "accepted";
      } catch (const Error& error) {
        expect_message(error, id, it->second.says);
      }
    }
  }
  for (const auto& entry : breakers) EXPECT_TRUE(ids.count(entry.first)) << entry.first;
}

TEST(ConfigRules, EachRefusesWhatBreaksItWithItsOwnMessage) {
  expect_every_rule_to_fire(config_rules(), config_breakers());
}

TEST(CaseRules, EachRefusesWhatBreaksItWithItsOwnMessage) {
  expect_every_rule_to_fire(case_rules(), case_breakers());
}

TEST(ConfigRules, CoverEveryRowOfTheFormat) {
  std::set<std::string> rows;
  const auto add = [&](std::string_view id) {
    rows.insert(std::string(id.substr(0, id.find_first_not_of("0123456789"))));
  };
  for (const ConfigRule& rule : config_rules()) add(rule.id);
  for (const CaseRule& rule : case_rules()) add(rule.id);
  for (int row = 1; row <= 14; ++row) EXPECT_TRUE(rows.count(std::to_string(row))) << row;
}

// Row 15 is about calls, not about configs.
TEST(Sharding, NeedsAKnownStrategy) {
  EXPECT_NO_THROW(check_sharding_strategy("tensor_parallel"));
  EXPECT_NO_THROW(check_sharding_strategy("replicate"));
  const auto rule_of = [](std::string_view strategy) {
    try {
      check_sharding_strategy(strategy);
    } catch (const Error& error) {
      expect_message(error, error.rule(), "sharding_strategy = \"" + std::string(strategy) + "\"");
      return error.rule();
    }
    return std::string();
  };
  EXPECT_EQ(rule_of(""), "15a");
  EXPECT_EQ(rule_of("replicated"), "15b");
  EXPECT_EQ(rule_of("rowwise"), "15b");
}

TEST(Sharding, NeedsAListEntryForEachDevice) {
  EXPECT_NO_THROW(check_device_list("signal_buffers", 4, 4));
  try {
    check_device_list("signal_buffers", 3, 4);
    FAIL();
  } catch (const Error& error) {
    expect_message(error, "15c", "signal_buffers.length = 3");
  }
}

TEST(ConfigRules, AcceptWhatTheFormatAccepts) {
  std::vector<AttentionConfig> accepted;
  const auto add = [&](AttentionConfig c, auto change) {
    change(c);
    accepted.push_back(std::move(c));
  };
  for (const Variant variant : {Variant::kAttentionWithRope, Variant::kNoOpaque,
                                Variant::kTensorParallel, Variant::kDataParallel}) {
    add(layer_config(), [&](Config& c) {  // partial rotary in every variant
      c.variant = variant;
      c.stacked_qkv = variant == Variant::kNoOpaque;
      c.rope.rotary_dim = 8;
    });
  }
  for (const std::int64_t devices : {1, 2, 3, 5, 6}) {  // any count up to the kv heads, stacked too
    add(layer_config(), [&](Config& c) {
      c.variant = Variant::kTensorParallel;
      c.num_attention_heads = 12;
      c.num_key_value_heads = 6;
      c.num_devices = devices;
      c.stacked_qkv = true;
    });
  }
  add(layer_config(), [](Config& c) {
    c.variant = Variant::kTensorParallel;
    c.num_devices = 4;
    c.kv_head_replication = true;
  });
  add(layer_config(), [](Config& c) { c.kv_cache.dtype = ElementType::kFloat8E4M3FN; });
  for (const QuantEncoding gguf : {kQ4_0, kQ8_0, kQ4_K, kQ5_K, kQ6_K}) {
    add(quantised_config(gguf), [](Config& c) {
      c.variant = Variant::kGguf;
      c.has_bias = c.use_qk_norm = true;
      c.mask.variant = MaskVariant::kSlidingWindowCausal;
      c.mask.window_size = 3;
      c.entry_point = EntryPoint::kMaterializeKvFromHidden;
    });
  }
  for (const std::int64_t bits : {4, 8}) {
    for (const std::int64_t group : {-1, 1, 32, 128, 256}) {
      add(quantised_config(kGptq), [&](Config& c) {
        c.variant = Variant::kGptq;
        c.dtype = ElementType::kFloat16;
        c.quant->bits = bits;
        c.quant->group_size = group;
        c.has_bias = c.use_qk_norm = true;
      });
    }
  }
  add(quantised_config(kFloat8E4M3FN), [](Config& c) {  // per-token activations, per-tensor weights
    c.has_bias = true;
    c.clip_qkv = 1.0;
    c.quant->activation = ActivationQuant::kToken;
  });
  add(layer_config(), [](Config& c) {  // zero means no clipping
    c.stacked_qkv = true;
    c.clip_qkv = 0.0;
  });
  add(attention_config(), [](Config& c) {
    c.head_dim = 15;  // no rope, so odd is fine
    c.head_dim_v = 8;
    c.scale = 0.0;
  });
  for (const AttentionConfig& config : accepted) {
    EXPECT_NO_THROW(validate(config)) << to_json(config);
    EXPECT_EQ(parse_config(to_json(config)), config);
    EXPECT_NO_THROW(validate(make_case(config))) << to_json(config);
  }
}

TEST(CaseRules, AcceptSharedPagesThatAreOnlyRead) {
  Case c = make_case(attention_config());
  c.cache.page_table.set_code(0, c.cache.page_table.code(2));
  EXPECT_NO_THROW(validate(c));
}

TEST(Weights, AreThoseOfTheFormat) {
  const auto shape_of = [](const AttentionConfig& config, const std::string& name) {
    for (const TensorSpec& spec : expected_weights(config)) {
      if (spec.name == name) return to_string(spec.shape);
    }
    return std::string("none");
  };
  AttentionConfig c = layer_config();
  EXPECT_EQ(shape_of(c, "q_proj.weight"), "[64, 64]");
  EXPECT_EQ(shape_of(c, "k_proj.weight"), "[32, 64]");
  EXPECT_EQ(shape_of(c, "q_proj.bias"), "none");
  EXPECT_EQ(shape_of(c, "sinks"), "[4]");
  c.stacked_qkv = true;
  EXPECT_EQ(shape_of(c, "qkv_proj.weight"), "[128, 64]");
  EXPECT_EQ(shape_of(c, "q_proj.weight"), "none");
  // Shapes of golden files that others made.
  EXPECT_EQ(shape_of(quantised_config(kQ6_K), "k_proj.weight"), "[128, 210]");
  EXPECT_EQ(shape_of(quantised_config(kQ8_0), "o_proj.weight"), "[256, 272]");
  EXPECT_EQ(shape_of(quantised_config(kGptq), "k_proj.qweight"), "[32, 128]");
  EXPECT_EQ(shape_of(quantised_config(kGptq), "o_proj.qzeros"), "[2, 32]");
  EXPECT_EQ(shape_of(quantised_config(kNvfp4), "k_proj.weight_scale"), "[128, 16]");
  EXPECT_EQ(shape_of(quantised_config(kMxfp4), "k_proj.weight"), "[128, 128]");
  AttentionConfig block = quantised_config(kFloat8E4M3FN);
  block.quant->weight_granularity = WeightGranularity::kBlock;
  EXPECT_EQ(shape_of(block, "k_proj.weight_scale"), "[1, 2]");
  block.quant->weight_granularity = WeightGranularity::kRowwise;
  EXPECT_EQ(shape_of(block, "k_proj.weight_scale"), "[128, 1]");
  EXPECT_TRUE(expected_weights(attention_config()).size() == 1);
}

}  // namespace
}  // namespace attn
