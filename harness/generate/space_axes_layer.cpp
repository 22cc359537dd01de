#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "harness/generate/space_axes.h"

namespace attn::harness {
namespace {

AxisRule variant_axis() {
  using enum Variant;
  std::vector<std::pair<std::string, Variant>> values;
  for (const Variant variant :
       {kAttentionWithRope, kAttention, kNoOpaque, kTensorParallel, kDataParallel, kGguf, kGptq}) {
    values.emplace_back(name_of(variant), variant);
  }
  return field_axis(
      "variant", false, values, [](auto& s) -> auto& { return s.config.variant; });
}

AxisRule entry_point_axis() {
  using enum EntryPoint;
  std::vector<std::pair<std::string, EntryPoint>> values;
  for (const EntryPoint entry : {kForward, kMaterializeKvFromHidden, kAttention}) {
    values.emplace_back(name_of(entry), entry);
  }
  return field_axis(
      "entry_point", false, values, [](auto& s) -> auto& { return s.config.entry_point; });
}

AxisRule dtype_axis() {
  return field_axis<ElementType>(
      "dtype", true,
      {{"float32", ElementType::kFloat32},
       {"bfloat16", ElementType::kBFloat16},
       {"float16", ElementType::kFloat16}},
      [](auto& s) -> auto& { return s.config.dtype; });
}

// ---- stored weights ----

struct Storage {
  const char* name;
  QuantEncoding encoding;  ///< of q_proj
  WeightGranularity granularity = WeightGranularity::kTensor;
  std::int64_t bits = 4;
  bool mixed = false;
};

constexpr std::array kStorages = {
    Storage{"none", QuantEncoding::kNone},
    Storage{"fp8 tensor", QuantEncoding::kFloat8E4M3FN, WeightGranularity::kTensor},
    Storage{"fp8 rowwise", QuantEncoding::kFloat8E4M3FN, WeightGranularity::kRowwise},
    Storage{"fp8 block", QuantEncoding::kFloat8E4M3FN, WeightGranularity::kBlock},
    Storage{"nvfp4", QuantEncoding::kNvfp4},
    Storage{"mxfp4", QuantEncoding::kMxfp4},
    Storage{"mxfp8", QuantEncoding::kMxfp8},
    Storage{"gptq 4 bits", QuantEncoding::kGptq, WeightGranularity::kTensor, 4},
    Storage{"gptq 8 bits", QuantEncoding::kGptq, WeightGranularity::kTensor, 8},
    Storage{"q4_0", QuantEncoding::kQ4_0},
    Storage{"q8_0", QuantEncoding::kQ8_0},
    Storage{"q4_k", QuantEncoding::kQ4_K},
    Storage{"q5_k", QuantEncoding::kQ5_K},
    Storage{"q6_k", QuantEncoding::kQ6_K},
    Storage{"gguf mixed", QuantEncoding::kQ4_0, WeightGranularity::kTensor, 4, true},
};

bool is_mixed(const QuantConfig& quant) {
  return quant.k_proj != quant.q_proj || quant.v_proj != quant.q_proj ||
         quant.o_proj != quant.q_proj;
}

bool is_stored_as(const std::optional<QuantConfig>& quant, const Storage& storage) {
  if (!quant) return storage.encoding == QuantEncoding::kNone;
  if (storage.encoding == QuantEncoding::kNone) return false;
  if (is_mixed(*quant) || storage.mixed) return is_mixed(*quant) && storage.mixed;
  if (quant->q_proj != storage.encoding) return false;
  if (quant->q_proj == QuantEncoding::kGptq) return quant->bits == storage.bits;
  return quant->q_proj != QuantEncoding::kFloat8E4M3FN ||
         quant->weight_granularity == storage.granularity;
}

void write_storage(CaseSpec& spec, int value, Draw&) {
  const Storage& storage = kStorages.at(static_cast<std::size_t>(value));
  spec.config.quant.reset();
  if (storage.encoding == QuantEncoding::kNone) return;
  QuantConfig quant;
  quant.q_proj = quant.k_proj = quant.v_proj = quant.o_proj = storage.encoding;
  if (storage.mixed) quant.v_proj = QuantEncoding::kQ8_0;  // drawn once the widths are known
  quant.weight_granularity = storage.granularity;
  quant.bits = storage.bits;
  spec.config.quant = quant;
}

AxisRule weights_axis() {
  AxisRule rule{{"weights", {}, true}, write_storage, nullptr};
  for (const Storage& storage : kStorages) rule.axis.values.emplace_back(storage.name);
  rule.read = [](const CaseSpec& spec) {
    const auto* const found = std::ranges::find_if(
        kStorages, [&](const Storage& s) { return is_stored_as(spec.config.quant, s); });
    return found == kStorages.end() ? -1 : static_cast<int>(found - kStorages.begin());
  };
  return rule;
}

/// An axis over a field of the config's quantisation, whose first value is that of configs without
/// one.
template <typename T, typename Field>
AxisRule quant_axis(std::string name, bool compile_time,
                    const std::vector<std::pair<std::string, T>>& values, Field field) {
  const auto of_quant = [field](auto& s) -> auto& { return field(*s.config.quant); };
  AxisRule rule = field_axis<T>(std::move(name), compile_time, values, of_quant);
  rule.write = [write = rule.write](CaseSpec& spec, int value, Draw& draw) {
    if (spec.config.quant) write(spec, value, draw);
  };
  rule.read = [read = rule.read](const CaseSpec& spec) {
    return spec.config.quant ? read(spec) : 0;
  };
  return rule;
}

AxisRule activation_axis() {
  using enum ActivationQuant;
  std::vector<std::pair<std::string, ActivationQuant>> values;
  for (const ActivationQuant activation : {kNone, kStatic, kToken, kBlock, kInt8}) {
    values.emplace_back(name_of(activation), activation);
  }
  return quant_axis(
      "activations", true, values, [](auto& q) -> auto& { return q.activation; });
}

AxisRule gptq_group_axis() {
  return quant_axis<std::int64_t>(
      "gptq_group", true, {{"128", 128}, {"64", 64}, {"32", 32}, {"-1", -1}},
      [](auto& q) -> auto& { return q.group_size; });
}

AxisRule desc_act_axis() {
  return quant_axis<bool>(
      "gptq_desc_act", false, {{"no", false}, {"yes", true}},
      [](auto& q) -> auto& { return q.desc_act; });
}

AxisRule checkpoint_axis() {
  return quant_axis<bool>(
      "gptq_checkpoint", false, {{"gptq", false}, {"gptq_v2", true}},
      [](auto& q) -> auto& { return q.checkpoint_v2; });
}

// ---- cache type ----

struct CacheType {
  const char* name;
  std::optional<ElementType> type;  ///< absent: the config's dtype
  ScaleGranularity granularity = ScaleGranularity::kNone;
};

constexpr std::array kCacheTypes = {
    CacheType{"dtype", std::nullopt},
    CacheType{"float32", ElementType::kFloat32},
    CacheType{"bfloat16", ElementType::kBFloat16},
    CacheType{"float16", ElementType::kFloat16},
    CacheType{"fp8", ElementType::kFloat8E4M3FN},
    CacheType{"fp8 tensor", ElementType::kFloat8E4M3FN, ScaleGranularity::kTensor},
    CacheType{"fp8 head", ElementType::kFloat8E4M3FN, ScaleGranularity::kHead},
    CacheType{"fp8 token_head", ElementType::kFloat8E4M3FN, ScaleGranularity::kTokenHead},
};

AxisRule cache_type_axis() {
  AxisRule rule{{"kv_cache", {}, true}, nullptr, nullptr};
  for (const CacheType& type : kCacheTypes) rule.axis.values.emplace_back(type.name);
  rule.write = [](CaseSpec& spec, int value, Draw&) {
    const CacheType& type = kCacheTypes.at(static_cast<std::size_t>(value));
    spec.config.kv_cache.dtype = type.type.value_or(spec.config.dtype);
    spec.config.kv_cache.scale_granularity = type.granularity;
  };
  rule.read = [](const CaseSpec& spec) {
    const KvCacheConfig& cache = spec.config.kv_cache;
    const auto* const found = std::ranges::find_if(kCacheTypes, [&](const CacheType& type) {
      return type.type.value_or(spec.config.dtype) == cache.dtype &&
             type.granularity == cache.scale_granularity;
    });
    return found == kCacheTypes.end() ? -1 : static_cast<int>(found - kCacheTypes.begin());
  };
  return rule;
}

// ---- shape ----

AxisRule kv_heads_axis() {
  return integer_axis(
      "kv_heads", false, {2, 1, 3, 4, 8},
      [](auto& s) -> auto& { return s.config.num_key_value_heads; });
}

AxisRule group_size_axis() {
  static constexpr std::array<std::int64_t, 12> kSizes = {1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 16, 24};
  AxisRule rule{{"group_size", {}, false}, nullptr, nullptr};
  for (const std::int64_t size : kSizes) rule.axis.values.push_back(std::to_string(size));
  rule.write = [](CaseSpec& spec, int value, Draw&) {
    spec.config.num_attention_heads =
        kSizes.at(static_cast<std::size_t>(value)) * spec.config.num_key_value_heads;
  };
  rule.read = [](const CaseSpec& spec) {
    const auto* const found = std::ranges::find(kSizes, spec.config.group_size());
    return found == kSizes.end() ? -1 : static_cast<int>(found - kSizes.begin());
  };
  return rule;
}

AxisRule head_dim_axis() {
  return integer_axis(
      "head_dim", true, {64, 16, 20, 24, 32, 40, 59, 72, 80, 96, 104, 112, 128, 192, 256},
      [](auto& s) -> auto& { return s.config.head_dim; });
}

AxisRule head_dim_v_axis() {
  AxisRule rule{{"head_dim_v", {"same", "smaller", "larger"}, true}, nullptr, nullptr};
  rule.write = [](CaseSpec& spec, int value, Draw& draw) {
    AttentionConfig& config = spec.config;
    config.head_dim_v = config.head_dim;
    if (value == 1) config.head_dim_v = draw.pick_up_to(config.head_dim - 1, {8, 16, 34, 64, 128});
    if (value == 2) {
      config.head_dim_v += draw.pick<std::int64_t>({3, 8, 16, 64});
      config.head_dim_v = std::min<std::int64_t>(config.head_dim_v, 256);
    }
  };
  rule.read = [](const CaseSpec& spec) {
    if (spec.config.head_dim_v == spec.config.head_dim) return 0;
    return spec.config.head_dim_v < spec.config.head_dim ? 1 : 2;
  };
  return rule;
}

/// Encodings of a mixture, not all alike, whose blocks fit the widths.
void draw_mixture(CaseSpec& spec, Draw& draw) {
  using enum QuantEncoding;
  const AttentionConfig& config = spec.config;
  QuantConfig& quant = *spec.config.quant;
  const std::int64_t width = config.q_width() + config.k_width();
  const std::int64_t wide = block_width(quant, kQ4_K);
  const bool wide_columns = 2 * width * wide <= kMostWeights;
  const bool wide_rows = config.q_width() % wide == 0;
  const std::vector<QuantEncoding> narrow = {kQ4_0, kQ8_0};
  const std::vector<QuantEncoding> all = {kQ4_0, kQ8_0, kQ4_K, kQ5_K, kQ6_K};
  do {
    quant.q_proj = draw.pick(wide_columns ? all : narrow);
    quant.k_proj = draw.pick(wide_columns ? all : narrow);
    quant.v_proj = draw.pick(wide_columns ? all : narrow);
    quant.o_proj = draw.pick(wide_rows ? all : narrow);
  } while (!is_mixed(quant));
}

void write_hidden(CaseSpec& spec, int value, Draw& draw) {
  AttentionConfig& config = spec.config;
  config.hidden_size = 0;
  if (config.starts_at_attention()) return;
  std::int64_t unit = 8;
  if (config.quant) {
    QuantConfig& quant = *config.quant;
    if (is_mixed(quant)) draw_mixture(spec, draw);
    for (const QuantEncoding encoding : {quant.q_proj, quant.k_proj, quant.v_proj}) {
      unit = std::lcm(unit, block_width(quant, encoding));
    }
    draw_fp8_blocks(draw, config, quant);
  }
  const std::int64_t width = 2 * (config.q_width() + config.k_width());
  const std::int64_t least = (kLeastHidden + unit - 1) / unit;
  // A sixteenth of what the largest case may hold, so that most cases are cheap.
  const std::int64_t most =
      std::max(least, std::min<std::int64_t>(160, kMostWeights / 16 / width) / unit);
  config.hidden_size = unit * draw.between(least, most);
  if (value == 1) config.hidden_size += draw.pick<std::int64_t>({1, 3, 5, 7});
}

AxisRule hidden_axis() {
  AxisRule rule{{"hidden_size", {"multiple of 8", "uneven"}, false}, write_hidden, nullptr};
  rule.read = [](const CaseSpec& spec) { return spec.config.hidden_size % 8 == 0 ? 0 : 1; };
  return rule;
}

// ---- projections ----

AxisRule stacked_axis() {
  return flag_axis(
      "stacked_qkv", false, [](auto& s) -> auto& { return s.config.stacked_qkv; });
}

AxisRule bias_axis() {
  return flag_axis(
      "has_bias", false, [](auto& s) -> auto& { return s.config.has_bias; });
}

AxisRule clip_weights_axis() {
  AxisRule rule{{"clip_qkv", {"null", "0", "binding"}, false}, nullptr, nullptr};
  rule.write = [](CaseSpec& spec, int value, Draw& draw) {
    spec.config.clip_qkv.reset();
    if (value == 1) spec.config.clip_qkv = 0.0;
    if (value == 2) spec.config.clip_qkv = draw_weight_clip(draw, spec.config);
  };
  rule.read = [](const CaseSpec& spec) {
    if (!spec.config.clip_qkv) return 0;
    return *spec.config.clip_qkv == 0.0 ? 1 : 2;
  };
  return rule;
}

AxisRule clip_activations_axis() {
  AxisRule rule{{"clip_activations", {"null", "binding"}, false}, nullptr, nullptr};
  rule.write = [](CaseSpec& spec, int value, Draw& draw) {
    spec.config.clip_activations.reset();
    if (value == 1) spec.config.clip_activations = draw.pick({1.0, 1.5, 2.0, 2.5});
  };
  rule.read = [](const CaseSpec& spec) { return spec.config.clip_activations ? 1 : 0; };
  return rule;
}

AxisRule qk_norm_axis() {
  AxisRule rule{{"qk_norm", {"no", "eps 1e-6", "eps 1e-12", "eps 1e-3"}, false}, nullptr, nullptr};
  constexpr std::array kEps = {1e-6, 1e-6, 1e-12, 1e-3};
  rule.write = [kEps](CaseSpec& spec, int value, Draw&) {
    spec.config.use_qk_norm = value != 0;
    spec.config.rms_norm_eps = kEps.at(static_cast<std::size_t>(value));
  };
  rule.read = [kEps](const CaseSpec& spec) {
    if (!spec.config.use_qk_norm) return 0;
    for (std::size_t v = 1; v < kEps.size(); ++v) {
      if (spec.config.rms_norm_eps == kEps[v]) return static_cast<int>(v);
    }
    return -1;
  };
  return rule;
}

// ---- rope ----

AxisRule rotary_axis() {
  AxisRule rule{{"rotary", {"all", "first channels", "last channels"}, false}, nullptr, nullptr};
  rule.write = [](CaseSpec& spec, int value, Draw& draw) {
    RopeConfig& rope = spec.config.rope;
    rope.rotary_dim.reset();
    rope.rotary_side = value == 2 ? RotarySide::kLast : RotarySide::kFirst;
    const std::int64_t pairs = (spec.config.head_dim - 1) / 2;
    if (value != 0) rope.rotary_dim = 2 * draw.pick({pairs, pairs / 2, draw.between(1, pairs)});
  };
  rule.read = [](const CaseSpec& spec) {
    const RopeConfig& rope = spec.config.rope;
    if (spec.config.rotary_dim() == spec.config.head_dim) return 0;
    return rope.rotary_side == RotarySide::kFirst ? 1 : 2;
  };
  return rule;
}

AxisRule interleaved_axis() {
  return field_axis<bool>(
      "interleaved", true, {{"yes", true}, {"no", false}},
      [](auto& s) -> auto& { return s.config.rope.interleaved; });
}

void write_scaling(CaseSpec& spec, int value, Draw& draw) {
  using enum RopeScalingType;
  constexpr std::array kTypes = {kDefault,      kLinear,   kDynamic,  kLlama3,  kYarn,
                                 kDeepseekYarn, kLongrope, kLongrope, kLongrope};
  spec.config.rope.scaling = {};
  if (spec.config.starts_at_attention()) return;
  spec.config.rope.theta = draw.pick({10000.0, 10000.0, 100.0, 500000.0});
  RopeScaling& scaling = spec.config.rope.scaling;
  scaling.type = kTypes.at(static_cast<std::size_t>(value));
  draw_scaling_parameters(draw, scaling, spec.config.rotary_dim() / 2);
  if (scaling.type != kLongrope) return;
  scaling.convention = value == 8 ? LongropeConvention::kMax : LongropeConvention::kTransformers;
  scaling.use_long = value == 7;
}

AxisRule scaling_axis() {
  AxisRule rule{{"rope_scaling",
                 {"default", "linear", "dynamic", "llama3", "yarn", "deepseek_yarn",
                  "longrope short", "longrope long", "longrope max"},
                 false},
                write_scaling,
                nullptr};
  rule.read = [](const CaseSpec& spec) {
    const RopeScaling& scaling = spec.config.rope.scaling;
    const int type = static_cast<int>(scaling.type);
    if (scaling.type != RopeScalingType::kLongrope) return type;
    if (scaling.convention == LongropeConvention::kMax) return type + 2;
    return scaling.use_long ? type + 1 : type;
  };
  return rule;
}

}  // namespace

std::vector<AxisRule> layer_axes() {
  return {variant_axis(),      entry_point_axis(),      dtype_axis(),      weights_axis(),
          activation_axis(),   gptq_group_axis(),       desc_act_axis(),   checkpoint_axis(),
          cache_type_axis(),   kv_heads_axis(),         group_size_axis(), head_dim_axis(),
          head_dim_v_axis(),   hidden_axis(),           stacked_axis(),    bias_axis(),
          clip_weights_axis(), clip_activations_axis(), qk_norm_axis(),    rotary_axis(),
          interleaved_axis(),  scaling_axis()};
}

}  // namespace attn::harness
