#include "reference/stages/matrix.h"

#include <span>
#include <utility>

namespace attn::reference {

Matrix decode_rows(const Tensor& stored, std::int64_t first, std::int64_t rows, std::int64_t cols) {
  Matrix m(rows, cols);
  stored.values(first * cols, std::span<double>(m.data(), static_cast<std::size_t>(m.size())));
  return m;
}

Matrix decode_matrix(const Tensor& stored, std::int64_t rows, std::int64_t cols) {
  return decode_rows(stored, 0, rows, cols);
}

Tensor to_tensor(const MatrixView& matrix, Shape shape) {
  Tensor t(ElementType::kFloat64, std::move(shape));
  Eigen::Map<Matrix>(t.as<double>(), matrix.rows(), matrix.cols()) = matrix;
  return t;
}

Eigen::Map<const Matrix> as_matrix(const Tensor& float64, std::int64_t rows, std::int64_t cols) {
  return {float64.as<double>(), rows, cols};
}

Eigen::Map<Matrix> by_head(Matrix& x, std::int64_t head_dim) {
  return {x.data(), x.size() / head_dim, head_dim};
}

}  // namespace attn::reference
