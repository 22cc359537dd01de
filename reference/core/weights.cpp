#include <array>
#include <initializer_list>

#include "reference/core/case.h"

namespace attn {
namespace {

using Types = std::vector<ElementType>;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// One projection as the table of weights sees it: y = x * W^T with W [out, in].
struct Projection {
  std::string name;
  std::int64_t out;
  std::int64_t in;
  QuantEncoding encoding;
  bool optional;
};

/// GGUF block: `elements` consecutive columns in `bytes` bytes.
struct GgufBlock {
  std::int64_t elements;
  std::int64_t bytes;
};

GgufBlock gguf_block(QuantEncoding encoding) {
  switch (encoding) {
    case QuantEncoding::kQ4_0:
      return {32, 18};
    case QuantEncoding::kQ8_0:
      return {32, 34};
    case QuantEncoding::kQ4_K:
      return {256, 144};
    case QuantEncoding::kQ5_K:
      return {256, 176};
    case QuantEncoding::kQ6_K:
      return {256, 210};
    default:
      return {1, 1};
  }
}

void add_gptq(const Projection& p, const QuantConfig& quant, std::vector<TensorSpec>& specs) {
  const std::int64_t groups = quant.group_size > 0 ? ceil_div(p.in, quant.group_size) : 1;
  const Types words{ElementType::kInt32};
  specs.push_back(
      {p.name + ".qweight", {ceil_div(p.in * quant.bits, 32), p.out}, words, p.optional});
  specs.push_back({p.name + ".scales", {groups, p.out}, {ElementType::kFloat16}, p.optional});
  specs.push_back(
      {p.name + ".qzeros", {groups, ceil_div(p.out * quant.bits, 32)}, words, p.optional});
  specs.push_back({p.name + ".g_idx", {p.in}, words, p.optional});
}

void add_fp8(const Projection& p, const QuantConfig& quant, std::vector<TensorSpec>& specs) {
  specs.push_back({p.name + ".weight", {p.out, p.in}, {ElementType::kFloat8E4M3FN}, p.optional});
  Shape scale;  // per tensor: a scalar
  if (quant.weight_granularity == WeightGranularity::kRowwise) scale = {p.out, 1};
  if (quant.weight_granularity == WeightGranularity::kBlock) {
    scale = {ceil_div(p.out, quant.block_n), ceil_div(p.in, quant.block_k)};
  }
  specs.push_back({p.name + ".weight_scale", scale, {ElementType::kFloat32}, p.optional});
  if (quant.activation == ActivationQuant::kStatic) {
    specs.push_back({p.name + ".input_scale", {}, {ElementType::kFloat32}, p.optional});
  }
}

void add_nvfp4(const Projection& p, const QuantConfig& quant, std::vector<TensorSpec>& specs) {
  const Types scalar{ElementType::kFloat32};
  specs.push_back({p.name + ".weight", {p.out, p.in / 2}, {ElementType::kUInt8}, p.optional});
  specs.push_back(
      {p.name + ".weight_scale", {p.out, p.in / 16}, {ElementType::kFloat8E4M3FN}, p.optional});
  specs.push_back({p.name + ".weight_scale_2", {}, scalar, p.optional});
  const bool reads_input_scale = quant.activation == ActivationQuant::kBlock;
  specs.push_back({p.name + ".input_scale", {}, scalar, p.optional || !reads_input_scale});
}

void add_mx(const Projection& p, std::vector<TensorSpec>& specs) {
  if (p.encoding == QuantEncoding::kMxfp4) {
    specs.push_back({p.name + ".weight", {p.out, p.in / 2}, {ElementType::kUInt8}, p.optional});
  } else {
    specs.push_back({p.name + ".weight", {p.out, p.in}, {ElementType::kFloat8E4M3FN}, p.optional});
  }
  specs.push_back(
      {p.name + ".weight_scale", {p.out, p.in / 32}, {ElementType::kFloat8E8M0FNU}, p.optional});
}

void add_projection(const Projection& p, const AttentionConfig& config,
                    std::vector<TensorSpec>& specs) {
  switch (p.encoding) {
    case QuantEncoding::kNone:
      specs.push_back({p.name + ".weight", {p.out, p.in}, {config.dtype}, p.optional});
      return;
    case QuantEncoding::kFloat8E4M3FN:
      return add_fp8(p, *config.quant, specs);
    case QuantEncoding::kNvfp4:
      return add_nvfp4(p, *config.quant, specs);
    case QuantEncoding::kMxfp4:
    case QuantEncoding::kMxfp8:
      return add_mx(p, specs);
    case QuantEncoding::kGptq:
      return add_gptq(p, *config.quant, specs);
    default: {
      const GgufBlock block = gguf_block(p.encoding);
      specs.push_back({p.name + ".weight",
                       {p.out, p.in / block.elements * block.bytes},
                       {ElementType::kUInt8},
                       p.optional});
    }
  }
}

/// The type that vectors (biases, norm weights, sinks) are made in, and what a file may hold.
Types vector_types(ElementType dtype) {
  if (dtype == ElementType::kFloat32) return {dtype};
  return {dtype, ElementType::kFloat32};
}

}  // namespace

std::vector<TensorSpec> expected_weights(const AttentionConfig& config) {
  std::vector<TensorSpec> specs;
  const Types types = vector_types(config.dtype);
  const bool layer = !config.starts_at_attention();
  // materialize_kv_from_hidden never reads q or the output projection; a file may still hold them.
  const bool cache_only = config.entry_point == EntryPoint::kMaterializeKvFromHidden;
  if (layer) {
    const QuantConfig quant = config.quant.value_or(QuantConfig{});
    const std::int64_t hidden = config.hidden_size;
    if (config.stacked_qkv) {
      const std::int64_t rows = config.q_width() + config.k_width() + config.v_width();
      add_projection({"qkv_proj", rows, hidden, QuantEncoding::kNone, false}, config, specs);
    } else {
      add_projection({"q_proj", config.q_width(), hidden, quant.q_proj, cache_only}, config, specs);
      add_projection({"k_proj", config.k_width(), hidden, quant.k_proj, false}, config, specs);
      add_projection({"v_proj", config.v_width(), hidden, quant.v_proj, false}, config, specs);
    }
    add_projection({"o_proj", hidden, config.attn_width(), quant.o_proj, cache_only}, config,
                   specs);
    if (config.has_bias) {
      specs.push_back({"q_proj.bias", {config.q_width()}, types, cache_only});
      specs.push_back({"k_proj.bias", {config.k_width()}, types});
      specs.push_back({"v_proj.bias", {config.v_width()}, types});
    }
    if (config.use_qk_norm) {
      specs.push_back({"q_norm.weight", {config.head_dim}, types, cache_only});
      specs.push_back({"k_norm.weight", {config.head_dim}, types});
    }
  }
  specs.push_back({"sinks", {config.num_attention_heads}, types, true});
  return specs;
}

}  // namespace attn
