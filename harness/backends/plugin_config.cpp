#include "harness/backends/plugin_config.h"

#include <array>
#include <cmath>
#include <utility>

#include "harness/backends/backend_failure.h"
#include "harness/report/format.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

struct Code {
  ElementType type;
  attn_dtype dtype;
};
constexpr auto kCodes = std::to_array<Code>({
    {ElementType::kFloat64, {2, 64, 1}},
    {ElementType::kFloat32, {2, 32, 1}},
    {ElementType::kFloat16, {2, 16, 1}},
    {ElementType::kBFloat16, {4, 16, 1}},
    {ElementType::kFloat8E4M3FN, {10, 8, 1}},
    {ElementType::kFloat8E4M3FNUZ, {11, 8, 1}},
    {ElementType::kFloat8E5M2, {12, 8, 1}},
    {ElementType::kFloat8E8M0FNU, {14, 8, 1}},
    {ElementType::kInt64, {0, 64, 1}},
    {ElementType::kInt32, {0, 32, 1}},
    {ElementType::kUInt32, {1, 32, 1}},
    {ElementType::kUInt8, {1, 8, 1}},
});

[[noreturn]] void refuse(const std::string& field, const std::string& value,
                         const std::string& rule) {
  throw BackendFailure(Status::kFailed, "query() declares " + field + " " + value + "; " + rule);
}

std::int32_t mask_code(MaskVariant variant) {
  switch (variant) {
    case MaskVariant::kNull:
      return ATTN_MASK_NULL;
    case MaskVariant::kCausal:
      return ATTN_MASK_CAUSAL;
    case MaskVariant::kChunkedCausal:
      return ATTN_MASK_CHUNKED_CAUSAL;
    case MaskVariant::kSlidingWindowCausal:
      return ATTN_MASK_SLIDING_WINDOW_CAUSAL;
    case MaskVariant::kSlidingWindowNoncausal:
      return ATTN_MASK_SLIDING_WINDOW_NONCAUSAL;
    case MaskVariant::kTensor:
      return ATTN_MASK_TENSOR;
  }
  throw Error(ErrorKind::kInternal, "mask: no number for it", "mask");
}

Accumulator accumulator_of(std::int32_t code) {
  switch (code) {
    case ATTN_ACC_UNDECLARED:
    case ATTN_ACC_FLOAT32:
      return Accumulator::kFloat32;
    case ATTN_ACC_FLOAT32_TENSOR_CORE:
      return Accumulator::kFloat32TensorCore;
    case ATTN_ACC_FLOAT16:
      return Accumulator::kFloat16;
    case ATTN_ACC_FP8_14BIT:
      return Accumulator::kFp8_14Bit;
    case ATTN_ACC_FP8_14BIT_PROMOTED_128:
      return Accumulator::kFp8_14BitPromoted128;
    case ATTN_ACC_FLOAT64:
      return Accumulator::kFloat64;
    default:
      refuse("accumulator", std::to_string(code), "use one of ATTN_ACC_...");
  }
}

ElementType float_type(attn_dtype dtype, ElementType fallback, const std::string& field) {
  const ElementType type = from_dlpack(dtype, fallback, field);
  if (!is_float(type)) {
    refuse(field, std::string(element_name(type)), "use a floating-point type");
  }
  return type;
}

std::int64_t at_least(std::int64_t least, std::int64_t value, std::int64_t undeclared,
                      const std::string& field) {
  if (value == 0) return undeclared;
  if (value < least) refuse(field, std::to_string(value), "use a positive number, or 0");
  return value;
}

double relative_error(double value, double undeclared, const std::string& field) {
  if (value == 0.0) return undeclared;
  // What is wrong by more than 1/16 is wrong.
  if (!(value > 0.0 && value <= 0x1p-4)) {
    refuse(field, format_short(value), "use a number in (0, 2^-4]");
  }
  return value;
}

}  // namespace

attn_dtype to_dlpack(ElementType type) {
  for (const Code& code : kCodes) {
    if (code.type == type) return code.dtype;
  }
  throw Error(ErrorKind::kUnsupported,
              "plug-ins are not given tensors of " + std::string(element_name(type)));
}

ElementType from_dlpack(attn_dtype dtype, ElementType fallback, const std::string& field) {
  if (dtype.code == 0 && dtype.bits == 0 && dtype.lanes == 0) return fallback;
  for (const auto& [type, known] : kCodes) {
    if (dtype.code == known.code && dtype.bits == known.bits && dtype.lanes == known.lanes) {
      return type;
    }
  }
  refuse(field,
         std::string("{") + std::to_string(dtype.code) + ", " + std::to_string(dtype.bits) + ", " +
             std::to_string(dtype.lanes) + "}",
         "use one of DLPack's types, with lanes 1");
}

attn_config to_plugin_config(const AttentionConfig& config, bool has_sinks,
                             const std::string& json) {
  attn_config c{};
  c.struct_size = sizeof(c);
  c.mask = mask_code(config.mask.variant);
  c.mask_align =
      config.mask.align == MaskAlign::kTopLeft ? ATTN_ALIGN_TOP_LEFT : ATTN_ALIGN_BOTTOM_RIGHT;
  c.has_sinks = has_sinks ? 1 : 0;
  c.dtype = to_dlpack(config.dtype);
  c.cache_dtype = to_dlpack(config.kv_cache.dtype);
  c.num_heads = config.num_attention_heads;
  c.num_kv_heads = config.num_key_value_heads;
  c.head_dim = config.head_dim;
  c.head_dim_v = config.head_dim_v;
  c.page_size = config.kv_cache.page_size;
  c.window_size = config.mask.window_size.value_or(0);
  c.chunk_size = config.mask.chunk_size.value_or(0);
  c.scale = config.softmax_scale();
  c.softcap = config.logit_softcap.value_or(0.0);
  c.json = json.c_str();
  c.entry_point = config.starts_at_attention()                 ? ATTN_ENTRY_ATTENTION
                  : config.entry_point == EntryPoint::kForward ? ATTN_ENTRY_FORWARD
                                                               : ATTN_ENTRY_MATERIALIZE;
  c.has_bias = config.has_bias;
  c.stacked_qkv = config.stacked_qkv;
  c.use_qk_norm = config.use_qk_norm;
  c.rope_interleaved = config.rope.interleaved;
  c.rotary_last = config.rope.rotary_side == RotarySide::kLast;
  c.quantised = config.quant.has_value();
  c.hidden_size = config.hidden_size;
  c.rotary_dim = config.starts_at_attention() ? 0 : config.rotary_dim();
  c.num_devices = config.num_devices;
  c.rms_norm_eps = config.rms_norm_eps;
  c.clip_weights = config.weight_clip().value_or(0.0);
  c.clip_activations = config.clip_activations.value_or(0.0);
  return c;
}

Arithmetic to_arithmetic(const AttentionConfig& config, const attn_capability& capability) {
  Arithmetic a;
  a.out = float_type(capability.out, a.out, "out");
  a.lse = float_type(capability.lse, a.lse, "lse");
  a.probabilities = float_type(capability.probabilities, a.probabilities, "probabilities");
  a.cache = config.kv_cache.dtype;
  a.attention_acc = accumulator_of(capability.accumulator);
  a.projection_acc = accumulator_of(capability.projection_accumulator);
  a.store = float_type(capability.store, a.store, "store");
  a.cos_sin = float_type(capability.cos_sin, a.cos_sin, "cos_sin");
  a.norm_eps = float_type(capability.norm_eps, a.norm_eps, "norm_eps");
  a.float32_frequencies = capability.float32_frequencies != 0;
  a.rope_native = capability.rope_native != 0;
  a.round_twice = capability.round_twice != 0;
  a.fused_cache = capability.fused_cache != 0;
  a.operand_roundoff =
      relative_error(capability.operand_roundoff, a.operand_roundoff, "operand_roundoff");
  a.lse_from_rounded_probabilities = capability.lse_from_rounded_probabilities != 0;
  a.block = at_least(1, capability.block, a.block, "block");
  a.splits = at_least(1, capability.splits, a.splits, "splits");
  a.lanes = at_least(1, capability.lanes, a.lanes, "lanes");
  a.exp_rel = relative_error(capability.exp_rel, a.exp_rel, "exp_rel");
  a.deterministic = (capability.claims & ATTN_CLAIM_DETERMINISTIC) != 0;
  a.batch_invariant = (capability.claims & ATTN_CLAIM_BATCH_INVARIANT) != 0;
  a.scaling = float_type(capability.scaling, a.scaling, "scaling");
  a.partial = float_type(capability.partial, a.partial, "partial");
  a.native_weights = capability.native_weights != 0;
  return a;
}

namespace {

constexpr MemoryLayout kStandardLayout;

/// A feature of layouts: the bits of which a plug-in declares one, and how to leave it out.
struct LayoutFeature {
  std::uint32_t bits;
  const char* words;
  void (*leave_out)(MemoryLayout&);
};

constexpr LayoutFeature kLayoutFeatures[] = {
    {ATTN_LAYOUT_HND | ATTN_LAYOUT_ONLY_HND, "cache pages of [heads, slots, dim]",
     [](MemoryLayout& l) { l.cache = kStandardLayout.cache; }},
    {ATTN_LAYOUT_KV_PAIRS, "K and V in one allocation",
     [](MemoryLayout& l) { l.kv = kStandardLayout.kv; }},
    {ATTN_LAYOUT_QUERY_STRIDES, "q as a view", [](MemoryLayout& l) { l.q = kStandardLayout.q; }},
    {ATTN_LAYOUT_OUTPUT_STRIDES, "outputs with heads outermost",
     [](MemoryLayout& l) { l.out = kStandardLayout.out; }},
    {ATTN_LAYOUT_BROADCAST, "strides of 0",
     [](MemoryLayout& l) { l.broadcast = kStandardLayout.broadcast; }},
    {ATTN_LAYOUT_GAPS, "gaps between rows",
     [](MemoryLayout& l) { l.gap = l.offset = kStandardLayout.gap; }},
    {ATTN_LAYOUT_CHANNEL_STRIDE, "channels with a stride",
     [](MemoryLayout& l) { l.channel_stride = kStandardLayout.channel_stride; }},
    {ATTN_LAYOUT_LARGE, "offsets of 2^31 elements",
     [](MemoryLayout& l) { l.row_stride = l.pool_offset = kStandardLayout.row_stride; }}};

}  // namespace

MemoryLayout reduced_layout(MemoryLayout wanted, std::uint32_t declared) {
  if (declared == 0) return kStandardLayout;
  for (const LayoutFeature& feature : kLayoutFeatures) {
    if ((declared & feature.bits) == 0) feature.leave_out(wanted);
  }
  if ((declared & ATTN_LAYOUT_ONLY_HND) != 0) wanted.cache = CacheOrder::kHnd;
  return wanted;
}

MemoryLayout taken_layout(const MemoryLayout& wanted, std::uint32_t declared) {
  constexpr std::uint32_t kKnown = ATTN_LAYOUT_ANY | ATTN_LAYOUT_ONLY_HND;
  if ((declared & ~kKnown) != 0) {
    refuse("layouts", std::to_string(declared), "use a sum of ATTN_LAYOUT_...");
  }
  if (declared == 0) return kStandardLayout;
  for (const LayoutFeature& feature : kLayoutFeatures) {
    MemoryLayout without = wanted;
    feature.leave_out(without);
    if (without != wanted && (declared & feature.bits) == 0) {
      throw Error(ErrorKind::kUnsupported, std::string("the case has ") + feature.words +
                                               ", which the plug-in does not declare");
    }
  }
  return reduced_layout(wanted, declared);
}

}  // namespace attn::harness
