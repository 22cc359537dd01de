#include "reference/formats/dense.h"

namespace attn::reference {

Matrix decode_dense(const Tensor& weight, std::int64_t first, std::int64_t rows) {
  return decode_rows(weight, first, rows, weight.dim(1));
}

}  // namespace attn::reference
