#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <map>
#include <set>
#include <string>

#include "harness/generate/case_spec.h"
#include "reference/core/error.h"
#include "reference/core/rules.h"
#include "reference/reference.h"

namespace attn::harness {
namespace {

constexpr std::uint64_t kSeeds = 20000;     // of specs
constexpr std::uint64_t kCaseSeeds = 3000;  // of cases made

using Features = std::map<std::string, std::string>;

std::string text(double value) {
  std::string digits = std::to_string(value);
  digits.erase(digits.find_last_not_of('0') + 1);
  return digits;
}

std::string yes_no(bool value) { return value ? "yes" : "no"; }

std::string head_dim_class(std::int64_t head_dim) {
  if (head_dim <= 8) return "2-8";
  if (head_dim <= 16) return "10-16";
  if (head_dim <= 32) return "18-32";
  return head_dim <= 64 ? "34-64" : "66-128";
}

std::string page_class(std::int64_t page_size) {
  if (page_size == 1) return "1";
  if (page_size <= 7) return "2-7";
  return page_size <= 16 ? "8-16" : "32-64";
}

std::string scale_class(const AttentionConfig& config) {
  if (!config.scale) return "default";
  if (*config.scale == 0) return "zero";
  return *config.scale < 0 ? "negative" : "custom";
}

std::string rotary_class(const AttentionConfig& config) {
  if (!config.rope.rotary_dim) return "whole";
  return config.rope.rotary_side == RotarySide::kFirst ? "first" : "last";
}

/// What the weights are stored as; "mixed" when the projections differ.
std::string encoding_of(const AttentionConfig& config) {
  if (!config.quant) return "none";
  const QuantConfig& q = *config.quant;
  const bool one = q.k_proj == q.q_proj && q.v_proj == q.q_proj && q.o_proj == q.q_proj;
  return one ? std::string(name_of(q.q_proj)) : "mixed";
}

std::string cache_of(const AttentionConfig& config) {
  if (config.kv_cache.dtype != ElementType::kFloat8E4M3FN) return "plain";
  if (config.kv_cache.scale_granularity == ScaleGranularity::kNone) return "fp8 unscaled";
  return "fp8 " + std::string(name_of(config.kv_cache.scale_granularity));
}

/// The features that change which code an implementation runs.
Features main_features(const CaseSpec& spec) {
  const AttentionConfig& c = spec.config;
  Features f = {
      {"variant", std::string(name_of(c.variant))},
      {"entry_point", std::string(name_of(c.entry_point))},
      {"dtype", std::string(element_name(c.dtype))},
      {"mask", std::string(name_of(c.mask.variant))},
      {"align", std::string(name_of(c.mask.align))},
      {"group", std::to_string(c.group_size())},
      {"head_dim", head_dim_class(c.head_dim)},
      {"page_size", page_class(c.kv_cache.page_size)},
      {"pages", spec.pages == PageOrder::kShuffled ? "shuffled" : "identity"},
      {"layers", std::to_string(spec.layers)},
      {"sinks", yes_no(spec.sinks)},
      {"softcap", yes_no(c.logit_softcap.has_value())},
      {"scale", scale_class(c)},
      {"profile", spec.profile},
      {"cache", cache_of(c)},
  };
  if (c.starts_at_attention()) return f;
  f["stacked"] = yes_no(c.stacked_qkv);
  f["bias"] = yes_no(c.has_bias);
  f["clip_qkv"] = yes_no(c.weight_clip().has_value());
  f["clip_activations"] = yes_no(c.clip_activations.has_value());
  f["qk_norm"] = yes_no(c.use_qk_norm);
  f["interleaved"] = yes_no(c.rope.interleaved);
  f["rotary"] = rotary_class(c);
  f["scaling"] = std::string(name_of(c.rope.scaling.type));
  return f;
}

/// The values within the features, and what the rows are like.
Features detail_features(const CaseSpec& spec) {
  const AttentionConfig& c = spec.config;
  const bool attention = c.starts_at_attention();
  Features f;
  f["exact head_dim"] = std::to_string(c.head_dim);
  f["exact page_size"] = std::to_string(c.kv_cache.page_size);
  f["layer"] = std::to_string(spec.layer);
  if (c.logit_softcap) f["exact softcap"] = text(*c.logit_softcap);
  if (c.scale) f["exact scale"] = text(*c.scale);
  if (c.use_qk_norm) f["eps"] = text(c.rms_norm_eps * 1e12);
  if (c.clip_qkv == 0.0) f["clip_qkv zero"] = "yes";
  if (c.variant == Variant::kTensorParallel || c.variant == Variant::kDataParallel) {
    f["devices"] = std::to_string(c.num_devices);
    f["replication"] = yes_no(c.kv_head_replication);
  }
  if (attention)
    f["head_dim_v"] = c.head_dim_v == c.head_dim  ? "equal"
                      : c.head_dim_v < c.head_dim ? "smaller"
                                                  : "larger";
  if (!attention) f["theta"] = text(c.rope.theta);
  f["encoding"] = encoding_of(c);
  if (c.quant) {
    f["activation"] = std::string(name_of(c.quant->activation));
    if (f["encoding"] == "float8_e4m3fn") {
      f["granularity"] = std::string(name_of(c.quant->weight_granularity));
      if (c.quant->weight_granularity == WeightGranularity::kBlock) {
        f["block_n"] = std::to_string(c.quant->block_n);
        f["block_k"] = std::to_string(c.quant->block_k);
        f["narrow last block"] = yes_no(c.hidden_size % c.quant->block_k != 0);
      }
    }
    if (f["encoding"] == "gptq") {
      f["gptq"] = std::to_string(c.quant->bits) + " bits, group " +
                  std::to_string(c.quant->group_size) + (c.quant->desc_act ? ", desc_act" : "") +
                  (c.quant->checkpoint_v2 ? ", v2" : "");
    }
  }
  if (c.rope.scaling.type == RopeScalingType::kLongrope) {
    f["longrope"] = c.rope.scaling.convention == LongropeConvention::kMax ? "max"
                    : c.rope.scaling.use_long                             ? "long"
                                                                          : "short";
  }
  bool decode = !attention;
  bool prefill = !attention;
  for (const RowSpec& row : spec.rows) {
    const std::int64_t queries = attention ? row.first : row.second;
    const std::int64_t keys = attention ? row.second : row.first + row.second;
    decode = decode && queries == 1;
    prefill = prefill && row.first == 0;
    if (queries == 0) f["row without queries"] = "yes";
    if (keys == 0) f["row without keys"] = "yes";
    if (queries > keys) f["more queries than keys"] = "yes";
    for (const auto& span : {c.mask.window_size, c.mask.chunk_size}) {
      if (!span) continue;
      if (*span == 1) f["span of one"] = "yes";
      if (*span == keys - 1 || *span == keys || *span == keys + 1) f["span near keys"] = "yes";
    }
  }
  f["rows"] = attention ? "attention" : decode ? "decode" : prefill ? "prefill" : "mixed";
  return f;
}

TEST(RandomSmallSpec, SameSeedSameSpec) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    EXPECT_EQ(random_small_spec(seed), random_small_spec(seed));
    EXPECT_NE(random_small_spec(seed), random_small_spec(seed + 1));
  }
}

TEST(RandomSmallSpec, EveryCaseIsValidSupportedAndReproducible) {
  for (std::uint64_t seed = 0; seed < kCaseSeeds; ++seed) {
    const CaseSpec spec = random_small_spec(seed);
    ASSERT_EQ(parse_case_spec(to_json(spec)), spec) << to_json(spec);
    ASSERT_EQ(reference::unsupported_reason(spec.config), "") << to_json(spec);
    try {
      validate(make_case(spec, seed));
    } catch (const Error& error) {
      FAIL() << "seed " << seed << ": " << error.what() << "\n" << to_json(spec);
    }
  }
}

TEST(RandomSmallSpec, StaysSmall) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    const CaseSpec spec = random_small_spec(seed);
    const bool attention = spec.config.starts_at_attention();
    std::int64_t queries = 0;
    for (const RowSpec& row : spec.rows) {
      queries += attention ? row.first : row.second;
      ASSERT_LE(attention ? row.second : row.first + row.second, 64) << to_json(spec);
    }
    ASSERT_GE(queries, 4) << to_json(spec);
    ASSERT_LE(queries, 32) << to_json(spec);
    ASSERT_EQ(spec.config.head_dim % 2, 0);
    if (attention) continue;
    ASSERT_GE(spec.config.hidden_size, 64) << to_json(spec);
    ASSERT_LE(spec.config.hidden_size, 256) << to_json(spec);
  }
}

using Values = std::map<std::string, std::set<std::string>>;

std::set<std::string> gptq_features() {
  std::set<std::string> all;
  for (const std::string bits : {"4", "8"}) {
    for (const std::string group : {"32", "64", "128", "-1"}) {
      for (const std::string order : {"", ", desc_act"}) {
        for (const std::string version : {"", ", v2"}) {
          all.insert(bits + " bits, group " + group + order + version);
        }
      }
    }
  }
  return all;
}

TEST(RandomSmallSpec, ReachesEveryValueOfEveryFeature) {
  const Values wanted = {
      {"variant",
       {"attention_with_rope", "no_opaque", "gguf", "gptq", "tensor_parallel", "data_parallel",
        "attention"}},
      {"entry_point", {"forward", "materialize_kv_from_hidden", "attention"}},
      {"dtype", {"float32", "bfloat16", "float16"}},
      {"mask",
       {"null", "causal", "chunked_causal", "sliding_window_causal", "sliding_window_noncausal",
        "tensor"}},
      {"align", {"bottom_right", "top_left"}},
      {"group", {"1", "2", "3", "4", "5", "6", "7", "8", "16", "24"}},
      {"head_dim", {"2-8", "10-16", "18-32", "34-64", "66-128"}},
      {"exact head_dim",
       {"2", "4", "6", "8", "10", "12", "16", "20", "24", "32", "36", "48", "64", "80", "96",
        "128"}},
      {"head_dim_v", {"smaller", "equal", "larger"}},
      {"page_size", {"1", "2-7", "8-16", "32-64"}},
      {"exact page_size", {"1", "2", "3", "4", "7", "8", "16", "32", "64"}},
      {"pages", {"shuffled", "identity"}},
      {"layers", {"1", "2", "3"}},
      {"layer", {"0", "1", "2"}},
      {"sinks", {"yes", "no"}},
      {"softcap", {"yes", "no"}},
      {"exact softcap", {"1.", "2.", "5.", "15.", "30.", "50.", "64."}},
      {"scale", {"default", "custom", "negative", "zero"}},
      {"exact scale", {"0.", "0.07", "0.5", "1.", "-0.125", "-0.5"}},
      {"profile",
       {"normal", "q_x4", "needles", "extreme", "equal_keys", "tiny_norm", "fp8_range",
        "code_extremes"}},
      {"cache", {"plain", "fp8 unscaled", "fp8 tensor", "fp8 head", "fp8 token_head"}},
      {"encoding",
       {"none", "float8_e4m3fn", "nvfp4", "mxfp4", "mxfp8", "gptq", "q4_0", "q8_0", "q4_k", "q5_k",
        "q6_k", "mixed"}},
      {"activation", {"none", "static", "token", "block", "int8"}},
      {"granularity", {"tensor", "rowwise", "block"}},
      {"block_n", {"1", "2", "8", "16", "32", "64", "128"}},
      {"block_k", {"16", "24", "32", "64", "128"}},
      {"narrow last block", {"yes", "no"}},
      {"gptq", gptq_features()},
      {"stacked", {"yes", "no"}},
      {"bias", {"yes", "no"}},
      {"clip_qkv", {"yes", "no"}},
      {"clip_qkv zero", {"yes"}},
      {"clip_activations", {"yes", "no"}},
      {"qk_norm", {"yes", "no"}},
      {"eps", {"1.", "10000.", "1000000.", "10000000.", "1000000000."}},
      {"interleaved", {"yes", "no"}},
      {"rotary", {"whole", "first", "last"}},
      {"theta", {"100.", "10000.", "500000.", "1000000."}},
      {"scaling", {"default", "linear", "dynamic", "llama3", "yarn", "deepseek_yarn", "longrope"}},
      {"longrope", {"short", "long", "max"}},
      {"devices", {"1", "2", "3", "4", "5", "6", "7", "8"}},
      {"replication", {"yes", "no"}},
      {"rows", {"decode", "prefill", "mixed", "attention"}},
      {"row without queries", {"yes"}},
      {"row without keys", {"yes"}},
      {"more queries than keys", {"yes"}},
      {"span of one", {"yes"}},
      {"span near keys", {"yes"}},
  };
  Values seen;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    const CaseSpec spec = random_small_spec(seed);
    for (const Features& features : {main_features(spec), detail_features(spec)}) {
      for (const auto& [name, value] : features) seen[name].insert(value);
    }
  }
  EXPECT_EQ(seen, wanted);
}

/// Two values that no valid spec, or none of the small profile, can have together.
bool cannot_meet(const std::string& name, const std::string& value, const std::string& other_name,
                 const std::string& other) {
  const auto is = [&](const std::string& feature, const std::string& wanted) {
    return (name == feature && value == wanted) || (other_name == feature && other == wanted);
  };
  const auto concerns = [&](const std::string& feature) {
    return name == feature || other_name == feature;
  };
  const bool layer = (concerns("variant") && !is("variant", "attention")) ||
                     (concerns("entry_point") && !is("entry_point", "attention")) ||
                     concerns("stacked") || concerns("bias") || concerns("clip_qkv") ||
                     concerns("clip_activations") || concerns("qk_norm") ||
                     concerns("interleaved") || concerns("rotary") || concerns("scaling") ||
                     is("profile", "tiny_norm");
  const bool attention = is("variant", "attention") || is("entry_point", "attention") ||
                         is("mask", "tensor") || is("align", "top_left");
  if (layer && attention) return true;
  if (is("variant", "no_opaque") &&
      (is("stacked", "no") || is("interleaved", "no") || is("bias", "yes") ||
       is("clip_qkv", "yes") || is("clip_activations", "yes") || is("qk_norm", "yes"))) {
    return true;
  }
  const bool one_format = is("variant", "gguf") || is("variant", "gptq");
  if (one_format && (is("stacked", "yes") || is("clip_qkv", "yes") || is("group", "24"))) {
    return true;
  }
  if (is("variant", "gguf") && (is("dtype", "bfloat16") || is("dtype", "float16"))) return true;
  if (is("profile", "code_extremes") &&  // only with quantised weights
      (attention || is("variant", "no_opaque") || is("stacked", "yes") || is("group", "24"))) {
    return true;
  }
  if (is("stacked", "yes") && (is("bias", "yes") || is("clip_qkv", "yes"))) return true;
  if (is("profile", "tiny_norm") && (is("qk_norm", "no") || is("variant", "no_opaque")))
    return true;
  if (is("profile", "extreme") && is("softcap", "yes")) return true;
  if (is("profile", "fp8_range") && is("clip_activations", "yes")) return true;
  return is("group", "24") && is("head_dim", "66-128");  // wider than the small profile
}

TEST(RandomSmallSpec, ReachesEveryPairOfMainFeatures) {
  Values values;
  std::set<std::array<std::string, 4>> pairs;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Features features = main_features(random_small_spec(seed));
    // Degenerate on purpose and rare: once is enough.
    if (features.at("profile") == "equal_keys" || features.at("scale") == "zero") continue;
    for (auto a = features.begin(); a != features.end(); ++a) {
      values[a->first].insert(a->second);
      for (auto b = std::next(a); b != features.end(); ++b) {
        pairs.insert({a->first, a->second, b->first, b->second});
      }
    }
  }
  std::size_t legal = 0;
  for (auto a = values.begin(); a != values.end(); ++a) {
    for (auto b = std::next(a); b != values.end(); ++b) {
      for (const std::string& value : a->second) {
        for (const std::string& other : b->second) {
          const bool seen = pairs.contains({a->first, value, b->first, other});
          const bool impossible = cannot_meet(a->first, value, b->first, other);
          EXPECT_NE(seen, impossible) << a->first << " = " << value << " with " << b->first << " = "
                                      << other << (seen ? " was drawn" : " was never drawn");
          legal += impossible ? 0 : 1;
        }
      }
    }
  }
  RecordProperty("legal_pairs", static_cast<int>(legal));
}

/// Every variant with every encoding, activation mode and weight granularity that it takes.
std::set<std::string> wanted_quants() {
  std::set<std::string> wanted;
  for (const std::string variant :
       {"attention_with_rope", "tensor_parallel", "data_parallel", "gguf", "gptq"}) {
    const auto add = [&](const std::string& what) { wanted.insert(variant + ", " + what); };
    const bool any = variant != "gguf" && variant != "gptq";
    if (any) {
      add("float8_e4m3fn tensor, static");
      for (const std::string granularity : {"tensor", "rowwise", "block"}) {
        for (const std::string activation : {"none", "token", "block"}) {
          add("float8_e4m3fn " + granularity + ", " + activation);
        }
      }
      for (const std::string encoding : {"nvfp4", "mxfp4", "mxfp8"}) {
        add(encoding + ", none");
        add(encoding + ", block");
      }
    }
    if (any || variant == "gguf") {
      for (const std::string encoding : {"q4_0", "q8_0", "q4_k", "q5_k", "q6_k"}) {
        add(encoding + ", none");
        add(encoding + ", int8");
      }
    }
    if (variant == "gguf") {
      add("mixed, none");
      add("mixed, int8");
    }
    if (any || variant == "gptq") add("gptq, none");
  }
  return wanted;
}

/// The first 500 seeds, which `golden make --random 500 --seed 1` takes, reach every variant with
/// every encoding, activation mode and granularity, and each variant and each encoding with every
/// kind of cache. What is missing is listed.
TEST(RandomSmallSpec, FiveHundredSeedsCoverEveryQuantisation) {
  std::set<std::string> quants;
  std::set<std::string> caches;
  std::set<std::string> gptq;
  int unquantised = 0;
  for (std::uint64_t seed = 1; seed <= 500; ++seed) {
    const AttentionConfig c = random_small_spec(seed).config;
    const std::string variant(name_of(c.variant));
    caches.insert(variant + ", " + cache_of(c));
    caches.insert(encoding_of(c) + ", " + cache_of(c));
    if (!c.quant) {
      unquantised += cache_of(c) == "plain" ? 1 : 0;
      continue;
    }
    std::string what = variant + ", " + encoding_of(c);
    if (c.quant->q_proj == QuantEncoding::kFloat8E4M3FN) {
      what += " " + std::string(name_of(c.quant->weight_granularity));
    }
    quants.insert(what + ", " + std::string(name_of(c.quant->activation)));
    if (c.quant->q_proj == QuantEncoding::kGptq) {
      gptq.insert(std::to_string(c.quant->bits) + " bits, group " +
                  std::to_string(c.quant->group_size));
    }
  }
  std::set<std::string> wanted_caches;
  for (const std::string cache :
       {"plain", "fp8 unscaled", "fp8 tensor", "fp8 head", "fp8 token_head"}) {
    for (const std::string first :
         {"attention_with_rope", "no_opaque", "gguf", "gptq", "tensor_parallel", "data_parallel",
          "attention", "none", "float8_e4m3fn", "nvfp4", "mxfp4", "mxfp8", "q4_0", "q8_0", "q4_k",
          "q5_k", "q6_k", "mixed"}) {
      wanted_caches.insert(first + ", " + cache);
    }
  }
  const auto missing = [](const std::set<std::string>& wanted, const std::set<std::string>& seen) {
    std::vector<std::string> list;
    std::ranges::set_difference(wanted, seen, std::back_inserter(list));
    return list;
  };
  EXPECT_THAT(missing(wanted_quants(), quants), ::testing::IsEmpty());
  EXPECT_THAT(missing(wanted_caches, caches), ::testing::IsEmpty());
  EXPECT_EQ(gptq.size(), 8U) << "4 and 8 bits with groups of 32, 64, 128 and the whole row";
  EXPECT_EQ(quants, wanted_quants()) << "nothing else is legal";
  EXPECT_GE(unquantised, 240) << "about half";
}

TEST(RandomSmallSpec, DegenerateCasesAreRare) {
  int degenerate = 0;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    const CaseSpec spec = random_small_spec(seed);
    degenerate += spec.profile == "equal_keys" || spec.config.scale == 0.0 ? 1 : 0;
  }
  EXPECT_LT(degenerate, static_cast<int>(kSeeds / 20));
}

}  // namespace
}  // namespace attn::harness
