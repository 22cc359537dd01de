#include "reference/stages/product.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "reference/core/quant_internal.h"
#include "reference/formats/gguf.h"
#include "reference/stages/projection_input.h"

namespace attn::reference {
namespace {

constexpr ElementType kF32 = ElementType::kFloat32;

/// One scale for all of x and one for all of the weight: y = sum * (s_x * s_w).
Matrix multiply_static(const Case& c, Projection p, const ProjectionInput& x, Rounding r) {
  const double s_x = shared_scalar(c, p, "input_scale");
  const double s_w = shared_scalar(c, p, "weight_scale");
  return x.code * scaled_weight(c, p, r).code.transpose() * r.to(kF32, s_x * s_w);
}

/// The block scales multiply the codes within the sum, the scales of the whole tensors after it.
Matrix multiply_nvfp4(const Case& c, Projection p, const ProjectionInput& x, Rounding r) {
  const double s_x = shared_scalar(c, p, "input_scale");
  const double s_w = scalar_weight(c, p, "weight_scale_2");
  const Matrix block_scales = x.scale / s_x;  // exact: x.scale is the block's e4m3 value times s_x
  return x.code.cwiseProduct(block_scales) * scaled_weight(c, p, r).code.transpose() *
         r.to(kF32, s_x * s_w);
}

/// Columns first .. first+count-1 over which both the input and the weight keep their scale.
std::vector<Range> common_blocks(const Case& c, Projection p, std::int64_t columns) {
  std::vector<std::int64_t> cuts{columns};
  for (const Range& block : activation_blocks(c.config, p, columns)) {
    cuts.push_back(block.first);
  }
  if (c.config.quant->weight_granularity == WeightGranularity::kBlock) {
    for (std::int64_t k = 0; k < columns; k += c.config.quant->block_k) {
      cuts.push_back(k);
    }
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  std::vector<Range> blocks;
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    blocks.push_back({cuts[i], cuts[i + 1] - cuts[i]});
  }
  return blocks;
}

/// y = sum over blocks of (sum * s_x) * s_w, s_x by row of x and s_w by row of the weight.
Matrix multiply_dynamic(const Case& c, Projection p, const ProjectionInput& x, Rounding r) {
  const ScaledWeight w = scaled_weight(c, p, r);
  Matrix y = Matrix::Zero(x.code.rows(), w.code.rows());
  for (const Range& block : common_blocks(c, p, x.code.cols())) {
    const Eigen::VectorXd s_x = x.scale.col(block.first);
    const Eigen::VectorXd s_w = w.scale.col(block.first);
    const Matrix sum = x.code.middleCols(block.first, block.count) *
                       w.code.middleCols(block.first, block.count).transpose();
    y += r.to(kF32, r.to(kF32, s_x.asDiagonal() * sum) * s_w.asDiagonal());
  }
  return y;
}

/// Whether each block of codes is a block of the weight. Not where a device's slice of o_proj's
/// input starts inside of one.
bool blocks_coincide(const Case& c, Projection p, std::int64_t columns) {
  const std::int64_t size = gguf_block(encoding_of(c.config, p)).elements;
  return std::ranges::all_of(activation_blocks(c.config, p, columns),
                             [&](const Range& block) { return block.first % size == 0; });
}

}  // namespace

Matrix multiply(const Case& c, Projection p, const MatrixView& x, Rounding r) {
  const ProjectionInput input = projection_input(c, p, x, r);
  if (!r.exact() && quantises_input(c.config)) {
    const QuantEncoding encoding = encoding_of(c.config, p);
    switch (encoding) {
      case QuantEncoding::kFloat8E4M3FN:
        return c.config.quant->activation == ActivationQuant::kStatic
                   ? multiply_static(c, p, input, r)
                   : multiply_dynamic(c, p, input, r);
      case QuantEncoding::kNvfp4:
        return multiply_nvfp4(c, p, input, r);
      case QuantEncoding::kMxfp4:
      case QuantEncoding::kMxfp8:
        break;  // powers of two: products of decoded values are exact
      default:
        if (!blocks_coincide(c, p, x.cols())) {
          break;  // no sums of whole numbers under one scale
        }
        return multiply_int8(encoding, projection_tensor(c, p, "weight"), input.code, input.scale);
    }
  }
  return input.value() * projection_weight(c, p, r).transpose();
}

}  // namespace attn::reference
