#include "reference/formats/gptq.h"

#include <bit>

namespace attn::reference {
namespace {

/// Upper half of the float32: rounding toward zero.
double truncate_to_bfloat16(double v) {
  const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(v));
  return std::bit_cast<float>(bits & 0xffff0000U);
}

/// Code of input column k and output row n.
std::int64_t code_of(const GptqWeight& weight, std::int64_t k, std::int64_t n) {
  const std::int64_t per_word = 32 / weight.bits;
  const std::uint64_t word = weight.qweight.code(k / per_word * weight.qweight.dim(1) + n);
  const std::uint64_t mask = (std::uint64_t{1} << weight.bits) - 1;
  return static_cast<std::int64_t>(word >> (k % per_word * weight.bits) & mask);
}

}  // namespace

Matrix decode_gptq(const GptqWeight& weight, ElementType dtype, Rounding r) {
  const std::int64_t out = weight.scales.dim(1);
  const std::int64_t zero = std::int64_t{1} << (weight.bits - 1);
  Matrix scales = decode_matrix(weight.scales, weight.scales.dim(0), out);  // [groups, out]
  if (!r.exact() && dtype == ElementType::kBFloat16) {
    scales = scales.unaryExpr(&truncate_to_bfloat16);
  }
  return Matrix::NullaryExpr(out, weight.g_idx.size(), [&](Eigen::Index n, Eigen::Index k) {
    const auto group = static_cast<std::int64_t>(weight.g_idx.value(k));
    return r.to(dtype, static_cast<double>(code_of(weight, k, n) - zero) * scales(group, n));
  });
}

}  // namespace attn::reference
