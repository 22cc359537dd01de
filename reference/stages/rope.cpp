#include "reference/stages/rope.h"

#include <cstddef>

namespace attn::reference {

std::vector<std::int64_t> row_positions(const Case& c) {
  std::vector<std::int64_t> positions;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t i = 0; i < c.row_count(b); ++i) {
      positions.push_back(c.cached(b) + i);
    }
  }
  return positions;
}

Matrix rotate(const AttentionConfig& config, const Tensor& table, Matrix x,
              std::span<const std::int64_t> positions, Rounding r) {
  const ElementType t = config.dtype;
  const std::int64_t rotary = config.rotary_dim();
  const std::int64_t pairs = rotary / 2;
  // Channels of pair j: (first + step*j, first + step*j + gap).
  const std::int64_t first =
      config.rope.rotary_side == RotarySide::kLast ? config.head_dim - rotary : 0;
  const std::int64_t step = config.rope.interleaved ? 2 : 1;
  const std::int64_t gap = config.rope.interleaved ? 1 : pairs;

  for (std::size_t i = 0; i < positions.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i);
    const Matrix f = r.to(t, decode_rows(table, positions[i], 1, rotary));
    for (std::int64_t head = 0; head < x.cols(); head += config.head_dim) {
      for (std::int64_t j = 0; j < pairs; ++j) {
        double& a = x(row, head + first + step * j);
        double& b = x(row, head + first + step * j + gap);
        const double cos = f(0, 2 * j);
        const double sin = f(0, 2 * j + 1);
        const double re = r.fma(t, a, cos, -r.to(t, b * sin));
        const double im = r.fma(t, a, sin, r.to(t, b * cos));
        a = re;
        b = im;
      }
    }
  }
  return x;
}

}  // namespace attn::reference
