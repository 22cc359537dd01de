#include "reference/layers/qkv_scales.h"

#include <array>
#include <string>
#include <vector>

#include "reference/core/error.h"
#include "reference/core/quant_internal.h"
#include "reference/formats/fp8.h"
#include "reference/layers/shard_axis.h"
#include "reference/stages/clip.h"
#include "reference/stages/weights.h"

namespace attn::reference {
namespace {

constexpr std::array<Projection, 3> kQkv{Projection::kQ, Projection::kK, Projection::kV};

bool is_static_fp8(const AttentionConfig& config) {
  return config.quant && config.quant->q_proj == QuantEncoding::kFloat8E4M3FN &&
         config.quant->activation == ActivationQuant::kStatic;
}

QuantEncoding encoding(const Case& c) { return encoding_of(c.config, Projection::kQ); }

void refuse_gguf(const Case& c, const std::string& name) {
  if (is_gguf(encoding(c))) {
    throw Error(ErrorKind::kUnsupported,
                name +
                    ": gguf weights of q, k and v are multiplied one by one, each in its own "
                    "encoding; use the three tensors",
                name);
  }
}

/// Parts that agree in all but the first axis, one after the other.
Tensor concatenate(const std::vector<Tensor>& parts) {
  Shape shape = parts.front().shape();
  shape[0] = 0;
  for (const Tensor& part : parts) {
    shape[0] += part.dim(0);
  }
  Tensor whole(parts.front().type(), shape);
  std::int64_t row = 0;
  for (const Tensor& part : parts) {
    put(whole, 0, row, part);
    row += part.dim(0);
  }
  return whole;
}

/// The three tensors "q_proj.suffix", "k_proj.suffix", "v_proj.suffix".
std::vector<Tensor> stored(const Case& c, const std::string& suffix) {
  std::vector<Tensor> parts;
  parts.reserve(kQkv.size());
  for (const Projection p : kQkv) {
    parts.push_back(projection_tensor(c, p, suffix));
  }
  return parts;
}

Tensor encode_matrix(const Matrix& values, const Tensor& like) {
  return Tensor::from_values(
      like.type(), like.shape(),
      std::span<const double>(values.data(), static_cast<std::size_t>(values.size())));
}

/// Weight [out, in] of one projection in its own type: clipped, and requantised where asked.
Tensor merged_weight(const Case& c, Projection p, bool requantise, Rounding r) {
  const Tensor& weight = projection_tensor(c, p, "weight");
  Matrix values = decode_matrix(weight, weight.dim(0), weight.dim(1));
  if (const auto bound = c.config.weight_clip()) {
    values = clip(values, r.to(weight.type(), *bound));
  }
  if (requantise) {
    values = requantise_fp8(values, scalar_weight(c, p, "weight_scale"),
                            shared_scalar(c, p, "weight_scale"), r);
  }
  return encode_matrix(values, weight);
}

/// The rows of [rows, N] bytes that hold [rows / size, N] elements of `size` bytes: byte i of
/// element (k, n) at row k * size + i.
Tensor bytes_of_columns(const std::vector<Tensor>& parts) {
  const auto size = static_cast<std::int64_t>(element_size(parts.front().type()));
  const std::int64_t rows = parts.front().dim(0);
  std::int64_t columns = 0;
  for (const Tensor& part : parts) {
    columns += part.dim(1);
  }
  Tensor bytes(ElementType::kUInt8, {rows * size, columns});
  std::int64_t first = 0;
  for (const Tensor& part : parts) {
    for (std::int64_t i = 0; i < part.size(); ++i) {
      const std::int64_t k = i / part.dim(1);
      const std::int64_t n = first + i % part.dim(1);
      for (std::int64_t byte = 0; byte < size; ++byte) {
        bytes.set_code((k * size + byte) * columns + n, part.code(i) >> (8 * byte) & 0xff);
      }
    }
    first += part.dim(1);
  }
  return bytes;
}

}  // namespace

Tensor wqkv(const Case& c, QkvMerge merge, Mode mode) {
  refuse_gguf(c, "wqkv");
  if (c.config.stacked_qkv) {
    return c.weights.at("qkv_proj.weight");
  }
  switch (encoding(c)) {
    case QuantEncoding::kNone:
    case QuantEncoding::kFloat8E4M3FN: {
      const bool requantise = is_static_fp8(c.config) && merge == QkvMerge::kForward;
      std::vector<Tensor> parts;
      parts.reserve(kQkv.size());
      for (const Projection p : kQkv) {
        parts.push_back(merged_weight(c, p, requantise, Rounding(mode)));
      }
      return concatenate(parts);
    }
    case QuantEncoding::kGptq:
      return concatenate(
          {bytes_of_columns(stored(c, "qweight")), bytes_of_columns(stored(c, "scales"))});
    default:
      return concatenate(stored(c, "weight"));
  }
}

std::optional<Tensor> wqkv_bias(const Case& c) {
  refuse_gguf(c, "wqkv_bias");
  if (!c.config.has_bias) {
    return std::nullopt;
  }
  return concatenate(stored(c, "bias"));
}

std::optional<double> qkv_input_scale(const Case& c) {
  const bool has_scale =
      is_static_fp8(c.config) || (encoding(c) == QuantEncoding::kNvfp4 &&
                                  c.config.quant->activation == ActivationQuant::kBlock);
  if (!has_scale) {
    return std::nullopt;
  }
  return shared_scalar(c, Projection::kQ, "input_scale");
}

std::optional<Tensor> qkv_weight_scale(const Case& c, QkvMerge merge) {
  switch (encoding(c)) {
    case QuantEncoding::kFloat8E4M3FN:
      break;
    case QuantEncoding::kNvfp4:
    case QuantEncoding::kMxfp4:
    case QuantEncoding::kMxfp8:
      return concatenate(stored(c, "weight_scale"));
    default:
      return std::nullopt;
  }
  if (c.config.quant->weight_granularity != WeightGranularity::kTensor) {
    return concatenate(stored(c, "weight_scale"));
  }
  if (is_static_fp8(c.config) && merge == QkvMerge::kForward) {
    return Tensor::scalar(ElementType::kFloat32, shared_scalar(c, Projection::kQ, "weight_scale"));
  }
  std::vector<Tensor> rows;
  rows.reserve(kQkv.size());
  for (const Projection p : kQkv) {
    const std::int64_t out = projection_tensor(c, p, "weight").dim(0);
    const std::vector<double> scales(static_cast<std::size_t>(out),
                                     scalar_weight(c, p, "weight_scale"));
    rows.push_back(Tensor::from_values(ElementType::kFloat32, {out, 1}, scales));
  }
  return concatenate(rows);
}

std::optional<double> qkv_weight_scale_2(const Case& c) {
  if (encoding(c) != QuantEncoding::kNvfp4) {
    return std::nullopt;
  }
  return shared_scalar(c, Projection::kQ, "weight_scale_2");
}

}  // namespace attn::reference
