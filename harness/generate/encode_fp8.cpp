#include <algorithm>

#include "harness/generate/encode.h"

namespace attn::harness {
namespace {

/// Rows and columns that share one scale.
struct Blocks {
  std::int64_t rows = 1;
  std::int64_t columns = 1;
  Shape shape;  ///< of weight_scale
};

Blocks blocks_of(const EncodeJob& job) {
  const DenseMatrix& w = job.weight;
  const QuantConfig& quant = job.quant;
  switch (quant.weight_granularity) {
    case WeightGranularity::kTensor:
      return {w.rows, w.columns, {}};
    case WeightGranularity::kRowwise:
      return {1, w.columns, {w.rows, 1}};
    case WeightGranularity::kBlock:
      break;
  }
  const std::int64_t down = (w.rows + quant.block_n - 1) / quant.block_n;
  const std::int64_t across = (w.columns + quant.block_k - 1) / quant.block_k;
  return {quant.block_n, quant.block_k, {down, across}};
}

/// Largest magnitude of each block, row-major.
std::vector<double> block_magnitudes(const DenseMatrix& w, const Blocks& blocks) {
  const std::int64_t across = (w.columns + blocks.columns - 1) / blocks.columns;
  const std::int64_t down = (w.rows + blocks.rows - 1) / blocks.rows;
  std::vector<double> largest(static_cast<std::size_t>(down * across), 0.0);
  for (std::int64_t r = 0; r < w.rows; ++r) {
    for (std::int64_t j = 0; j < across; ++j) {
      const auto first = static_cast<std::size_t>(j * blocks.columns);
      const std::size_t count =
          std::min(static_cast<std::size_t>(blocks.columns), w.row(r).size() - first);
      double& block = largest[static_cast<std::size_t>(r / blocks.rows * across + j)];
      block = std::max(block, largest_magnitude(w.row(r).subspan(first, count)));
    }
  }
  return largest;
}

}  // namespace

/// weight = e4m3(w / scale) with a scale for each tensor, row or block. Scales are between 0.75 and
/// 2 times what makes the largest weight 448, so that codes saturate in some and stay below in
/// others.
void encode_fp8(const EncodeJob& job, LayerWeights& weights) {
  const DenseMatrix& w = job.weight;
  const Blocks blocks = blocks_of(job);
  const double top = max_finite(ElementType::kFloat8E4M3FN);
  const RandomStream spread = job.stream("weight_scale");
  const std::vector<double> largest = block_magnitudes(w, blocks);
  Tensor scale(ElementType::kFloat32, blocks.shape);
  for (std::int64_t i = 0; i < scale.size(); ++i) {
    const auto index = static_cast<std::size_t>(i);
    const double amax = largest[index] > 0 ? largest[index] : kNoMagnitude;
    const double wanted = amax / top * (0.75 + 1.25 * spread.uniform(index));
    scale.set_value(i, blocks.shape.empty() ? job.scales.weight.next(wanted) : wanted);
  }

  const std::int64_t across = (w.columns + blocks.columns - 1) / blocks.columns;
  Tensor codes(ElementType::kFloat8E4M3FN, {w.rows, w.columns});
  std::vector<double> quotients(static_cast<std::size_t>(w.columns));
  for (std::int64_t r = 0; r < w.rows; ++r) {
    const std::span<const double> row = w.row(r);
    for (std::int64_t j = 0; j < across; ++j) {
      const double s = scale.value(r / blocks.rows * across + j);
      const std::int64_t end = std::min(w.columns, (j + 1) * blocks.columns);
      for (auto k = static_cast<std::size_t>(j * blocks.columns); k < static_cast<std::size_t>(end);
           ++k) {
        quotients[k] = row[k] / s;
      }
    }
    encode_all(codes.type(), quotients, codes.data() + r * w.columns);
  }
  weights[job.projection + ".weight"] = std::move(codes);
  weights[job.projection + ".weight_scale"] = std::move(scale);
  if (job.quant.activation == ActivationQuant::kStatic) {
    const double factor = 0.5 + job.stream("input_scale").uniform(0);
    weights[job.projection + ".input_scale"] =
        Tensor::scalar(ElementType::kFloat32, job.scales.input.next(job.input_amax / top * factor));
  }
}

}  // namespace attn::harness
