// Which calls the Hopper projection takes, why not, and the order of its tiles: host code, tested
// without a device.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <utility>

#include "gpu/kernels/projection_hopper.h"
#include "gpu/kernels/projection_work.h"

namespace attn::gpu {
namespace {

constexpr int kMultiprocessors = 132;

ProjectionShape shape(std::int64_t head_dim = 128) {
  ProjectionShape s;
  s.type = s.cache_type = Type::kBFloat16;
  s.num_heads = 32;
  s.num_kv_heads = 8;
  s.head_dim = s.rotary_dim = head_dim;
  s.hidden_size = 4096;
  return s;
}

std::string refusal(std::int64_t tokens, ProjectionUse use = ProjectionUse::kWhereItPays) {
  const ProjectionPlan plan = plan_projection(shape(), use, kMultiprocessors, tokens);
  EXPECT_EQ(plan.taken, plan.refusal.empty());
  EXPECT_EQ(plan.blocks > 0, plan.taken);
  return plan.refusal;
}

TEST(ProjectionRefusal, SaysWhatItDoesNotTake) {
  EXPECT_EQ(projection_refusal(shape()), "");
  EXPECT_EQ(projection_refusal(shape(64)), "");
  EXPECT_EQ(projection_refusal(shape(96)), "head_dim 96 is neither 64 nor 128");
  ProjectionShape s = shape();
  s.type = s.cache_type = Type::kFloat16;
  EXPECT_EQ(projection_refusal(s), "");
  s.cache_type = Type::kFloat8E4M3;
  EXPECT_EQ(projection_refusal(s), "the cache has another type than the activations");
  s.type = s.cache_type = Type::kFloat32;
  EXPECT_EQ(projection_refusal(s), "activations are neither bfloat16 nor float16");
  s = shape();
  s.quantised = true;
  EXPECT_EQ(projection_refusal(s), "weights are quantised");
  s = shape();
  s.rotary_dim = 64;
  EXPECT_EQ(projection_refusal(s), "");
  s.interleaved = false;
  EXPECT_EQ(projection_refusal(s),
            "rotary_dim 64 of head_dim 128 in halves is not implemented, only interleaved");
  s = shape();
  s.hidden_size = 4100;
  EXPECT_EQ(projection_refusal(s), "hidden_size 4100 is no multiple of 8");
}

TEST(ProjectionPlan, TakesCallsThatFillTheDevice) {
  EXPECT_EQ(refusal(4096), "");
  EXPECT_EQ(refusal(16384), "");
  EXPECT_EQ(refusal(100), "100 rows, fewer than 128");
  EXPECT_EQ(refusal(256), "48 tiles leave 132 multiprocessors idle for more than 30 % of the time");
  EXPECT_EQ(refusal(0), "no rows");
  EXPECT_EQ(refusal(std::int64_t{1} << 30), "1073741824 rows are beyond the kernel's numbers");
  EXPECT_EQ(refusal(4096, ProjectionUse::kNever), "not asked for");
  EXPECT_EQ(refusal(1, ProjectionUse::kAlways), "");
  EXPECT_EQ(refusal(0, ProjectionUse::kAlways), "no rows");
}

TEST(ProjectionTiles, AreEachTakenOnce) {
  for (const int row_tiles : {1, 2, 15, 16, 17, 33}) {
    for (const int column_tiles : {1, 3, 24}) {
      std::set<std::pair<int, int>> seen;
      for (int i = 0; i < row_tiles * column_tiles; ++i) {
        const ProjectionPlace place = projection_place(i, row_tiles, column_tiles);
        EXPECT_TRUE(place.row_tile >= 0 && place.row_tile < row_tiles);
        EXPECT_TRUE(place.column_tile >= 0 && place.column_tile < column_tiles);
        seen.insert({place.row_tile, place.column_tile});
      }
      EXPECT_EQ(std::ssize(seen), row_tiles * column_tiles);
    }
  }
}

/// Within a group, 132 blocks at work want no more x and w at once than an L2 of 50 MB holds.
TEST(ProjectionTiles, OfBlocksAtWorkShareOperands) {
  const int row_tiles = 32;
  const int column_tiles = 24;
  int judged = 0;
  for (int first = 0; first + kMultiprocessors <= row_tiles * column_tiles; first += 7) {
    std::set<int> rows;
    std::set<int> columns;
    for (int i = first; i < first + kMultiprocessors; ++i) {
      const ProjectionPlace place = projection_place(i, row_tiles, column_tiles);
      rows.insert(place.row_tile);
      columns.insert(place.column_tile);
    }
    if (rows.size() > kProjectionGroup) continue;  // of two groups
    const std::int64_t bytes =
        (std::ssize(rows) * kProjectionRows + std::ssize(columns) * kProjectionColumns) * 4096 * 2;
    EXPECT_LE(bytes, 40'000'000) << first;
    ++judged;
  }
  EXPECT_GT(judged, 50);
}

}  // namespace
}  // namespace attn::gpu
