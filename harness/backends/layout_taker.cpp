#include "harness/backends/layout_taker.h"

namespace attn::harness {

MemoryLayout taken_layout(const Backend& backend, const AttentionConfig& config,
                          const MemoryLayout& wanted) {
  if (wanted == MemoryLayout{}) return wanted;
  const auto* const taker = dynamic_cast<const LayoutTaker*>(&backend);
  return taker == nullptr ? MemoryLayout{} : taker->taken(config, wanted);
}

}  // namespace attn::harness
