#include "reference/formats/e2m1.h"

namespace attn::reference {

Matrix decode_e2m1(const Tensor& bytes) {
  const std::int64_t half = bytes.dim(1);
  return Matrix::NullaryExpr(bytes.dim(0), 2 * half, [&](Eigen::Index n, Eigen::Index k) {
    const std::uint64_t pair = bytes.code(n * half + k / 2);
    return decode(ElementType::kFloat4E2M1FN, k % 2 == 0 ? pair & 0xf : pair >> 4);
  });
}

}  // namespace attn::reference
