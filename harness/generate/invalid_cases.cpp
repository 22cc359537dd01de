#include "harness/generate/invalid_cases.h"

#include <array>
#include <limits>
#include <span>
#include <string_view>
#include <utility>

#include "harness/generate/legal_points.h"
#include "harness/generate/space_axes.h"

namespace attn::harness {
namespace {

using Values = std::vector<std::pair<const char*, const char*>>;  ///< axis, value

/// A rule, the case that can break it, and how.
struct Break {
  const char* rule;
  const char* field;
  Values base;
  void (*change)(CaseSpec&);
};

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t kTooLarge = (std::int64_t{1} << 20) + 1;

const Values kLayer = {{"variant", "attention_with_rope"}, {"entry_point", "forward"}};
const Values kAttention = {{"variant", "attention"}};
const Values kNoOpaque = {{"variant", "no_opaque"}};

/// A layer with stored weights.
Values stored(const char* weights) {
  return {{"variant", "attention_with_rope"}, {"weights", weights}};
}
/// A layer with a mask.
Values masked(const char* mask) { return {{"variant", "attention_with_rope"}, {"mask", mask}}; }

std::vector<Break> value_breaks() {
  return {
      {"13f", "head_dim", {}, [](CaseSpec& s) { s.config.head_dim = 0; }},
      {"13f", "num_attention_heads", {}, [](CaseSpec& s) { s.config.num_attention_heads = -4; }},
      {"13c", "kv_cache.page_size", {}, [](CaseSpec& s) { s.config.kv_cache.page_size = 0; }},
      {"8c", "num_devices", {}, [](CaseSpec& s) { s.config.num_devices = 0; }},
      {"13g",
       "kv_cache.page_size",
       {},
       [](CaseSpec& s) { s.config.kv_cache.page_size = kTooLarge; }},
      {"13i", "scale", {}, [](CaseSpec& s) { s.config.scale = kInfinity; }},
      {"14a", "entry_point", kLayer,
       [](CaseSpec& s) {
         s.config.variant = Variant::kAttention;
         s.config.entry_point = EntryPoint::kMaterializeKvFromHidden;
       }},
      {"14b", "hidden_size", kAttention, [](CaseSpec& s) { s.config.hidden_size = 64; }},
      {"14b", "use_qk_norm", kAttention, [](CaseSpec& s) { s.config.use_qk_norm = true; }},
      {"14c", "head_dim_v", stored("none"), [](CaseSpec& s) { s.config.head_dim_v += 8; }},
      {"13k", "dtype", kAttention,
       [](CaseSpec& s) { s.config.dtype = ElementType::kFloat8E4M3FN; }},
      {"13l",
       "kv_cache.dtype",
       {{"kv_cache", "dtype"}},
       [](CaseSpec& s) { s.config.kv_cache.dtype = ElementType::kInt32; }},
      {"13m",
       "kv_cache.scale_granularity",
       {{"kv_cache", "dtype"}},
       [](CaseSpec& s) { s.config.kv_cache.scale_granularity = ScaleGranularity::kHead; }},
      {"13a",
       "rms_norm_eps",
       {{"qk_norm", "eps 1e-6"}},
       [](CaseSpec& s) { s.config.rms_norm_eps = 0.0; }},
      {"13b", "rope.theta", kLayer, [](CaseSpec& s) { s.config.rope.theta = -1.0; }},
      {"13d",
       "clip_qkv",
       {{"variant", "attention_with_rope"}, {"clip_qkv", "binding"}},
       [](CaseSpec& s) { s.config.clip_qkv = -0.5; }},
      {"13e",
       "clip_activations",
       {{"clip_activations", "binding"}},
       [](CaseSpec& s) { s.config.clip_activations = -1.0; }},
      {"13j", "logit_softcap", {}, [](CaseSpec& s) { s.config.logit_softcap = 0.0; }},
      {"13p",
       "rope.scaling.factor",
       {{"rope_scaling", "linear"}},
       [](CaseSpec& s) { s.config.rope.scaling.factor = 0.0; }},
      {"13q",
       "rope.scaling.long_factor.length",
       {{"rope_scaling", "longrope long"}},
       [](CaseSpec& s) { s.config.rope.scaling.long_factor.pop_back(); }},
  };
}

std::vector<Break> layer_breaks() {
  return {
      {"3a", "stacked_qkv", kNoOpaque, [](CaseSpec& s) { s.config.stacked_qkv = false; }},
      {"3b", "rope.interleaved", kNoOpaque, [](CaseSpec& s) { s.config.rope.interleaved = false; }},
      {"3c", "has_bias", kNoOpaque, [](CaseSpec& s) { s.config.has_bias = true; }},
      {"3d", "clip_qkv", kNoOpaque, [](CaseSpec& s) { s.config.clip_qkv = 0.5; }},
      {"3e", "clip_activations", kNoOpaque, [](CaseSpec& s) { s.config.clip_activations = 1.0; }},
      {"3f", "use_qk_norm", kNoOpaque, [](CaseSpec& s) { s.config.use_qk_norm = true; }},
      {"3g", "quant.encoding", kNoOpaque,
       [](CaseSpec& s) {
         QuantConfig quant;
         quant.q_proj = quant.k_proj = quant.v_proj = quant.o_proj = QuantEncoding::kFloat8E4M3FN;
         s.config.quant = quant;
       }},
      {"1a",
       "has_bias",
       {{"variant", "attention_with_rope"}, {"stacked_qkv", "yes"}},
       [](CaseSpec& s) { s.config.has_bias = true; }},
      {"1b",
       "clip_qkv",
       {{"variant", "attention_with_rope"}, {"stacked_qkv", "yes"}},
       [](CaseSpec& s) { s.config.clip_qkv = 0.5; }},
      {"1c", "quant.encoding", stored("fp8 tensor"),
       [](CaseSpec& s) {
         s.config.stacked_qkv = true;
         s.config.has_bias = false;
         s.config.clip_qkv.reset();
       }},
      {"4",
       "num_attention_heads",
       {{"variant", "attention"}, {"kv_heads", "2"}},
       [](CaseSpec& s) { s.config.num_attention_heads += 1; }},
      {"5c", "rope.rotary_dim", kLayer, [](CaseSpec& s) { s.config.rope.rotary_dim = 0; }},
      {"5a", "rope.rotary_dim", kLayer, [](CaseSpec& s) { s.config.rope.rotary_dim = 7; }},
      {"5b",
       "rope.rotary_dim",
       {{"variant", "attention_with_rope"}, {"head_dim", "64"}, {"rope_scaling", "default"}},
       [](CaseSpec& s) { s.config.rope.rotary_dim = 66; }},
      {"7a", "mask.variant", masked("sliding_window_causal"),
       [](CaseSpec& s) { s.config.mask.window_size.reset(); }},
      {"7b", "mask.variant", masked("chunked_causal"),
       [](CaseSpec& s) { s.config.mask.chunk_size.reset(); }},
      {"7c", "mask.window_size", masked("causal"),
       [](CaseSpec& s) { s.config.mask.window_size = 4; }},
      {"7d", "mask.chunk_size", masked("null"), [](CaseSpec& s) { s.config.mask.chunk_size = 4; }},
      {"7e", "mask.window_size", masked("sliding_window_noncausal"),
       [](CaseSpec& s) { s.config.mask.window_size = 0; }},
      {"7f", "mask.chunk_size", masked("chunked_causal"),
       [](CaseSpec& s) { s.config.mask.chunk_size = -3; }},
      {"8a",
       "num_devices",
       {{"variant", "tensor_parallel"}, {"kv_head_replication", "no"}},
       [](CaseSpec& s) { s.config.num_devices = s.config.num_key_value_heads + 1; }},
      {"8b",
       "num_devices",
       {{"variant", "tensor_parallel"}, {"kv_head_replication", "yes"}, {"kv_heads", "3"}},
       [](CaseSpec& s) { s.config.num_devices = 8; }},
  };
}

std::vector<Break> quant_breaks() {
  const auto clip = [](CaseSpec& s) { s.config.clip_qkv = 0.5; };
  const auto odd_input = [](CaseSpec& s) { s.config.hidden_size += 8; };
  return {
      {"13o", "quant.encoding.k_proj", stored("mxfp8"),
       [](CaseSpec& s) { s.config.quant->k_proj = QuantEncoding::kMxfp4; }},
      {"13n", "quant.activation", stored("nvfp4"),
       [](CaseSpec& s) { s.config.quant->activation = ActivationQuant::kToken; }},
      {"2a", "clip_qkv", stored("q4_0"), [](CaseSpec& s) { s.config.clip_qkv = 0.0; }},
      {"2b", "clip_qkv", stored("gptq 4 bits"), clip},
      {"2c", "clip_qkv", stored("nvfp4"), clip},
      {"2d", "clip_qkv", stored("mxfp4"), clip},
      {"2e", "clip_qkv", stored("mxfp8"), clip},
      {"9a", "dtype", stored("q8_0"), [](CaseSpec& s) { s.config.dtype = ElementType::kBFloat16; }},
      {"9b", "hidden_size", stored("q6_k"), odd_input},
      {"10a", "quant.bits", stored("gptq 8 bits"), [](CaseSpec& s) { s.config.quant->bits = 3; }},
      {"10b", "quant.group_size", stored("gptq 4 bits"),
       [](CaseSpec& s) { s.config.quant->group_size = s.config.hidden_size + 1; }},
      {"10c", "quant.sym", stored("gptq 4 bits"), [](CaseSpec& s) { s.config.quant->sym = false; }},
      {"11a", "quant.weight_granularity", stored("fp8 rowwise"),
       [](CaseSpec& s) { s.config.quant->activation = ActivationQuant::kStatic; }},
      {"11b", "quant.weight_granularity", stored("fp8 block"),
       [](CaseSpec& s) { s.config.quant->activation = ActivationQuant::kStatic; }},
      {"11e", "quant.block[0]", stored("fp8 block"),
       [](CaseSpec& s) { s.config.quant->block_n = 0; }},
      {"11c", "quant.block[0]", stored("fp8 block"),
       [](CaseSpec& s) { s.config.quant->block_n = s.config.k_width() + 1; }},
      {"11f",
       "quant.block[1]",
       {{"variant", "attention_with_rope"}, {"weights", "fp8 block"}, {"activations", "block"}},
       [](CaseSpec& s) { s.config.quant->block_k = 64; }},
      {"12a", "hidden_size", stored("nvfp4"), odd_input},
      {"12b", "hidden_size", stored("mxfp4"), odd_input},
      {"12c", "hidden_size", stored("mxfp8"), odd_input},
  };
}

std::vector<Break> spec_breaks() {
  return {
      {"", "rows", {}, [](CaseSpec& s) { s.rows.front().second = -1; }},
      {"", "rows", {}, [](CaseSpec& s) { s.rows.back().first = std::int64_t{1} << 31; }},
      {"", "layers", {}, [](CaseSpec& s) { s.layers = 0; }},
      {"", "layer", {}, [](CaseSpec& s) { s.layer = s.layers; }},
      {"", "profile", {}, [](CaseSpec& s) { s.profile = "norml"; }},
  };
}

Point point_with(const Values& values) {
  Point point(space_axes().size(), -1);
  for (const auto& [axis, value] : values) {
    const int number = axis_number(axis);
    point[static_cast<std::size_t>(number)] = value_number(number, value);
  }
  return point;
}

}  // namespace

std::vector<InvalidCase> invalid_cases(std::uint64_t seed) {
  std::vector<InvalidCase> cases;
  Draw draw(seed, "invalid_cases");
  for (const auto& part : {value_breaks(), layer_breaks(), quant_breaks(), spec_breaks()}) {
    for (const Break& each : part) {
      const Point point = LegalPoints::instance().draw_from(point_with(each.base), draw);
      CaseSpec spec = spec_of(point, seed);
      each.change(spec);
      cases.push_back({std::move(spec), each.rule, each.field});
    }
  }
  return cases;
}

}  // namespace attn::harness
