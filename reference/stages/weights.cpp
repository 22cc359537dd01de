#include "reference/stages/weights.h"

#include <algorithm>
#include <string>
#include <utility>

#include "reference/core/quant_internal.h"
#include "reference/formats/block_scale.h"
#include "reference/formats/dense.h"
#include "reference/formats/fp8.h"
#include "reference/formats/gguf.h"
#include "reference/formats/gptq.h"
#include "reference/formats/mxfp.h"
#include "reference/formats/nvfp4.h"
#include "reference/stages/clip.h"

namespace attn::reference {
namespace {

/// Where an unquantised weight lies: rows first .. first+rows-1 of tensor `name`.
struct WeightRows {
  std::string name;
  std::int64_t first;
  std::int64_t rows;
};

WeightRows weight_rows(const AttentionConfig& config, Projection p) {
  const std::int64_t q = config.q_width();
  const std::int64_t k = config.k_width();
  const std::int64_t v = config.v_width();
  if (p == Projection::kO) {
    return {"o_proj.weight", 0, config.hidden_size};
  }
  const std::int64_t rows = p == Projection::kQ ? q : p == Projection::kK ? k : v;
  if (!config.stacked_qkv) {
    return {name_of(p) + ".weight", 0, rows};
  }
  const std::int64_t first = p == Projection::kQ ? 0 : p == Projection::kK ? q : q + k;
  return {"qkv_proj.weight", first, rows};
}

/// w, clipped when it is of q, k or v and the config says so. `type` is what it is stored in.
Matrix clip_weight(const Case& c, Projection p, ElementType type, Matrix w, Rounding r) {
  const auto bound = c.config.weight_clip();
  return bound && p != Projection::kO ? clip(w, r.to(type, *bound)) : std::move(w);
}

ScaleBlock fp8_scale_block(const QuantConfig& quant, const Matrix& codes) {
  switch (quant.weight_granularity) {
    case WeightGranularity::kTensor:
      return {codes.rows(), codes.cols()};
    case WeightGranularity::kRowwise:
      return {1, codes.cols()};
    case WeightGranularity::kBlock:
      break;
  }
  return {quant.block_n, quant.block_k};
}

ScaledWeight fp8_weight(const Case& c, Projection p, Rounding r) {
  const Tensor& weight = projection_tensor(c, p, "weight");
  Matrix codes =
      clip_weight(c, p, weight.type(), decode_matrix(weight, weight.dim(0), weight.dim(1)), r);
  if (c.config.quant->activation == ActivationQuant::kStatic && p != Projection::kO) {
    const double merged = shared_scalar(c, p, "weight_scale");
    codes = requantise_fp8(codes, scalar_weight(c, p, "weight_scale"), merged, r);
    return {codes, Matrix::Constant(codes.rows(), codes.cols(), merged)};
  }
  Matrix scales = spread_scales(projection_tensor(c, p, "weight_scale"), codes.rows(), codes.cols(),
                                fp8_scale_block(*c.config.quant, codes));
  return {std::move(codes), std::move(scales)};
}

ScaledWeight nvfp4_weight(const Case& c, Projection p) {
  Matrix codes =
      decode_nvfp4(projection_tensor(c, p, "weight"), projection_tensor(c, p, "weight_scale"));
  Matrix scales =
      Matrix::Constant(codes.rows(), codes.cols(), scalar_weight(c, p, "weight_scale_2"));
  return {std::move(codes), std::move(scales)};
}

Matrix gptq_weight(const Case& c, Projection p, Rounding r) {
  const GptqWeight weight{projection_tensor(c, p, "qweight"), projection_tensor(c, p, "scales"),
                          projection_tensor(c, p, "g_idx"), c.config.quant->bits};
  return decode_gptq(weight, c.config.dtype, r);
}

Matrix dense_weight(const Case& c, Projection p, Rounding r) {
  const WeightRows at = weight_rows(c.config, p);
  const Tensor& weight = c.weights.at(at.name);
  return clip_weight(c, p, weight.type(), decode_dense(weight, at.first, at.rows), r);
}

}  // namespace

std::string name_of(Projection p) {
  switch (p) {
    case Projection::kQ:
      return "q_proj";
    case Projection::kK:
      return "k_proj";
    case Projection::kV:
      return "v_proj";
    case Projection::kO:
      return "o_proj";
  }
  return {};
}

QuantEncoding encoding_of(const AttentionConfig& config, Projection p) {
  return projections_of(config).at(static_cast<std::size_t>(p)).encoding;
}

ScaledWeight scaled_weight(const Case& c, Projection p, Rounding r) {
  return encoding_of(c.config, p) == QuantEncoding::kNvfp4 ? nvfp4_weight(c, p)
                                                           : fp8_weight(c, p, r);
}

Matrix projection_weight(const Case& c, Projection p, Rounding r) {
  const QuantEncoding encoding = encoding_of(c.config, p);
  switch (encoding) {
    case QuantEncoding::kNone:
      return dense_weight(c, p, r);
    case QuantEncoding::kFloat8E4M3FN:
    case QuantEncoding::kNvfp4: {
      const ScaledWeight w = scaled_weight(c, p, r);
      return r.to(ElementType::kFloat32, w.code.cwiseProduct(w.scale));
    }
    case QuantEncoding::kMxfp4:
      return decode_mxfp4(projection_tensor(c, p, "weight"),
                          projection_tensor(c, p, "weight_scale"));
    case QuantEncoding::kMxfp8:
      return decode_mxfp8(projection_tensor(c, p, "weight"),
                          projection_tensor(c, p, "weight_scale"));
    case QuantEncoding::kGptq:
      return gptq_weight(c, p, r);
    default:
      return decode_gguf(encoding, projection_tensor(c, p, "weight"));
  }
}

Matrix projection_bias(const Case& c, Projection p) {
  const Tensor& bias = projection_tensor(c, p, "bias");
  return decode_matrix(bias, 1, bias.size());
}

const Tensor& projection_tensor(const Case& c, Projection p, const std::string& suffix) {
  return c.weights.at(name_of(p) + "." + suffix);
}

double scalar_weight(const Case& c, Projection p, const std::string& suffix) {
  return projection_tensor(c, p, suffix).value(0);
}

double shared_scalar(const Case& c, Projection p, const std::string& suffix) {
  if (p == Projection::kO) {
    return scalar_weight(c, p, suffix);
  }
  return std::max({scalar_weight(c, Projection::kQ, suffix),
                   scalar_weight(c, Projection::kK, suffix),
                   scalar_weight(c, Projection::kV, suffix)});
}

}  // namespace attn::reference
