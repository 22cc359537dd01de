#include "reference/stages/rope_table.h"

#include <cmath>
#include <cstddef>

#include "reference/stages/rope_scaling.h"

namespace attn::reference {

Matrix rope_table(const AttentionConfig& config, std::int64_t positions, Rounding r) {
  constexpr ElementType kF32 = ElementType::kFloat32;
  const RopeFrequencies frequencies = rope_frequencies(config, r);
  const double m = frequencies.attention_factor;

  Matrix table(positions, config.rotary_dim());
  for (std::int64_t p = 0; p < positions; ++p) {
    const std::vector<double>& inv_freq = frequencies.inv_freq(p);
    for (std::size_t j = 0; j < inv_freq.size(); ++j) {
      const double angle = r.to(kF32, static_cast<double>(p) * inv_freq[j]);
      const auto column = static_cast<std::int64_t>(2 * j);
      table(p, column) = round_to(kF32, m * r.to(kF32, std::cos(angle)));
      table(p, column + 1) = round_to(kF32, m * r.to(kF32, std::sin(angle)));
    }
  }
  return table;
}

}  // namespace attn::reference
