// Where elements lie, worked by hand.
#include "harness/backends/placement.h"

#include <gtest/gtest.h>

#include <set>

namespace attn::harness {
namespace {

constexpr PoolShape kPool{2, 3, 4, 5, 6, 7};  // pages, layers, slots, heads, channels of k and v

TEST(Placement, TheStandardOneIsDense) {
  const MemoryLayout layout;
  EXPECT_TRUE(place_rows(layout, {3, 4, 5}, false, {}).is_dense());
  EXPECT_TRUE(place_rows(layout, {3, 4}, false, {}).is_dense());
  EXPECT_TRUE(place_table(layout, {3, 4}, false).is_dense());
  const PoolPlacement pools = place_pools(layout, kPool, false, false);
  EXPECT_TRUE(pools.k.is_dense());
  EXPECT_TRUE(pools.v.is_dense());
  EXPECT_FALSE(pools.shared);
  EXPECT_TRUE(place_scales(layout, kPool, 0, false).is_dense());
}

TEST(Placement, RowsOfAFusedBuffer) {
  MemoryLayout layout;
  layout.offset = 2;
  // Rows of 3 heads of 4 channels, then 10 elements of others.
  const Placement q = place_rows(layout, {2, 3, 4}, false, {0, 10});
  EXPECT_EQ(q.strides, (Shape{22, 4, 1}));
  EXPECT_EQ(q.offset, 2);
  EXPECT_EQ(q.extent, 2 + 2 * 22);
  const Placement v = place_rows(layout, {2, 1, 4}, false, {18, 0});
  EXPECT_EQ(v.offset, 20);
  EXPECT_EQ(v.extent, 2 + 2 * 22);
}

TEST(Placement, RowsWithHeadsOutermostGapsAndStrides) {
  MemoryLayout layout;
  layout.gap = 1;
  layout.channel_stride = 2;
  layout.row_stride = 100;
  const Placement out = place_rows(layout, {2, 3, 4}, true, {});
  EXPECT_EQ(out.strides, (Shape{100, 200, 2}));
  EXPECT_EQ(out.extent, 400 + 100 + 6 + 1);  // ends with the last element
}

TEST(Placement, PagesOfHeadsFirstInPairs) {
  MemoryLayout layout;
  layout.cache = CacheOrder::kHnd;
  layout.kv = KvPairing::kPagePairs;
  const PoolPlacement pools = place_pools(layout, kPool, false, false);
  const std::int64_t k = 4 * 5 * 6, v = 4 * 5 * 7;  // of a page
  EXPECT_TRUE(pools.shared);
  EXPECT_EQ(pools.k.strides, (Shape{3 * (k + v), k + v, 6, 4 * 6, 1}));
  EXPECT_EQ(pools.v.strides, (Shape{3 * (k + v), k + v, 7, 4 * 7, 1}));
  EXPECT_EQ(pools.v.offset, k);
  EXPECT_EQ(pools.v.extent, 2 * 3 * (k + v));
}

TEST(Placement, RowPairsAndStrideZero) {
  MemoryLayout layout;
  layout.kv = KvPairing::kRowPairs;
  const PoolPlacement pools = place_pools(layout, kPool, true, true);
  EXPECT_EQ(pools.k.strides, (Shape{3 * 4 * 13, 4 * 13, 13, 0, 1}));
  EXPECT_EQ(pools.v.offset, 6);
  const PoolPlacement apart = place_pools(layout, kPool, true, false);
  EXPECT_EQ(apart.k.strides, apart.v.strides) << "side by side: both or none";
}

TEST(Placement, LivePagesLieAtLeastSoFarIn) {
  MemoryLayout layout;
  layout.pool_offset = std::int64_t{1} << 32;
  const PoolPlacement pools = place_pools(layout, kPool, false, false);
  EXPECT_GE(pools.k.offset, layout.pool_offset);
  EXPECT_GE(pools.v.offset, layout.pool_offset);
  EXPECT_EQ(pools.k.offset, pools.dead_pages * pools.k.strides[0]);
  EXPECT_EQ(pools.v.offset, pools.dead_pages * pools.v.strides[0]);
}

/// No two elements in one place, none outside, whatever is combined.
TEST(Placement, ElementsDoNotOverlap) {
  for (int bits = 0; bits < 64; ++bits) {
    MemoryLayout layout;
    if ((bits & 1) != 0) layout.cache = CacheOrder::kHnd;
    layout.kv = static_cast<KvPairing>((bits & 2) == 0 ? 0 : 1 + ((bits >> 2) & 1));
    if ((bits & 8) != 0) layout.gap = 3;
    if ((bits & 16) != 0) layout.channel_stride = 2;
    if ((bits & 32) != 0) layout.offset = 5;
    const PoolPlacement pools = place_pools(layout, kPool, false, false);
    std::set<std::int64_t> used;
    std::size_t elements = 0;
    for (const Placement& p : {pools.k, pools.v}) {
      if (!pools.shared) {
        used.clear();
        elements = 0;
      }
      std::int64_t next = 0;
      for (const harness::Run& run : runs_of(p)) {
        EXPECT_EQ(run.first, next);
        next += run.count;
        for (std::int64_t i = 0; i < run.count; ++i) used.insert(run.at + i);
      }
      elements += static_cast<std::size_t>(num_elements(p.shape));
      EXPECT_EQ(next, num_elements(p.shape));
      EXPECT_EQ(used.size(), elements) << bits;
      EXPECT_GE(*used.begin(), layout.offset);
      EXPECT_LT(*used.rbegin(), p.extent);
    }
  }
}

TEST(Placement, EmptyTensorsHaveNoRuns) {
  const MemoryLayout layout;
  EXPECT_TRUE(runs_of(place_rows(layout, {0, 3, 4}, true, {})).empty());
  EXPECT_EQ(runs_of(dense_placement({})).size(), 1U);
}

}  // namespace
}  // namespace attn::harness
