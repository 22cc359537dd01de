#include "reference/core/case.h"
#include "reference/core/quant_internal.h"

namespace attn {
namespace {

using Types = std::vector<ElementType>;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Collects the tensors of one projection, "NAME.suffix".
struct Specs {
  std::vector<TensorSpec>& list;
  std::string projection;
  bool optional;

  void add(const char* suffix, Shape shape, ElementType type) const {
    list.push_back({projection + "." + suffix, std::move(shape), {type}, optional});
  }
};

void add_gptq(const Specs& specs, const Projection& p, const QuantConfig& quant) {
  const std::int64_t groups = quant.group_size > 0 ? p.in / quant.group_size : 1;
  // A last word that the codes do not fill is padded.
  specs.add("qweight", {ceil_div(p.in * quant.bits, 32), p.out}, ElementType::kInt32);
  specs.add("scales", {groups, p.out}, ElementType::kFloat16);
  specs.add("qzeros", {groups, ceil_div(p.out * quant.bits, 32)}, ElementType::kInt32);
  specs.add("g_idx", {p.in}, ElementType::kInt32);
}

/// q, k and v run as one projection: the static scales of each count for all three, also where q
/// itself is not read.
Specs shared_scales(const Specs& specs, const Projection& p) {
  return {specs.list, specs.projection, specs.optional && p.name == "o_proj"};
}

void add_fp8(const Specs& specs, const Projection& p, const QuantConfig& quant) {
  Shape scale;  // per tensor: a scalar
  if (quant.weight_granularity == WeightGranularity::kRowwise) scale = {p.out, 1};
  if (quant.weight_granularity == WeightGranularity::kBlock) {
    scale = {ceil_div(p.out, quant.block_n), ceil_div(p.in, quant.block_k)};
  }
  specs.add("weight", {p.out, p.in}, ElementType::kFloat8E4M3FN);
  const bool is_static = quant.activation == ActivationQuant::kStatic;
  const Specs scales = is_static ? shared_scales(specs, p) : specs;
  scales.add("weight_scale", scale, ElementType::kFloat32);
  if (is_static) scales.add("input_scale", {}, ElementType::kFloat32);
}

void add_nvfp4(const Specs& specs, const Projection& p, const QuantConfig& quant) {
  specs.add("weight", {p.out, p.in / 2}, ElementType::kUInt8);
  specs.add("weight_scale", {p.out, p.in / scale_block(p.encoding)}, ElementType::kFloat8E4M3FN);
  specs.add("weight_scale_2", {}, ElementType::kFloat32);
  // Checkpoints carry it always; only quantised activations read it.
  const bool read = quant.activation == ActivationQuant::kBlock;
  const bool optional = read ? shared_scales(specs, p).optional : true;
  Specs{specs.list, specs.projection, optional}.add("input_scale", {}, ElementType::kFloat32);
}

void add_mx(const Specs& specs, const Projection& p) {
  if (p.encoding == QuantEncoding::kMxfp4) {
    specs.add("weight", {p.out, p.in / 2}, ElementType::kUInt8);
  } else {
    specs.add("weight", {p.out, p.in}, ElementType::kFloat8E4M3FN);
  }
  specs.add("weight_scale", {p.out, p.in / scale_block(p.encoding)}, ElementType::kFloat8E8M0FNU);
}

void add_projection(std::vector<TensorSpec>& list, const Projection& p,
                    const AttentionConfig& config, bool optional) {
  const Specs specs{list, std::string(p.name), optional};
  switch (p.encoding) {
    case QuantEncoding::kNone:
      return specs.add("weight", {p.out, p.in}, config.dtype);
    case QuantEncoding::kFloat8E4M3FN:
      return add_fp8(specs, p, *config.quant);
    case QuantEncoding::kNvfp4:
      return add_nvfp4(specs, p, *config.quant);
    case QuantEncoding::kMxfp4:
    case QuantEncoding::kMxfp8:
      return add_mx(specs, p);
    case QuantEncoding::kGptq:
      return add_gptq(specs, p, *config.quant);
    default: {
      const GgufBlock block = gguf_block(p.encoding);
      return specs.add("weight", {p.out, p.in / block.elements * block.bytes}, ElementType::kUInt8);
    }
  }
}

/// The weights of the whole layer.
void add_layer(std::vector<TensorSpec>& list, const AttentionConfig& config, const Types& types) {
  // materialize_kv_from_hidden reads neither q nor the output projection; a file may hold them.
  const bool cache_only = config.entry_point == EntryPoint::kMaterializeKvFromHidden;
  const auto is_unread = [&](std::string_view projection) {
    return cache_only && (projection == "q_proj" || projection == "o_proj");
  };
  if (config.stacked_qkv) {
    const std::int64_t rows = config.q_width() + config.k_width() + config.v_width();
    add_projection(list, {"qkv_proj", rows, config.hidden_size}, config, false);
  }
  for (const Projection& p : projections_of(config)) {
    if (config.stacked_qkv && p.name != "o_proj") continue;
    add_projection(list, p, config, is_unread(p.name));
  }
  for (const Projection& p : projections_of(config)) {
    if (!config.has_bias || p.name == "o_proj") continue;
    list.push_back({std::string(p.name) + ".bias", {p.out}, types, is_unread(p.name)});
  }
  if (config.use_qk_norm) {
    list.push_back({"q_norm.weight", {config.head_dim}, types, cache_only});
    list.push_back({"k_norm.weight", {config.head_dim}, types});
  }
}

}  // namespace

std::vector<TensorSpec> expected_weights(const AttentionConfig& config) {
  // Vectors (biases, norm weights, sinks) are kept in float32 by some checkpoints.
  Types types{config.dtype};
  if (config.dtype != ElementType::kFloat32) types.push_back(ElementType::kFloat32);
  std::vector<TensorSpec> list;
  if (!config.starts_at_attention()) add_layer(list, config, types);
  list.push_back({"sinks", {config.num_attention_heads}, types, true});
  return list;
}

}  // namespace attn
