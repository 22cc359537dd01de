#include "reference/stages/projection_input.h"

#include <algorithm>

#include "reference/core/devices.h"
#include "reference/core/quant_internal.h"
#include "reference/formats/fp8.h"
#include "reference/formats/gguf.h"
#include "reference/formats/mxfp.h"
#include "reference/formats/nvfp4.h"

namespace attn::reference {
namespace {

QuantisedBlock quantise(const Case& c, Projection p, const RowView& x, Rounding r) {
  switch (encoding_of(c.config, p)) {
    case QuantEncoding::kFloat8E4M3FN:
      return quantise_fp8(x,
                          c.config.quant->activation == ActivationQuant::kStatic
                              ? shared_scalar(c, p, "input_scale")
                              : fp8_scale(x),
                          r);
    case QuantEncoding::kNvfp4:
      return quantise_nvfp4(x, shared_scalar(c, p, "input_scale"), r);
    case QuantEncoding::kMxfp4:
      return quantise_mx(x, ElementType::kFloat4E2M1FN);
    case QuantEncoding::kMxfp8:
      return quantise_mx(x, ElementType::kFloat8E4M3FN);
    default:
      return quantise_int8(x, r);
  }
}

/// Most columns that may share one scale.
std::int64_t block_width(const AttentionConfig& config, Projection p, std::int64_t columns) {
  switch (config.quant->activation) {
    case ActivationQuant::kBlock:
      return encoding_of(config, p) == QuantEncoding::kFloat8E4M3FN
                 ? config.quant->block_k
                 : scale_block(encoding_of(config, p));
    case ActivationQuant::kInt8:
      return gguf_block(encoding_of(config, p)).elements;
    default:
      return columns;
  }
}

/// The columns that each device holds of the input of p, `columns` wide: o_proj's under
/// tensor_parallel are cut by heads, every other input is whole.
std::vector<Range> device_slices(const AttentionConfig& config, Projection p,
                                 std::int64_t columns) {
  if (p != Projection::kO) {
    return {{0, columns}};
  }
  std::vector<Range> slices;
  for (const DeviceHeads& heads : device_heads(config)) {
    slices.push_back(
        {heads.q_heads.first * config.head_dim_v, heads.q_heads.count * config.head_dim_v});
  }
  return slices;
}

}  // namespace

bool quantises_input(const AttentionConfig& config) {
  return config.quant && config.quant->activation != ActivationQuant::kNone;
}

std::vector<Range> activation_blocks(const AttentionConfig& config, Projection p,
                                     std::int64_t columns) {
  const std::int64_t width = block_width(config, p, columns);
  std::vector<Range> blocks;
  for (const Range& slice : device_slices(config, p, columns)) {
    for (std::int64_t k = 0; k < slice.count; k += width) {
      blocks.push_back({slice.first + k, std::min(width, slice.count - k)});
    }
  }
  return blocks;
}

ProjectionInput projection_input(const Case& c, Projection p, const MatrixView& x, Rounding r) {
  ProjectionInput input{x, Matrix::Ones(x.rows(), x.cols())};
  if (!quantises_input(c.config)) {
    return input;
  }
  for (const Range& block : activation_blocks(c.config, p, x.cols())) {
    for (std::int64_t t = 0; t < x.rows(); ++t) {
      const QuantisedBlock quantised =
          quantise(c, p, x.row(t).segment(block.first, block.count), r);
      input.code.row(t).segment(block.first, block.count) = quantised.code;
      input.scale.row(t).segment(block.first, block.count).setConstant(quantised.scale);
    }
  }
  return input;
}

}  // namespace attn::reference
