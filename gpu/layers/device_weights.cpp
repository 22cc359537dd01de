#include "gpu/layers/device_weights.h"

#include <algorithm>
#include <optional>
#include <string>

#include "gpu/faults/fault_switch.h"
#include "gpu/kernels/elementwise.h"
#include "gpu/layers/decode_weights.h"
#include "gpu/layers/types.h"
#include "reference/core/devices.h"

namespace attn::gpu {
namespace {

/// A vector of any float type as float32: exact for the types that a file may hold.
std::vector<float> as_floats(const Tensor& tensor) {
  const std::vector<double> values = tensor.values();
  return {values.begin(), values.end()};
}

Buffer upload(const void* data, std::size_t bytes, const Stream& stream) {
  Buffer buffer(bytes);
  copy_to_device(buffer.data(), data, bytes, stream.get());
  stream.synchronize();  // the host's copy may go
  return buffer;
}

Buffer upload_floats(const std::vector<float>& values, const Stream& stream) {
  return upload(values.data(), values.size() * sizeof(float), stream);
}

bool is_cache_only(const AttentionConfig& config) {
  return config.entry_point == EntryPoint::kMaterializeKvFromHidden;
}

ActivationFormat activation_format(const AttentionConfig& config, QuantEncoding encoding) {
  switch (config.quant->activation) {
    case ActivationQuant::kNone:
      return ActivationFormat::kNone;
    case ActivationQuant::kStatic:
      return ActivationFormat::kFp8Static;
    case ActivationQuant::kToken:
      return ActivationFormat::kFp8;
    case ActivationQuant::kInt8:
      return ActivationFormat::kInt8;
    case ActivationQuant::kBlock:
      break;
  }
  switch (encoding) {
    case QuantEncoding::kNvfp4:
      return ActivationFormat::kNvfp4;
    case QuantEncoding::kMxfp4:
      return ActivationFormat::kMxfp4;
    case QuantEncoding::kMxfp8:
      return ActivationFormat::kMxfp8;
    default:
      return ActivationFormat::kFp8;
  }
}

std::int64_t activation_block(const AttentionConfig& config, ActivationFormat format,
                              QuantEncoding encoding) {
  switch (format) {
    case ActivationFormat::kFp8:
      return config.quant->activation == ActivationQuant::kBlock ? config.quant->block_k : 0;
    case ActivationFormat::kInt8:
      return encoding == QuantEncoding::kQ4_0 || encoding == QuantEncoding::kQ8_0 ? 32 : 256;
    case ActivationFormat::kNvfp4:
      return 16;
    case ActivationFormat::kMxfp4:
    case ActivationFormat::kMxfp8:
      return 32;
    default:
      return 0;
  }
}

InputFormat input_format(const AttentionConfig& config, const LayerWeights& weights,
                         Matrix matrix) {
  const QuantEncoding encoding = encoding_of(config, matrix);
  InputFormat format;
  format.format = activation_format(config, encoding);
  format.block = activation_block(config, format.format, encoding);
  format.scale = static_input_scale(config, weights, matrix);
  return format;
}

}  // namespace

bool keeps_codes(const AttentionConfig& config) {
  if (!config.quant || config.starts_at_attention()) return false;
  const bool forward = !is_cache_only(config);
  for (const Matrix matrix : {Matrix::kQ, Matrix::kK, Matrix::kV, Matrix::kO}) {
    if (!forward && (matrix == Matrix::kQ || matrix == Matrix::kO)) continue;
    if (!has_coded_rows(config, matrix)) return false;
    const QuantEncoding encoding = encoding_of(config, matrix);
    if (activation_block(config, activation_format(config, encoding), encoding) % kCodedStep != 0) {
      return false;
    }
  }
  // Scales of devices' slices start at whole steps.
  if (!forward || config.quant->activation == ActivationQuant::kNone) return true;
  return std::ranges::all_of(device_heads(config), [&](const DeviceHeads& device) {
    return device.q_heads.first * config.head_dim_v % kCodedStep == 0;
  });
}

bool uses_coded_products(const AttentionConfig& config) {
  return keeps_codes(config) && (config.dtype != ElementType::kFloat32 ||
                                 config.quant->activation != ActivationQuant::kNone);
}

DeviceWeights::DeviceWeights(const AttentionConfig& config, const LayerWeights& weights,
                             Fp8Products fp8, const Stream& stream) {
  if (!config.starts_at_attention()) {
    if (!config.quant) {
      load_dense(config, weights, stream);
    } else if (!keeps_codes(config) || !load_coded(config, weights, fp8, stream)) {
      load_quantised(config, weights, stream);
    }
    if (config.has_bias) load_bias(config, weights, stream);
  }
  if (config.use_qk_norm) {
    k_gamma = upload_floats(as_floats(weights.at("k_norm.weight")), stream);
    if (!is_cache_only(config)) {
      q_gamma = upload_floats(as_floats(weights.at("q_norm.weight")), stream);
    }
  }
  if (const auto it = weights.find("sinks"); it != weights.end()) {
    sinks = upload_floats(as_floats(it->second), stream);
  }
}

void DeviceWeights::load_dense(const AttentionConfig& config, const LayerWeights& weights,
                               const Stream& stream) {
  const std::size_t element = element_size(config.dtype);
  const auto row_bytes = static_cast<std::size_t>(config.hidden_size) * element;
  std::vector<std::byte> rows;
  const auto append = [&](const Tensor& tensor, std::size_t first_row) {
    const std::span<const std::byte> bytes = tensor.bytes().subspan(first_row * row_bytes);
    rows.insert(rows.end(), bytes.begin(), bytes.end());
  };
  if (config.stacked_qkv) {
    append(weights.at("qkv_proj.weight"),
           is_cache_only(config) ? static_cast<std::size_t>(config.q_width()) : 0);
    if (ATTN_FAULT(stacked_k_and_v_swapped)) {
      const std::ptrdiff_t part = config.k_width() * static_cast<std::ptrdiff_t>(row_bytes);
      std::swap_ranges(rows.end() - part, rows.end(), rows.end() - 2 * part);
    }
  } else {
    if (!is_cache_only(config)) append(weights.at("q_proj.weight"), 0);
    append(weights.at("k_proj.weight"), 0);
    append(weights.at("v_proj.weight"), 0);
  }
  qkv = upload(rows.data(), rows.size(), stream);
  if (const auto bound = config.weight_clip(); bound && !ATTN_FAULT(clip_qkv_ignored)) {
    clip(qkv.data(), type_of(config.dtype), static_cast<std::int64_t>(rows.size() / element),
         static_cast<float>(*bound), stream.get());
    stream.synchronize();
  }
  if (is_cache_only(config)) return;
  const Tensor& o_proj = weights.at("o_proj.weight");
  o = upload(o_proj.data(), o_proj.bytes().size(), stream);
}

void DeviceWeights::load_quantised(const AttentionConfig& config, const LayerWeights& weights,
                                   const Stream& stream) {
  std::vector<float> rows;
  for (const Matrix matrix : {Matrix::kQ, Matrix::kK, Matrix::kV}) {
    if (is_cache_only(config) && matrix == Matrix::kQ) continue;
    const std::vector<float> part = decode_weight(config, weights, matrix);
    InputGroup group;
    group.first_row = static_cast<std::int64_t>(rows.size()) / config.hidden_size;
    group.rows = static_cast<std::int64_t>(part.size()) / config.hidden_size;
    group.format = input_format(config, weights, matrix);
    rows.insert(rows.end(), part.begin(), part.end());
    if (!groups.empty() && groups.back().format == group.format) {
      groups.back().rows += group.rows;
    } else {
      groups.push_back(group);
    }
  }
  qkv = upload_floats(rows, stream);
  if (is_cache_only(config)) return;
  o = upload_floats(decode_weight(config, weights, Matrix::kO), stream);
  o_format = input_format(config, weights, Matrix::kO);
}

bool DeviceWeights::load_coded(const AttentionConfig& config, const LayerWeights& weights,
                               Fp8Products fp8, const Stream& stream) {
  const auto plain_of = [&](const CodedRows& rows, const InputFormat& format,
                            bool serves) -> std::unique_ptr<const Fp8Weight> {
    const std::optional<PlainFp8> plain = serves ? plain_fp8(rows, format) : std::nullopt;
    return plain ? std::make_unique<const Fp8Weight>(*plain, stream) : nullptr;
  };
  const bool serves_qkv = fp8_library_serves_qkv(config, fp8);
  std::optional<CodedRows> rows;  // of the last product, until another kind follows
  InputGroup input;
  const auto finish = [&] {
    if (rows) {
      coded.push_back(
          {input, CodedWeight(*rows, stream), plain_of(*rows, input.format, serves_qkv)});
    }
    input.first_row += input.rows;
  };
  for (const Matrix matrix : {Matrix::kQ, Matrix::kK, Matrix::kV}) {
    if (is_cache_only(config) && matrix == Matrix::kQ) continue;
    const std::optional<CodedRows> part = coded_rows(config, weights, matrix);
    if (!part) {
      coded.clear();
      return false;
    }
    const InputFormat format = input_format(config, weights, matrix);
    if (rows && rows->like(*part) && input.format == format) {
      rows->append(*part);
      input.rows += part->rows();
      continue;
    }
    finish();
    rows = part;
    input = {input.first_row, part->rows(), format};
  }
  finish();
  if (is_cache_only(config)) return true;
  const std::optional<CodedRows> out = coded_rows(config, weights, Matrix::kO);
  if (!out) {
    coded.clear();
    return false;
  }
  o_coded = std::make_unique<CodedWeight>(*out, stream);
  o_format = input_format(config, weights, Matrix::kO);
  o_plain = plain_of(*out, o_format, fp8_library_serves_o(config, fp8));
  return true;
}

void DeviceWeights::load_bias(const AttentionConfig& config, const LayerWeights& weights,
                              const Stream& stream) {
  std::vector<float> bias;
  for (const char* name : {"q_proj.bias", "k_proj.bias", "v_proj.bias"}) {
    if (is_cache_only(config) && name[0] == 'q') continue;
    std::vector<float> part = as_floats(weights.at(name));
    if (ATTN_FAULT(bias_of_q_only, name[0] != 'q')) std::ranges::fill(part, 0.0f);
    bias.insert(bias.end(), part.begin(), part.end());
  }
  qkv_bias = upload_floats(bias, stream);
  const std::vector<double> values(bias.begin(), bias.end());
  const Tensor typed =
      Tensor::from_values(config.dtype, {static_cast<std::int64_t>(values.size())}, values);
  if (typed.values() == values) {
    qkv_bias_typed = upload(typed.data(), typed.bytes().size(), stream);
  }
}

}  // namespace attn::gpu
