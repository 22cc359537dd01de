#include "reference/core/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "reference/core/error.h"
#include "reference/core/philox.h"
#include "tests/core/case_fixture.h"

namespace attn {
namespace {

using testing::HasSubstr;

/// The configs of the 74 independent golden vectors, one a line.
std::vector<std::string> vector_configs() {
  std::ifstream file(ATTN_SOURCE_DIR "/tests/core/vector_configs.jsonl");
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

const char* const kMinimal =
    R"({"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "hidden_size": 64})";

/// kMinimal with `members` put in front, which may repeat nothing.
std::string minimal_with(const std::string& members) {
  return "{" + members + ", " + (kMinimal + 1);
}

/// The error that a text gives; its message is one printable line.
Error error_of(const std::string& text) {
  try {
    parse_config(text);
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(error.kind(), ErrorKind::kConfig);
    EXPECT_LT(message.size(), 1000U);
    EXPECT_TRUE(std::ranges::all_of(message, [](char c) { return c >= ' '; })) << message;
    return error;
  }
  ADD_FAILURE() << "accepted: " << text.substr(0, 200);
  return {ErrorKind::kInternal, ""};
}

TEST(Config, AcceptsEveryVectorAndWritesItBack) {
  const std::vector<std::string> configs = vector_configs();
  EXPECT_EQ(configs.size(), 74U);
  for (const std::string& text : configs) {
    const AttentionConfig config = parse_config(text);
    const std::string json = to_json(config);
    EXPECT_EQ(parse_config(json), config) << text;
    EXPECT_EQ(to_json(parse_config(json)), json) << text;
  }
}

TEST(Config, HasTheFormatsDefaults) {
  const AttentionConfig c = parse_config(kMinimal);
  EXPECT_EQ(c.variant, Variant::kAttentionWithRope);
  EXPECT_EQ(c.entry_point, EntryPoint::kForward);
  EXPECT_EQ(c.head_dim_v, 16);
  EXPECT_EQ(c.dtype, ElementType::kFloat32);
  EXPECT_EQ(c.kv_cache.dtype, ElementType::kFloat32);
  EXPECT_EQ(c.mask.variant, MaskVariant::kCausal);
  EXPECT_TRUE(c.rope.interleaved);
  EXPECT_EQ(c.rope.theta, 10000.0);
  EXPECT_EQ(c.rotary_dim(), 16);
  EXPECT_EQ(c.softmax_scale(), 0.25);
  EXPECT_EQ(c.rms_norm_eps, 1e-6);
  EXPECT_EQ(c.num_devices, 1);
  EXPECT_FALSE(c.quant);
  EXPECT_EQ(parse_config(minimal_with(R"("dtype": "bfloat16")")).kv_cache.dtype,
            ElementType::kBFloat16);
  const AttentionConfig attention = parse_config(
      R"({"entry_point": "attention", "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16})");
  EXPECT_EQ(attention.variant, Variant::kAttention);
}

TEST(Config, KnowsWhatItMeans) {
  AttentionConfig c = test::layer_config();
  c.scale = 0.0;  // given: honoured, the weights are uniform
  EXPECT_EQ(c.softmax_scale(), 0.0);
  c.clip_qkv = 0.0;  // no clipping
  EXPECT_FALSE(c.weight_clip());
  c.clip_qkv = 0.5;
  EXPECT_EQ(c.weight_clip(), 0.5);
  EXPECT_EQ(c.group_size(), 2);
  EXPECT_EQ(c.q_width(), 64);
  EXPECT_EQ(c.k_width(), 32);
}

TEST(Config, WritesEverythingItReads) {
  AttentionConfig c = test::layer_config();
  c.scale = 0.1;
  c.logit_softcap = 30.0;
  c.clip_qkv = 1e-300;
  c.clip_activations = 8.0;
  c.rope.theta = 1.0 / 3.0;
  c.rope.rotary_dim = 8;
  c.rope.rotary_side = RotarySide::kLast;
  c.rope.scaling.type = RopeScalingType::kLongrope;
  c.rope.scaling.short_factor = {1, 1.5, 2, 0.1};
  c.rope.scaling.long_factor = {1, 3, 4, 5};
  c.rope.scaling.original_max_position_embeddings = 64;
  c.rope.scaling.max_position_embeddings = 128;
  c.rope.scaling.convention = LongropeConvention::kMax;
  c.rope.scaling.use_long = true;
  c.mask = {MaskVariant::kSlidingWindowCausal, MaskAlign::kTopLeft, 7, std::nullopt};
  c.kv_cache = {32, ElementType::kFloat8E4M3FN, ScaleGranularity::kHead};
  c.kv_head_replication = true;
  EXPECT_EQ(parse_config(to_json(c)), c);
  AttentionConfig fp8 = test::quantised_config(QuantEncoding::kFloat8E4M3FN);
  fp8.quant->weight_granularity = WeightGranularity::kBlock;
  fp8.quant->block_n = 64;
  fp8.quant->activation = ActivationQuant::kToken;
  EXPECT_EQ(parse_config(to_json(fp8)), fp8);
  AttentionConfig gptq = test::quantised_config(QuantEncoding::kGptq);
  gptq.quant->group_size = -1;
  gptq.quant->checkpoint_v2 = true;
  gptq.quant->bits = 8;
  gptq.quant->desc_act = true;
  EXPECT_EQ(parse_config(to_json(gptq)), gptq);
}

TEST(Config, SortsItsKeys) {
  EXPECT_EQ(to_json(test::attention_config()),
            R"({"dtype":"float32","entry_point":"attention","head_dim":16,"head_dim_v":16,)"
            R"("kv_cache":{"dtype":"float32","page_size":16,"scale_granularity":null},)"
            R"("mask":{"align":"bottom_right","variant":"causal"},"num_attention_heads":4,)"
            R"("num_key_value_heads":2,"quant":null,"scale":null,"variant":"attention"})");
}

struct Refused {
  const char* members;  // put into kMinimal
  const char* field;
  const char* says;
};

class RefusedJson : public testing::TestWithParam<Refused> {};

TEST_P(RefusedJson, NamesTheFieldAndWhatIsWrong) {
  const Refused& refused = GetParam();
  const Error error = error_of(minimal_with(refused.members));
  EXPECT_EQ(error.field(), refused.field);
  EXPECT_THAT(error.what(), HasSubstr(refused.field));
  EXPECT_THAT(error.what(), HasSubstr(refused.says));
}

INSTANTIATE_TEST_SUITE_P(
    UnknownNames, RefusedJson,
    testing::Values(
        Refused{R"("has_bais": true)", "has_bais", "did you mean \"has_bias\"?"},
        Refused{R"("variant": "gptk")", "variant", "did you mean \"gptq\"?"},
        Refused{R"("entry_point": "foward")", "entry_point", "did you mean \"forward\"?"},
        Refused{R"("dtype": "bfloat61")", "dtype", "did you mean \"bfloat16\"?"},
        Refused{R"("mask": {"variant": "casual"})", "mask.variant", "did you mean \"causal\"?"},
        Refused{R"("mask": {"window": 3})", "mask.window", "= 3 is an unknown key"},
        Refused{R"("mask": {"align": "top_right"})", "mask.align", "\"top_right\""},
        Refused{R"("rope": {"thetta": 3})", "rope.thetta", "did you mean \"theta\"?"},
        Refused{R"("rope": {"rotary_side": "lats"})", "rope.rotary_side", "did you mean \"last\"?"},
        Refused{R"("rope": {"scaling": {"type": "yarm"}})", "rope.scaling.type",
                "did you mean \"yarn\"?"},
        Refused{R"("rope": {"scaling": {"type": "linear", "factor": 2, "beta_fast": 1}})",
                "rope.scaling.beta_fast", "unknown key"},
        Refused{R"("kv_cache": {"page_sizes": 3})", "kv_cache.page_sizes",
                "did you mean \"page_size\"?"},
        Refused{R"("kv_cache": {"dtype": "float9"})", "kv_cache.dtype", "float9"},
        Refused{R"("kv_cache": {"scale_granularity": "heads"})", "kv_cache.scale_granularity",
                "did you mean \"head\"?"},
        Refused{R"("quant": {"encoding": "nvfp5"})", "quant.encoding", "did you mean \"nvfp4\"?"},
        Refused{R"("quant": {"encoding": "mxfp4", "bits": 4})", "quant.bits", "unknown key"},
        Refused{R"("quant": {"encoding": {"q_proj": "nvfp4"}})", "quant.encoding.q_proj",
                "unknown name"},
        Refused{R"("quant": {"encoding": "gptq", "checkpoint_format": "gptq_v3"})",
                "quant.checkpoint_format", "did you mean"},
        Refused{R"("quant": {"encoding": "float8_e4m3fn", "activation": "tokens"})",
                "quant.activation", "did you mean \"token\"?"},
        Refused{R"("quant": {"encoding": "float8_e4m3fn", "weight_granularity": "row"})",
                "quant.weight_granularity", "known: tensor, rowwise, block"}));

INSTANTIATE_TEST_SUITE_P(
    WrongTypes, RefusedJson,
    testing::Values(
        Refused{R"("num_devices": 1.0)", "num_devices", "is 1.0; it must be an integer"},
        Refused{R"("num_devices": 1e0)", "num_devices", "must be an integer"},
        Refused{R"("num_devices": 9223372036854775808)", "num_devices", "below 2^63"},
        Refused{R"("num_devices": 99999999999999999999999)", "num_devices", "must be an integer"},
        Refused{R"("num_devices": "1")", "num_devices", "is \"1\"; it must be an integer"},
        Refused{R"("num_devices": true)", "num_devices", "is true; it must be an integer"},
        Refused{R"("num_devices": [1])", "num_devices", "an array"},
        Refused{R"("has_bias": 1)", "has_bias", "is 1; it must be true or false"},
        Refused{R"("variant": 3)", "variant", "is 3; it must be a string"},
        Refused{R"("dtype": 3)", "dtype", "is 3; it must be a string"},
        Refused{R"("scale": "big")", "scale", "is \"big\"; it must be a number"},
        Refused{R"("rope": [])", "rope", "must be a JSON object"},
        Refused{R"("mask": "causal")", "mask", "must be a JSON object"},
        Refused{R"("quant": "gptq")", "quant", "must be a JSON object"},
        Refused{R"("quant": {})", "quant.encoding", "is missing"},
        Refused{R"("quant": {"encoding": {"q_proj": "q4_0"}})", "quant.encoding.k_proj",
                "is missing"},
        Refused{R"("quant": {"encoding": "float8_e4m3fn", "block": [128]})", "quant.block",
                "must be [rows, columns]"},
        Refused{R"("rope": {"scaling": {}})", "rope.scaling.type", "is missing"},
        Refused{R"("rope": {"scaling": {"type": "yarn"}})", "rope.scaling.factor", "is missing"},
        Refused{R"("rope": {"scaling": {"type": "longrope"}})", "rope.scaling.short_factor",
                "is missing"},
        Refused{R"("rope": {"scaling": {"type": "longrope", "short_factor": [1, "x"]}})",
                "rope.scaling.short_factor[]", "must be a number"}));

TEST(Config, NamesWhatIsMissing) {
  EXPECT_THAT(error_of("{}").what(), HasSubstr("num_attention_heads is missing"));
  EXPECT_THAT(
      error_of(R"({"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16})").what(),
      HasSubstr("hidden_size is missing"));
}

TEST(Config, RefusesKeysOfTheLayerInEntryPointAttention) {
  const Error error = error_of(
      R"({"entry_point": "attention", "num_attention_heads": 4, "num_key_value_heads": 2,
          "head_dim": 16, "hidden_size": 64})");
  EXPECT_EQ(error.rule(), "14b");
  EXPECT_THAT(error.what(), HasSubstr("hidden_size = 64"));
}

// Absurd sizes end in one line, without a product that overflows.
TEST(Config, RefusesAbsurdSizes) {
  for (const char* size :
       {"1099511627776", "9223372036854775807", "-1", "0", "-9223372036854775808"}) {
    for (const char* key : {"num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size",
                            "num_devices", "kv_cache"}) {
      std::string text = to_json(test::layer_config());
      const std::string name = std::string(key) == "kv_cache" ? "page_size" : key;
      const std::size_t at = text.find("\"" + name + "\":") + name.size() + 3;
      text.replace(at, text.find_first_of(",}", at) - at, size);
      EXPECT_THAT(error_of(text).what(), HasSubstr(size)) << text;
    }
  }
}

TEST(Config, SurvivesHostileText) {
  const std::string deep(1 << 18, '[');
  const std::string deep_objects = [] {
    std::string text;
    for (int i = 0; i < 20000; ++i) text += R"({"rope":)";
    return text;
  }();
  const std::vector<std::string> hostile{
      "",
      "null",
      "3",
      "[]",
      "\"config\"",
      "{",
      "}",
      "{\"a\"",
      deep,
      deep_objects,
      std::string(1 << 21, ' '),
      std::string("\0\0\0", 3),
      "\xff\xfe{}",
      "{\"\xff\": 1}",
      "{\"a\n\": 1}",
      "{\"a\\n\\u0000\": 1}",
      minimal_with(R"("a\nb": 1)"),
      minimal_with("\"" + std::string(500000, 'a') + "\": 1"),
      minimal_with("\"" + std::string(500000, 'a') + "\": 1, \"" + std::string(500000, 'a') +
                   "\": 1"),
      minimal_with(R"("dtype": "bfloat16\n")"),
      minimal_with(R"("variant": "\u00e9\u0007")"),
      minimal_with(R"("kv_cache": {"dtype": "\n\n\n"})"),
      minimal_with(R"("scale": NaN)"),
      minimal_with(R"("scale": Infinity)"),
      minimal_with(R"("scale": 1e400)"),
      minimal_with(R"("scale": -1e400)"),
      minimal_with(R"("head_dim": 16)"),
      minimal_with(R"("mask": {"variant": "causal", "variant": "null"})"),
      std::string(kMinimal) + "{}",
      "{\"" + std::string(500000, 'a') + "\": 1}",
  };
  for (const std::string& text : hostile) error_of(text);
  EXPECT_THAT(
      error_of(minimal_with("\"scale\": " + std::string(20, '[') + std::string(20, ']'))).what(),
      HasSubstr("nested more than 16 deep"));
  EXPECT_THAT(error_of(minimal_with(R"("head_dim": 16)")).what(),
              HasSubstr("head_dim is given twice"));
  EXPECT_THAT(error_of(minimal_with(R"("scale": 1e400)")).what(), HasSubstr("1e400"));
}

// Random damage to real configs: either a config that writes itself back, or one clean error.
TEST(Config, SurvivesDamagedText) {
  const std::vector<std::string> configs = vector_configs();
  const RandomStream random(21, "damage");
  std::uint64_t draw = 0;
  int refused = 0;
  const std::string pieces = "{}[]\",:0123456789.eE-+ntfalseru_";
  for (int i = 0; i < 5000; ++i) {
    std::string text = configs[random.below(draw++, configs.size())];
    for (std::uint64_t edits = 1 + random.below(draw++, 3); edits > 0; --edits) {
      const std::size_t at = random.below(draw++, text.size());
      const char piece = pieces[random.below(draw++, pieces.size())];
      switch (random.below(draw++, 3)) {
        case 0:
          text[at] = piece;
          break;
        case 1:
          text.insert(at, 1, piece);
          break;
        default:
          text.erase(at, 1 + random.below(draw++, 8));
      }
    }
    try {
      const AttentionConfig config = parse_config(text);
      ASSERT_EQ(parse_config(to_json(config)), config) << text;
    } catch (const Error&) {
      error_of(text);
      ++refused;
    }
  }
  EXPECT_GT(refused, 2500);  // most damage breaks the syntax or a name
}

}  // namespace
}  // namespace attn
