#include "gpu/layers/layer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "gpu/faults/fault_switch.h"
#include "gpu/kernels/attention.h"
#include "gpu/kernels/attention_decode_lean.h"
#include "gpu/kernels/cublas_lt.h"
#include "gpu/kernels/elementwise.h"
#include "gpu/kernels/gemm.h"
#include "gpu/kernels/head_pass.h"
#include "gpu/kernels/projection_hopper.h"
#include "gpu/kernels/quantise.h"
#include "gpu/layers/coded_product.h"
#include "gpu/layers/device_weights.h"
#include "gpu/layers/types.h"
#include "reference/core/devices.h"
#include "reference/core/error.h"

namespace attn::gpu {
namespace {

constexpr std::int64_t kMostHeadDim = 1024;  // head_pass.cu and the plain kernel's shared memory

bool is_plain_float(ElementType type) {
  return type == ElementType::kFloat32 || type == ElementType::kBFloat16 ||
         type == ElementType::kFloat16;
}

const float* floats(const Buffer& buffer) { return reinterpret_cast<const float*>(buffer.data()); }

MaskKind mask_kind(MaskVariant variant) {
  switch (variant) {
    case MaskVariant::kCausal:
      return MaskKind::kCausal;
    case MaskVariant::kChunkedCausal:
      return MaskKind::kChunked;
    case MaskVariant::kSlidingWindowCausal:
      return MaskKind::kWindow;
    case MaskVariant::kSlidingWindowNoncausal:
      return MaskKind::kLookback;
    case MaskVariant::kNull:
    case MaskVariant::kTensor:
      break;
  }
  return MaskKind::kNone;
}

AttentionShape attention_shape(const AttentionConfig& config, const LayerOptions& options) {
  AttentionShape shape;
  shape.num_heads = config.num_attention_heads;
  shape.num_kv_heads = config.num_key_value_heads;
  shape.head_dim = std::max(config.head_dim, config.head_dim_v);
  shape.coded = config.kv_cache.dtype == ElementType::kFloat8E4M3FN;
  shape.multiprocessors = multiprocessor_count();
  shape.clusters = runs_hopper_code();
  shape.fixed_splits = options.fixed_splits;
  shape.decode = may_decode_lean(config) ? options.decode : decode_way("general");
  return shape;
}

HopperShape hopper_shape(const AttentionConfig& config, const LayerOptions& options) {
  HopperShape shape;
  shape.type = type_of(config.dtype);
  shape.cache_type = type_of(config.kv_cache.dtype);
  shape.num_heads = config.num_attention_heads;
  shape.num_kv_heads = config.num_key_value_heads;
  shape.head_dim = config.head_dim;
  shape.head_dim_v = config.head_dim_v;
  shape.page_size = config.kv_cache.page_size;
  shape.mask_tensor = config.mask.variant == MaskVariant::kTensor;
  shape.fixed_splits = options.fixed_splits;
  shape.token_scales = config.kv_cache.scale_granularity == ScaleGranularity::kTokenHead;
  shape.fp8 = options.prefill == PrefillKernel::kFp8;
  return shape;
}

ProjectionShape projection_shape(const AttentionConfig& config) {
  const bool cache_only = config.entry_point == EntryPoint::kMaterializeKvFromHidden;
  ProjectionShape shape;
  shape.type = type_of(config.dtype);
  shape.cache_type = type_of(config.kv_cache.dtype);
  shape.quantised = config.quant.has_value();
  shape.num_heads = cache_only ? 0 : config.num_attention_heads;
  shape.num_kv_heads = config.num_key_value_heads;
  shape.head_dim = config.head_dim;
  shape.rotary_dim = config.rotary_dim();
  shape.interleaved = config.rope.interleaved;
  shape.hidden_size = config.hidden_size;
  return shape;
}

/// Columns of product.x, [m, k] of out_type, to the values of their codes.
void quantise_columns(const InputFormat& format, const GemmArguments& product, Range columns,
                      float* values, StreamHandle stream) {
  QuantiseArguments a;
  a.x = product.x;
  a.type = product.out_type;
  a.y = values;
  a.rows = product.m;
  a.width = product.k;
  a.first_column = columns.first;
  a.columns = columns.count;
  a.block = format.block > 0 ? format.block : columns.count;
  a.format = format.format;
  a.scale = format.scale;
  quantise(a, stream);
}

/// The columns of the output projection's input that each device quantises by itself.
std::vector<Range> slices_of_devices(const AttentionConfig& config) {
  std::vector<Range> slices;
  for (const DeviceHeads& device : device_heads(config)) {
    slices.push_back(
        {device.q_heads.first * config.head_dim_v, device.q_heads.count * config.head_dim_v});
  }
  return slices;
}

/// By the library where it was planned, else by our own kernel.
void multiply(const GemmArguments& a, const CublasLtGemm* planned, const void* typed_bias,
              void* workspace, StreamHandle stream) {
  if (planned == nullptr) return gemm(a, stream);
  planned->run(a, typed_bias, workspace, stream);
  // Clipping what is rounded is rounding what is clipped: the bound is a value of the type.
  if (a.clip < kNoBound) clip(a.y, a.type, a.m * a.n, a.clip, stream);
}

}  // namespace

std::string unsupported_reason(const AttentionConfig& config) {
  if (!is_plain_float(config.dtype)) {
    return "activations in " + std::string(element_name(config.dtype)) + " are not implemented";
  }
  const ElementType cache = config.kv_cache.dtype;
  if (!is_plain_float(cache) && cache != ElementType::kFloat8E4M3FN) {
    return "a cache in " + std::string(element_name(cache)) + " is not implemented";
  }
  if (config.head_dim > kMostHeadDim || config.head_dim_v > kMostHeadDim) {
    return "head_dim above " + std::to_string(kMostHeadDim) + " is not implemented";
  }
  return "";
}

bool may_decode_lean(const AttentionConfig& config) {
  const bool sees_all =
      config.mask.variant == MaskVariant::kNull ||
      (config.mask.variant == MaskVariant::kCausal && config.mask.align == MaskAlign::kBottomRight);
  const auto page = static_cast<std::uint64_t>(config.kv_cache.page_size);
  const bool by_token = config.kv_cache.dtype == ElementType::kFloat8E4M3FN &&
                        config.kv_cache.scale_granularity == ScaleGranularity::kTokenHead;
  return sees_all && !by_token && config.logit_softcap.value_or(0.0) == 0.0 &&
         config.softmax_scale() > 0.0 && config.head_dim == kLeanHeadDim &&
         config.head_dim_v == kLeanHeadDim && std::has_single_bit(page) && page >= kDecodeKeys;
}

std::string hopper_unsupported_reason(const AttentionConfig& config, const LayerOptions& options) {
  if (config.entry_point == EntryPoint::kMaterializeKvFromHidden) return "";
  std::string reason = options.plain_attention ? "attention=plain is another kernel"
                                               : hopper_refusal(hopper_shape(config, options));
  if (reason.empty()) reason = hopper_device_refusal();
  if (reason.empty()) return "";
  return (options.prefill == PrefillKernel::kFp8 ? "prefill=fp8: " : "prefill=hopper: ") + reason;
}

Fp8Products fp8_products(const AttentionConfig& config, const LayerOptions& options) {
  const bool may = config.quant && options.cublas && options.fp8 != Fp8Products::kOwn;
  return may && has_cublas_lt_fp8() ? options.fp8 : Fp8Products::kOwn;
}

bool sums_in_fp8_accumulators(const AttentionConfig& config, const LayerOptions& options) {
  if (!keeps_codes(config)) return false;
  const Fp8Products products = fp8_products(config, options);
  return fp8_library_serves_qkv(config, products) || fp8_library_serves_o(config, products);
}

std::string projection_unsupported_reason(const AttentionConfig& config,
                                          const LayerOptions& options) {
  if (config.starts_at_attention()) return "";
  std::string reason = options.fused_head_pass ? projection_refusal(projection_shape(config))
                                               : "fused=0 is another way to make q, k and v";
  if (reason.empty()) reason = hopper_device_refusal();
  return reason.empty() ? "" : "projection=hopper: " + reason;
}

bool uses_tensor_cores(const AttentionConfig& config, const LayerOptions& options) {
  return !options.plain_attention &&
         has_tensor_core_kernel(type_of(config.dtype), type_of(config.kv_cache.dtype),
                                config.head_dim, config.head_dim_v);
}

std::int64_t BatchShape::tokens() const {
  return std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
}

AttentionLayer::AttentionLayer(const AttentionConfig& config, const LayerWeights& weights,
                               const LayerOptions& options)
    : config_(config), options_(options), attention_shape_(attention_shape(config, options)) {
  if (const std::string reason = unsupported_reason(config); !reason.empty()) {
    throw Error(ErrorKind::kUnsupported, "cuda: " + reason);
  }
  if (options.prefill == PrefillKernel::kHopper || options.prefill == PrefillKernel::kFp8) {
    if (const std::string reason = hopper_unsupported_reason(config, options); !reason.empty()) {
      throw Error(ErrorKind::kUnsupported, "cuda: " + reason);
    }
  }
  if (options.hopper_projection == ProjectionUse::kAlways) {
    const std::string reason = projection_unsupported_reason(config, options);
    if (!reason.empty()) throw Error(ErrorKind::kUnsupported, "cuda: " + reason);
  }
  weights_ =
      std::make_unique<DeviceWeights>(config, weights, fp8_products(config, options), Stream());
}

AttentionLayer::~AttentionLayer() = default;

std::int64_t AttentionLayer::qkv_width() const {
  const bool cache_only = config_.entry_point == EntryPoint::kMaterializeKvFromHidden;
  return (cache_only ? 0 : config_.q_width()) + config_.k_width() + config_.v_width();
}

/// Where the intermediates of a run lie: the caller's taps, or the workspace.
struct AttentionLayer::Buffers {
  BatchView batch;
  void* qkv = nullptr;
  void* q_norm = nullptr;
  void* k_norm = nullptr;
  void* q_rope = nullptr;
  void* k_rope = nullptr;
  float* lse = nullptr;
  void* attn_out = nullptr;
  float* partials = nullptr;
  unsigned* counters = nullptr;
  float* mail = nullptr;
  void* gemm_workspace = nullptr;
  void* images = nullptr;
  float* input_values = nullptr;  ///< of a product with decoded weights
  CodedMemory coded;              ///< of one whose weights are codes
};

BatchView AttentionLayer::batch_of(const LayerPlan& plan, const LayerTensors& t) const {
  return {t.row_offsets, t.cache_lengths, plan.batch, plan.tokens, !config_.starts_at_attention()};
}

AttentionLayer::Buffers AttentionLayer::buffers(const LayerPlan& plan, const LayerTensors& t,
                                                Arena& arena) const {
  const auto bytes = static_cast<std::int64_t>(element_size(config_.dtype));
  const auto take = [&](void* tap, std::int64_t width, bool needed) -> void* {
    if (tap != nullptr || !needed) return tap;
    return arena.take(static_cast<std::size_t>(plan.tokens * width * bytes));
  };
  const bool layer = !config_.starts_at_attention();
  const bool forward = config_.entry_point == EntryPoint::kForward;
  const bool unfused = layer && !options_.fused_head_pass;
  Buffers b;
  b.batch = batch_of(plan, t);
  if (uses_tensor_cores(config_, options_)) {
    b.counters = arena.take_array<unsigned>(kCounters);
    b.mail = arena.take_array<float>(mail_floats(attention_shape_));
  }
  unsigned* const coded_counters =
      weights_->has_codes() ? arena.take_array<unsigned>(kCodedCounters) : nullptr;
  std::size_t gemm_bytes = 0;
  for (const auto& product : {plan.qkv_gemm, plan.out_gemm}) {
    if (product != nullptr) gemm_bytes = std::max(gemm_bytes, product->workspace_bytes());
  }
  b.gemm_workspace = arena.take(gemm_bytes);
  if (weights_->has_codes()) {
    b.coded = CodedMemory(plan.coded_space, arena);
    b.coded.counters = coded_counters;
  } else if (config_.quant && layer) {
    b.input_values =
        arena.take_array<float>(plan.tokens * std::max(config_.hidden_size, config_.attn_width()));
  }
  b.qkv = take(t.qkv, qkv_width(), layer && !plan.projection.taken && !plan.qkv_gemv);
  b.q_norm = take(t.q_norm, config_.q_width(), unfused && forward && config_.use_qk_norm);
  b.k_norm = take(t.k_norm, config_.k_width(), unfused && config_.use_qk_norm);
  b.q_rope = take(t.q_rope, config_.q_width(), forward);
  b.k_rope = take(t.k_rope, config_.k_width(), unfused);
  if (config_.entry_point == EntryPoint::kMaterializeKvFromHidden) return b;
  b.attn_out = take(t.attn_out, config_.attn_width(), true);
  b.lse =
      t.lse != nullptr ? t.lse : arena.take_array<float>(plan.tokens * config_.num_attention_heads);
  b.images = arena.take(plan.hopper.image_bytes());
  b.partials = arena.take_array<float>(
      partial_floats(plan.attention, plan.tokens, config_.num_attention_heads, config_.head_dim_v));
  return b;
}

void AttentionLayer::plan_prefill(LayerPlan& plan, std::int64_t max_rows,
                                  std::int64_t max_keys) const {
  if (options_.prefill == PrefillKernel::kTiled) return;
  const bool chosen = options_.prefill == PrefillKernel::kChosen;
  if (chosen && !hopper_device_refusal().empty()) return;
  const HopperPlan hopper =
      plan_hopper(hopper_shape(config_, options_), attention_shape_.multiprocessors, plan.batch,
                  max_rows, max_keys);
  // Long keys of few rows: the tiled kernel splits them over multiprocessors that would have no
  // tile. It does half as much in the same time (docs/kernels.md).
  const bool idles =
      plan.attention.splits > 1 && 2 * hopper.blocks < attention_shape_.multiprocessors;
  if (!hopper.taken || (chosen && idles)) return;
  plan.hopper = hopper;
  plan.attention.splits = 1;  // no parts in the workspace
}

LayerPlan AttentionLayer::plan(const BatchShape& shape) const {
  if (shape.rows.size() != shape.cached.size()) {
    throw Error(ErrorKind::kUsage, "cuda: " + std::to_string(shape.rows.size()) +
                                       " row counts and " + std::to_string(shape.cached.size()) +
                                       " cache lengths; give one of each per sequence");
  }
  LayerPlan plan;
  plan.tokens = shape.tokens();
  plan.batch = static_cast<std::int64_t>(shape.rows.size());
  std::int64_t max_rows = 0;
  std::int64_t max_keys = 0;
  for (std::size_t b = 0; b < shape.rows.size(); ++b) {
    const std::int64_t new_keys = config_.starts_at_attention() ? 0 : shape.rows[b];
    max_rows = std::max(max_rows, shape.rows[b]);
    max_keys = std::max(max_keys, shape.cached[b] + new_keys);
  }
  if (uses_tensor_cores(config_, options_)) {
    plan.zeroed_bytes += kCounters * sizeof(unsigned) +
                         static_cast<std::size_t>(mail_floats(attention_shape_)) * sizeof(float);
    plan.attention = plan_attention(attention_shape_, plan.batch, max_rows, max_keys);
    plan_prefill(plan, max_rows, max_keys);
  }
  if (!config_.starts_at_attention() && projection_unsupported_reason(config_, options_).empty()) {
    plan.projection = plan_projection(projection_shape(config_), options_.hopper_projection,
                                      attention_shape_.multiprocessors, plan.tokens);
  }
  plan_gemv(plan, shape);
  if (weights_->has_codes()) plan_coded(plan);
  if (options_.cublas && !config_.starts_at_attention() && !config_.quant) {
    const bool typed_bias = weights_->qkv_bias_typed.size() > 0;
    if (!plan.qkv_gemv && (!config_.has_bias || typed_bias)) {
      plan.qkv_gemm = plan_product(qkv_shape(plan.tokens), config_.has_bias);
    }
    if (!plan.out_gemv && config_.entry_point == EntryPoint::kForward) {
      plan.out_gemm = plan_product(out_shape(plan.tokens), false);
    }
  }
  Arena counter;
  buffers(plan, LayerTensors{}, counter);
  plan.workspace_bytes = counter.used();
  return plan;
}

void AttentionLayer::plan_gemv(LayerPlan& plan, const BatchShape& shape) const {
#ifdef ATTN_FAULTY
  return;  // bugs are planted in the kernels that it stands in for
#endif
  const bool few = plan.tokens > 0 && plan.tokens <= kMostGemvRows;
  if (options_.gemv == GemvUse::kNever || !few || config_.starts_at_attention() || config_.quant)
    return;
  if (!hopper_device_refusal().empty()) return;  // clusters
  const Type type = type_of(config_.dtype);
  plan.qkv_gemv = !plan.projection.taken && options_.fused_head_pass &&
                  projection_refusal(projection_shape(config_)).empty();
  plan.out_gemv = config_.entry_point == EntryPoint::kForward &&
                  gemv_refusal(type, config_.attn_width()).empty();
  double keys = 0.0;
  for (std::size_t b = 0; b < shape.rows.size(); ++b) {
    keys += static_cast<double>(shape.rows[b] + shape.cached[b]);
  }
  const auto key_bytes = static_cast<double>(config_.num_key_value_heads *
                                             (config_.head_dim + config_.head_dim_v) * 2);
  plan.out_ahead = options_.gemv == GemvUse::kAhead ||
                   (options_.gemv == GemvUse::kChosen && keys * key_bytes <= kMostBytesBesideAhead);
}

void AttentionLayer::plan_coded(LayerPlan& plan) const {
  plan.zeroed_bytes += kCodedCounters * sizeof(unsigned);
  CodedProductOptions options{options_.cublas,        options_.fp8,
                              options_.coded_tile,    attention_shape_.multiprocessors,
                              options_.coded_streams, options_.coded_clusters};
  const auto add = [&](const CodedWeight& weight, const Fp8Weight* plain, const InputFormat& format,
                       const GemmArguments& shape) {
    CodedProductPlan product = plan_coded_product(weight, plain, format, shape, options);
    plan.coded_space.include(coded_space(product, weight, format, shape));
    return product;
  };
  const GemmArguments whole = qkv_shape(plan.tokens);
  for (const CodedProduct& coded : weights_->coded) {
    plan.coded.push_back(
        add(coded.weight, coded.plain.get(), coded.input.format, rows_of(whole, coded.input)));
  }
  if (weights_->o_coded == nullptr) return;
  if (slices_of_devices(config_).size() > 1) options.streams = CodedStreams::kNever;
  plan.out_coded =
      add(*weights_->o_coded, weights_->o_plain.get(), weights_->o_format, out_shape(plan.tokens));
}

/// The part of a product whose weights are a group of the matrix's rows.
GemmArguments AttentionLayer::rows_of(const GemmArguments& whole, const InputGroup& group) {
  GemmArguments part = whole;
  if (whole.bias != nullptr) part.bias = whole.bias + group.first_row;
  if (whole.typed_bias != nullptr) {
    part.typed_bias =
        static_cast<const std::byte*>(whole.typed_bias) + group.first_row * size_of(whole.out_type);
  }
  if (whole.y != nullptr) {
    part.y = static_cast<std::byte*>(whole.y) + group.first_row * size_of(whole.out_type);
  }
  part.n = group.rows;
  part.y_stride = whole.n;
  return part;
}

GemmArguments AttentionLayer::qkv_shape(std::int64_t tokens) const {
  GemmArguments a;
  a.w = weights_->qkv.data();
  a.bias = config_.has_bias ? floats(weights_->qkv_bias) : nullptr;
  a.typed_bias = weights_->qkv_bias_typed.data();  // null where there is none
  a.m = tokens;
  a.n = qkv_width();
  a.k = config_.hidden_size;
  a.type = config_.quant ? Type::kFloat32 : type_of(config_.dtype);
  a.out_type = type_of(config_.dtype);
  if (config_.clip_activations) a.clip = round_to_type(*config_.clip_activations, config_.dtype);
  return a;
}

GemmArguments AttentionLayer::out_shape(std::int64_t tokens) const {
  GemmArguments a;
  a.w = weights_->o.data();
  a.m = tokens;
  a.n = config_.hidden_size;
  a.k = config_.attn_width();
  a.type = config_.quant ? Type::kFloat32 : type_of(config_.dtype);
  a.out_type = type_of(config_.dtype);
  return a;
}

/// Each group of q, k and v rows with its own input. The codes of one input serve the next group
/// only if they were made alike, and then they are one group.
void AttentionLayer::project_quantised(const LayerPlan& plan, const GemmArguments& whole,
                                       const Buffers& b, StreamHandle stream) const {
  const Range all{0, whole.k};
  for (std::size_t i = 0; i < weights_->coded.size(); ++i) {
    const CodedProduct& coded = weights_->coded[i];
    run_coded_product(plan.coded[i], coded.weight, coded.input.format, rows_of(whole, coded.input),
                      {all}, b.coded, stream);
  }
  for (const InputGroup& group : weights_->groups) {
    GemmArguments product = rows_of(whole, group);
    quantise_columns(group.format, whole, all, b.input_values, stream);
    product.x = b.input_values;
    product.w = static_cast<const float*>(whole.w) + group.first_row * whole.k;
    gemm(product, stream);
  }
}

/// Devices of a tensor_parallel layer quantise their own slices of the input, each with its own
/// scales; the sum of their products is one product.
void AttentionLayer::output_quantised(const LayerPlan& plan, GemmArguments product,
                                      const Buffers& b, StreamHandle stream) const {
  const std::vector<Range> slices = slices_of_devices(config_);
  if (weights_->o_coded != nullptr) {
    return run_coded_product(plan.out_coded, *weights_->o_coded, weights_->o_format, product,
                             slices, b.coded, stream);
  }
  for (const Range& slice : slices) {
    quantise_columns(weights_->o_format, product, slice, b.input_values, stream);
  }
  product.x = b.input_values;
  gemm(product, stream);
}

void AttentionLayer::project(const LayerPlan& plan, const LayerTensors& t, const Buffers& b,
                             StreamHandle stream) const {
  GemmArguments projection = qkv_shape(b.batch.tokens);
  projection.x = t.x;
  projection.y = b.qkv;
  if (config_.quant) return project_quantised(plan, projection, b, stream);
  if (plan.qkv_gemv) return gemv(projection, false, stream);  // when timed by itself
  multiply(projection, plan.qkv_gemm.get(), weights_->qkv_bias_typed.data(), b.gemm_workspace,
           stream);
}

void AttentionLayer::run_projection(const LayerPlan& plan, const LayerTensors& t, void* workspace,
                                    StreamHandle stream) const {
  if (plan.tokens == 0 || config_.starts_at_attention()) return;
  Arena arena(workspace, plan.workspace_bytes);
  project(plan, t, buffers(plan, t, arena), stream);
}

/// All three steps of the pass over q, k and v, which lie in b.qkv.
HeadPassArguments AttentionLayer::heads_of(const LayerTensors& t, const Buffers& b) const {
  const bool forward = config_.entry_point == EntryPoint::kForward;
  HeadPassArguments a;
  a.type = type_of(config_.dtype);
  a.num_heads = forward ? config_.num_attention_heads : 0;
  a.num_kv_heads = config_.num_key_value_heads;
  a.head_dim = config_.head_dim;
  const auto bytes = static_cast<std::int64_t>(element_size(config_.dtype));
  const std::int64_t q_width = forward ? config_.q_width() : 0;
  if (const auto* const qkv = static_cast<const std::byte*>(b.qkv); qkv != nullptr) {
    a.q = forward ? qkv : nullptr;
    a.k = qkv + q_width * bytes;
    a.v = qkv + (q_width + config_.k_width()) * bytes;
  }
  a.q_row_stride = a.k_row_stride = a.v_row_stride = qkv_width();
  a.q_gamma = floats(weights_->q_gamma);
  a.k_gamma = floats(weights_->k_gamma);
  a.eps = static_cast<float>(config_.rms_norm_eps);
  a.q_normed = b.q_norm;
  a.k_normed = b.k_norm;
  a.freqs_cis = t.freqs_cis;
  a.rotary_dim = config_.rotary_dim();
  a.interleaved = config_.rope.interleaved;
  a.rotate_last = config_.rope.rotary_side == RotarySide::kLast;
  a.q_roped = b.q_rope;
  a.k_roped = b.k_rope;
  a.cache = t.cache;
  a.batch = b.batch;
  a.padding_zeros = b.attn_out;  // attention leaves them, and their product is zero again
  a.norm = config_.use_qk_norm;
  a.rope = a.store = true;
  return a;
}

void AttentionLayer::project_and_store(const LayerPlan& plan, const LayerTensors& t,
                                       const Buffers& b, StreamHandle stream) const {
  const HeadPassArguments a = heads_of(t, b);
  if (plan.projection.taken || plan.qkv_gemv) {
    GemmArguments product = qkv_shape(b.batch.tokens);
    product.x = t.x;
    product.y = b.qkv;
    if (plan.qkv_gemv) return gemv_heads(product, a, stream);
    return projection_hopper(product, a, plan.projection, stream);
  }
  project(plan, t, b, stream);
  if (options_.fused_head_pass) {
    ATTN_IF_FAULT(launch_on_another_stream, host_fault_state().reached = 1;
                  return launch_beside(stream, [&](StreamHandle s) { head_pass(a, s); }));
    return head_pass(a, stream);
  }
  HeadPassArguments step = a;
  step.norm = step.rope = step.store = false;
  step.v = nullptr;
  if (config_.use_qk_norm) {
    step.norm = true;
    head_pass(step, stream);
    step.norm = false;
    step.q = b.q_norm;
    step.k = b.k_norm;
    step.q_row_stride = config_.q_width();
    step.k_row_stride = config_.k_width();
  }
  step.rope = true;
  head_pass(step, stream);
  step.rope = false;
  step.store = true;
  step.q = nullptr;
  step.k = b.k_rope;
  step.k_row_stride = config_.k_width();
  step.v = a.v;
  head_pass(step, stream);
}

void AttentionLayer::attend(const LayerPlan& plan, const LayerTensors& t, const Buffers& b,
                            StreamHandle stream) const {
  AttentionArguments a;
  a.type = type_of(config_.dtype);
  a.q = config_.starts_at_attention() ? t.q : b.q_rope;
  a.out = b.attn_out;
  a.lse = b.lse;
  a.cache = t.cache;
  a.batch = b.batch;
  a.num_heads = config_.num_attention_heads;
  a.num_kv_heads = config_.num_key_value_heads;
  a.head_dim = config_.head_dim;
  a.head_dim_v = config_.head_dim_v;
  a.scale = static_cast<float>(config_.softmax_scale());
  const double head_dim = static_cast<double>(config_.head_dim);
  if (ATTN_FAULT(scale_ignored, config_.scale.has_value())) {
    a.scale = static_cast<float>(1.0 / std::sqrt(head_dim));
  }
  if (ATTN_FAULT(scale_magnitude, a.scale < 0.0f)) a.scale = -a.scale;
  if (ATTN_FAULT(scale_of_padded_head_dim, !config_.scale && config_.head_dim % 8 != 0)) {
    a.scale = static_cast<float>(1.0 / std::sqrt(std::ceil(head_dim / 8.0) * 8.0));
  }
  a.softcap = static_cast<float>(config_.logit_softcap.value_or(0.0));
  a.mask = mask_kind(config_.mask.variant);
  a.span = config_.mask.variant == MaskVariant::kChunkedCausal
               ? config_.mask.chunk_size.value_or(0)
               : config_.mask.window_size.value_or(0);
  a.top_left = config_.mask.align == MaskAlign::kTopLeft;
  a.mask_tensor = t.mask;
  a.mask_stride = t.mask_stride;
  a.sinks = floats(weights_->sinks);
  a.old_keys_ready = plan.qkv_gemv;
#ifdef ATTN_FAULTY
  a.call = count_call();
#endif
  if (plan.hopper.taken) {
    attention_hopper(a, plan.hopper, b.counters, b.images, stream);
  } else if (uses_tensor_cores(config_, options_)) {
    attention_tensor_core(a, plan.attention, b.partials, b.counters, b.mail, stream);
  } else {
    attention_plain(a, stream);
  }
}

#ifdef ATTN_FAULTY
/// What a bug that keeps something from the first call gives to a later one.
LayerTensors with_kept(const LayerPlan& plan, LayerTensors t, StreamHandle stream) {
  KeptArrays& kept = KeptArrays::instance();
  ATTN_IF_FAULT(plan_lengths_kept,
                t.cache_lengths = kept.numbers(0, t.cache_lengths, plan.batch, stream));
  ATTN_IF_FAULT(graph_rows_kept,
                t.row_offsets = kept.numbers(1, t.row_offsets, plan.batch + 1, stream));
  ATTN_IF_FAULT(plan_pages_kept, t.cache.page_table = kept.pages(t.cache.page_table, plan.batch,
                                                                 t.cache.table_stride, stream));
  const auto keep_scales = [&] {
    if (t.cache.scales != CacheScales::kTensor) return;
    t.cache.k_scale = const_cast<float*>(kept.scales(2, t.cache.k_scale, 1, stream));
    t.cache.v_scale = const_cast<float*>(kept.scales(3, t.cache.v_scale, 1, stream));
  };
  ATTN_IF_FAULT(cache_scale_kept, keep_scales());
  return t;
}
#endif

void AttentionLayer::run(const LayerPlan& plan, const LayerTensors& given, void* workspace,
                         StreamHandle stream) const {
  if (plan.tokens == 0) return;
#ifdef ATTN_FAULTY
  if (ATTN_FAULT(allocation_in_run)) allocate_something();
  if (ATTN_FAULT(wait_in_run)) wait_for(stream);
  const LayerTensors t = with_kept(plan, given, stream);
#else
  const LayerTensors& t = given;
#endif
  Arena arena(workspace, plan.workspace_bytes);
  const Buffers b = buffers(plan, t, arena);
  if (!config_.starts_at_attention()) project_and_store(plan, t, b, stream);
  if (config_.entry_point == EntryPoint::kMaterializeKvFromHidden) return;
  attend(plan, t, b, stream);
  if (config_.starts_at_attention()) return;
  GemmArguments output = out_shape(plan.tokens);
  output.x = b.attn_out;
  output.y = t.out;
  if (config_.quant) return output_quantised(plan, output, b, stream);
  if (plan.out_gemv) return gemv(output, plan.out_ahead, stream);
  multiply(output, plan.out_gemm.get(), nullptr, b.gemm_workspace, stream);
}

}  // namespace attn::gpu
