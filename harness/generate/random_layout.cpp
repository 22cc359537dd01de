#include "harness/generate/random_layout.h"

#include "harness/generate/random_draw.h"

namespace attn::harness {
namespace {

constexpr std::int64_t kFeatures = 9;

void add_feature(std::int64_t feature, bool may_broadcast, Draw& draw, MemoryLayout& layout) {
  switch (feature) {
    case 0:
      layout.cache = CacheOrder::kHnd;
      return;
    case 1:
      layout.kv = draw.pick({KvPairing::kPagePairs, KvPairing::kRowPairs});
      return;
    case 2:
      layout.q = draw.pick({QueryOrder::kFusedQkv, QueryOrder::kTransposed});
      return;
    case 3:
      layout.out = OutputOrder::kTransposed;
      return;
    case 4:
      layout.broadcast = may_broadcast;
      return;
    case 5:
      layout.gap = draw.between(1, 9);
      return;
    case 6:
      layout.offset = draw.between(1, 33);
      return;
    case 7:
      layout.channel_stride = draw.between(2, 3);
      return;
    default:
      // Past 2^31, and past what wraps to the same place in 32 unsigned bits.
      if (draw.one_in(2))
        layout.pool_offset = draw.pick({std::int64_t{1} << 31, std::int64_t{1} << 32});
      if (layout.pool_offset == 0)
        layout.row_stride = draw.pick({std::int64_t{1} << 31, std::int64_t{1} << 32});
  }
}

}  // namespace

MemoryLayout random_layout(const CaseSpec& spec, std::uint64_t seed) {
  Draw draw(seed, "random_layout");
  MemoryLayout layout;
  for (std::int64_t n = draw.pick({1, 1, 2, 3}); n > 0; --n) {
    add_feature(draw.between(0, kFeatures - 1), spec.config.starts_at_attention(), draw, layout);
  }
  return layout;
}

}  // namespace attn::harness
