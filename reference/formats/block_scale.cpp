#include "reference/formats/block_scale.h"

namespace attn::reference {

Matrix spread_scales(const Tensor& scale, std::int64_t rows, std::int64_t cols, ScaleBlock block) {
  const std::int64_t block_rows = (rows + block.rows - 1) / block.rows;
  const std::int64_t block_cols = (cols + block.cols - 1) / block.cols;
  const Matrix stored = decode_matrix(scale, block_rows, block_cols);
  return Matrix::NullaryExpr(rows, cols, [&](Eigen::Index n, Eigen::Index k) {
    return stored(n / block.rows, k / block.cols);
  });
}

double largest_magnitude(const RowView& x) {
  return x.size() == 0 ? 0.0 : x.cwiseAbs().maxCoeff<Eigen::PropagateNaN>();
}

}  // namespace attn::reference
