#include "golden/second_matrix.h"

#include <algorithm>

namespace attn::golden {

Matrix decoded(const Tensor& tensor, std::int64_t rows, std::int64_t cols) {
  Matrix out(rows, cols);
  for (std::int64_t i = 0; i < rows * cols; ++i) {
    out.data[static_cast<std::size_t>(i)] = tensor.value(i);
  }
  return out;
}

void clip(Matrix& m, Real bound) {
  for (Real& v : m.data) v = std::min(std::max(v, -bound), bound);
}

}  // namespace attn::golden
