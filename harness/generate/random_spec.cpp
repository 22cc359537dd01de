#include <algorithm>
#include <cmath>

#include "harness/generate/random_draw.h"

namespace attn::harness {
namespace {

constexpr std::int64_t kMaxKeys = 64;  // of one sequence
constexpr std::int64_t kMaxCached = 60;
constexpr std::int64_t kMinRows = 4;  // query rows in all
constexpr std::int64_t kMaxRows = 32;

void draw_kind(Draw& draw, const Plan& plan, AttentionConfig& config) {
  config.dtype = draw.pick({ElementType::kFloat32, ElementType::kBFloat16, ElementType::kFloat16});
  if (plan.quant && is_gguf(plan.quant->q_proj)) config.dtype = ElementType::kFloat32;
  config.kv_cache.dtype = plan.fp8_cache ? ElementType::kFloat8E4M3FN : config.dtype;
  config.kv_cache.scale_granularity = plan.granularity;
  config.kv_cache.page_size = draw.pick<std::int64_t>({1, 2, 3, 4, 7, 8, 16, 16, 32, 64});
  config.quant = plan.quant;
  const bool attention = plan.variant ? *plan.variant == Variant::kAttention : draw.one_in(4);
  if (attention) {
    config.variant = Variant::kAttention;
    config.entry_point = EntryPoint::kAttention;
    return;
  }
  // Values of an fp8 cache are often half of the largest beside them, which is a tie of int8 codes
  // (63.5): such attention outputs have two right codes, and no golden file can hold them.
  const bool ties =
      config.quant && config.quant->activation == ActivationQuant::kInt8 && plan.fp8_cache;
  config.entry_point =
      ties || draw.one_in(4) ? EntryPoint::kMaterializeKvFromHidden : EntryPoint::kForward;
  config.variant = draw.pick({Variant::kAttentionWithRope, Variant::kAttentionWithRope,
                              Variant::kAttentionWithRope, Variant::kNoOpaque,
                              Variant::kTensorParallel, Variant::kDataParallel});
  if (plan.variant) config.variant = *plan.variant;
}

/// Devices that the variant can have: whole GQA groups on each, or one kv head copied to two or
/// three. A batch may have fewer sequences than data_parallel devices.
void draw_devices(Draw& draw, AttentionConfig& config) {
  constexpr std::int64_t kMaxDevices = 8;
  if (config.variant == Variant::kDataParallel) config.num_devices = draw.between(1, kMaxDevices);
  if (config.variant != Variant::kTensorParallel) return;
  const std::int64_t kv_heads = config.num_key_value_heads;
  const std::int64_t copies = draw.pick<std::int64_t>({2, 2, 3});
  if (draw.one_in(3) && config.group_size() >= copies && copies * kv_heads <= kMaxDevices) {
    config.kv_head_replication = true;
    config.num_devices = copies * kv_heads;
    return;
  }
  config.num_devices = draw.between(1, kv_heads);
}

/// A bound with a short binary expansion, so that it prints shortly and is the same everywhere.
double short_number(double value) { return std::floor(value * 1024 + 0.5) / 1024; }

/// Stacking, bias, clips and norm, as far as rules 1 and 3 let them meet.
void draw_projection(Draw& draw, AttentionConfig& config) {
  const bool no_opaque = config.variant == Variant::kNoOpaque;
  config.stacked_qkv = no_opaque || (!config.quant && draw.one_in(4));
  if (no_opaque) return;
  if (!config.stacked_qkv) {
    config.has_bias = draw.one_in(3);
    if (config.quant) {
      const bool fp8 = config.quant->q_proj == QuantEncoding::kFloat8E4M3FN;
      if (fp8 && draw.one_in(4)) config.clip_qkv = draw_weight_clip(draw, config);
    } else if (draw.one_in(4)) {
      config.clip_qkv = draw.one_in(8) ? 0.0 : draw_weight_clip(draw, config);
    }
  }
  if (draw.one_in(4)) config.clip_activations = draw.pick({1.0, 1.5, 2.0, 2.5});
  config.use_qk_norm = draw.one_in(3);
  if (config.use_qk_norm) config.rms_norm_eps = draw.pick({1e-12, 1e-8, 1e-6, 1e-5, 1e-3});
}

void draw_longrope(Draw& draw, RopeScaling& scaling, std::int64_t pairs) {
  scaling.original_max_position_embeddings = draw.pick<std::int64_t>({8, 16, 32, 4096});
  scaling.max_position_embeddings =
      scaling.original_max_position_embeddings * draw.pick<std::int64_t>({1, 4, 32});
  scaling.convention = draw.pick({LongropeConvention::kTransformers, LongropeConvention::kMax});
  if (scaling.convention == LongropeConvention::kTransformers) scaling.use_long = draw.one_in(2);
  for (std::int64_t j = 0; j < pairs; ++j) {
    scaling.short_factor.push_back(1.0 + static_cast<double>(j) / 64);
    scaling.long_factor.push_back(1.0 + static_cast<double>(j) / 2);
  }
}

void draw_scaling(Draw& draw, RopeScaling& scaling, std::int64_t pairs) {
  using Type = RopeScalingType;
  scaling.type =
      draw.pick({Type::kDefault, Type::kDefault, Type::kDefault, Type::kLinear, Type::kDynamic,
                 Type::kLlama3, Type::kYarn, Type::kDeepseekYarn, Type::kLongrope});
  draw_scaling_parameters(draw, scaling, pairs);
}

void draw_rope(Draw& draw, AttentionConfig& config) {
  RopeConfig& rope = config.rope;
  rope.theta = draw.pick({100.0, 10000.0, 10000.0, 500000.0, 1e6});
  rope.interleaved = config.variant == Variant::kNoOpaque || draw.one_in(2);
  if (config.head_dim >= 4 && draw.one_in(3)) {
    rope.rotary_dim = 2 * draw.between(1, config.head_dim / 2 - 1);
    rope.rotary_side = draw.pick({RotarySide::kFirst, RotarySide::kFirst, RotarySide::kLast});
  }
  draw_scaling(draw, rope.scaling, config.rotary_dim() / 2);
}

/// Decode: one new token a sequence. Prefill: empty caches. Mixed: some of each, some sequences
/// without rows.
std::vector<RowSpec> draw_layer_rows(Draw& draw) {
  enum class Batch { kDecode, kPrefill, kMixed };
  const Batch kind = draw.pick({Batch::kDecode, Batch::kPrefill, Batch::kMixed, Batch::kMixed});
  const std::int64_t sequences =
      kind == Batch::kDecode ? draw.between(kMinRows, 6) : draw.between(1, 4);
  const bool has_empty_row = kind != Batch::kDecode && sequences > 1 && draw.one_in(3);
  const std::int64_t empty = has_empty_row ? draw.between(0, sequences - 1) : -1;
  std::vector<RowSpec> rows;
  for (std::int64_t b = 0; b < sequences; ++b) {
    RowSpec row;
    if (kind != Batch::kPrefill && !(kind == Batch::kMixed && draw.one_in(3))) {
      row.first = draw.between(0, kMaxCached);
    }
    row.second = kind == Batch::kDecode ? 1 : draw.between(kMinRows, kMaxRows / sequences);
    row.second = std::min(row.second, kMaxKeys - row.first);
    if (b == empty) row.second = 0;
    rows.push_back(row);
  }
  return rows;
}

/// [queries, keys], keys from none to kMaxKeys; once in five times more queries than keys.
std::vector<RowSpec> draw_attention_rows(Draw& draw) {
  std::vector<RowSpec> rows;
  const std::int64_t sequences = draw.between(1, 4);
  for (std::int64_t b = 0; b < sequences; ++b) {
    RowSpec row;
    row.first = draw.between(kMinRows, kMaxRows / sequences);
    row.second = draw.one_in(5) ? draw.between(1, row.first) : draw.between(row.first, kMaxKeys);
    if (sequences > 1 && b > 0) {
      if (draw.one_in(8)) row.first = draw.pick<std::int64_t>({0, 1});
      if (draw.one_in(8)) row.second = 0;
    }
    rows.push_back(row);
  }
  return rows;
}

/// Windows and chunks around the lengths that occur, and tiny ones.
std::int64_t draw_span(Draw& draw, std::int64_t keys) {
  const std::int64_t length = std::max<std::int64_t>(2, keys);
  return draw.pick({std::int64_t{1}, std::int64_t{2}, length / 4 + 1, length / 2, length - 1,
                    length, length + 1, draw.between(1, length)});
}

void draw_mask(Draw& draw, AttentionConfig& config, std::int64_t keys) {
  using Mask = MaskVariant;
  MaskConfig& mask = config.mask;
  mask.variant =
      draw.pick({Mask::kCausal, Mask::kCausal, Mask::kCausal, Mask::kNull, Mask::kChunkedCausal,
                 Mask::kSlidingWindowCausal, Mask::kSlidingWindowNoncausal});
  if (config.starts_at_attention()) {
    if (draw.one_in(6)) mask.variant = Mask::kTensor;
    if (draw.one_in(3)) mask.align = MaskAlign::kTopLeft;
  }
  if (mask.variant == Mask::kChunkedCausal) mask.chunk_size = draw_span(draw, keys);
  if (mask.variant == Mask::kSlidingWindowCausal || mask.variant == Mask::kSlidingWindowNoncausal) {
    mask.window_size = draw_span(draw, keys);
  }
}

/// Scale and soft-cap. A scale of 0 and equal keys are degenerate and rare.
void draw_scores(Draw& draw, AttentionConfig& config) {
  if (draw.one_in(3)) config.scale = draw.pick({0.5, 0.07, 1.0, -0.125, -0.5});
  if (draw.one_in(100)) config.scale = 0.0;
  if (draw.one_in(4)) config.logit_softcap = draw.pick({1.0, 2.0, 5.0, 15.0, 30.0, 50.0, 64.0});
}

/// Whether profile fp8_range leaves something to judge: a clip takes the range away, and int8 and
/// four-bit activations have no codes between its largest channels and zero.
bool has_range(const AttentionConfig& config) {
  if (config.clip_activations) return false;
  if (!config.quant || config.quant->activation == ActivationQuant::kNone) return true;
  const QuantEncoding encoding = config.quant->q_proj;
  return encoding == QuantEncoding::kFloat8E4M3FN || encoding == QuantEncoding::kMxfp8;
}

/// tiny_norm needs norms to be hard on, and extreme logits say nothing under a soft-cap.
std::string draw_profile(Draw& draw, const AttentionConfig& config) {
  if (draw.one_in(100)) return "equal_keys";
  if (config.use_qk_norm && draw.one_in(4)) return "tiny_norm";
  if (!config.logit_softcap && draw.one_in(10)) return "extreme";
  if (config.quant && draw.one_in(4)) return "code_extremes";
  const bool quantised = config.quant || config.kv_cache.dtype == ElementType::kFloat8E4M3FN;
  if (quantised && has_range(config) && draw.one_in(3)) return "fp8_range";
  return draw.pick({"normal", "normal", "normal", "q_x4", "needles"});
}

}  // namespace

double draw_weight_clip(Draw& draw, const AttentionConfig& config) {
  if (config.quant) return draw.pick({96.0, 200.0, 300.0});
  // Matrices of k and v have a standard deviation of 1 / sqrt(hidden).
  const double sigma = 1.0 / std::sqrt(static_cast<double>(config.hidden_size));
  return short_number(draw.pick({1.5, 1.75, 2.0}) * sigma);
}

void draw_scaling_parameters(Draw& draw, RopeScaling& scaling, std::int64_t pairs) {
  using Type = RopeScalingType;
  if (scaling.type == Type::kLongrope) draw_longrope(draw, scaling, pairs);
  const bool yarn = scaling.type == Type::kYarn || scaling.type == Type::kDeepseekYarn;
  if (yarn || scaling.type == Type::kLinear || scaling.type == Type::kLlama3) {
    scaling.factor = draw.pick({2.0, 4.0, 8.0, 40.0});
  }
  // Original lengths that put wavelengths of small heads on all sides of the thresholds.
  if (yarn || scaling.type == Type::kLlama3) {
    scaling.original_max_position_embeddings = draw.pick<std::int64_t>({16, 64, 1024, 8192});
  }
  if (scaling.type == Type::kDeepseekYarn) {
    scaling.mscale = draw.pick({0.707, 1.0});
    scaling.mscale_all_dim = draw.pick({0.5, 0.707, 1.0});
  }
}

CaseSpec random_small_spec(std::uint64_t seed) {
  Draw draw(seed);
  const Plan plan = plan_of(seed);
  CaseSpec spec;
  AttentionConfig& config = spec.config;
  draw_kind(draw, plan, config);
  if (config.quant) {
    draw_quantised_shape(draw, plan, config);
  } else {
    draw_shape(draw, config);
  }
  draw_devices(draw, config);
  if (config.starts_at_attention()) {
    spec.rows = draw_attention_rows(draw);
  } else {
    draw_projection(draw, config);
    draw_rope(draw, config);
    spec.rows = draw_layer_rows(draw);
  }
  std::int64_t keys = 0;
  for (const RowSpec& row : spec.rows) {
    keys = std::max(keys, config.starts_at_attention() ? row.second : row.first + row.second);
  }
  draw_mask(draw, config, keys);
  draw_scores(draw, config);
  spec.profile = draw_profile(draw, config);
  spec.sinks = draw.one_in(4);
  spec.pages = draw.one_in(4) ? PageOrder::kIdentity : PageOrder::kShuffled;
  spec.layers = draw.between(1, 3);
  spec.layer = draw.between(0, spec.layers - 1);
  return spec;
}

}  // namespace attn::harness
