#include "harness/generate/draft.h"
#include "reference/stages/rope_table.h"

namespace attn::harness {

Tensor freqs_cis(const AttentionConfig& config, std::int64_t positions) {
  const reference::Matrix table =
      reference::rope_table(config, positions, reference::Rounding(reference::Mode::kExact));
  const std::span<const double> values(table.data(), static_cast<std::size_t>(table.size()));
  return Tensor::from_values(ElementType::kFloat32, {positions, config.rotary_dim()}, values);
}

}  // namespace attn::harness
