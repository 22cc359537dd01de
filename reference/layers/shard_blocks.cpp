#include "reference/layers/shard_blocks.h"

namespace attn::reference {

bool has_fp8_blocks(const AttentionConfig& config) {
  return config.quant && config.quant->q_proj == QuantEncoding::kFloat8E4M3FN &&
         config.quant->weight_granularity == WeightGranularity::kBlock;
}

Tensor take_block_scales(const Tensor& scale, Range rows, Range columns, const QuantConfig& from,
                         const QuantConfig& to) {
  const auto blocks = [](std::int64_t n, std::int64_t size) { return (n + size - 1) / size; };
  Tensor part(scale.type(), {blocks(rows.count, to.block_n), blocks(columns.count, to.block_k)});
  for (std::int64_t i = 0; i < part.dim(0); ++i) {
    for (std::int64_t j = 0; j < part.dim(1); ++j) {
      const std::int64_t row = (rows.first + i * to.block_n) / from.block_n;
      const std::int64_t column = (columns.first + j * to.block_k) / from.block_k;
      part.set_code(i * part.dim(1) + j, scale.code(row * scale.dim(1) + column));
    }
  }
  return part;
}

}  // namespace attn::reference
