// How calls are cut into blocks: host code, tested without a device.
#include <gtest/gtest.h>

#include "gpu/device/messages.h"
#include "gpu/kernels/attention.h"
#include "gpu/kernels/prefill_shape.h"

namespace attn::gpu {
namespace {

constexpr int kMultiprocessors = 132;

AttentionPlan plan(std::int64_t batch, std::int64_t rows, std::int64_t keys, std::int64_t heads,
                   std::int64_t kv_heads, std::int64_t head_dim = 128, int fixed = 0) {
  return plan_attention(batch, rows, keys, heads, kv_heads, head_dim, kMultiprocessors, fixed);
}

TEST(AttentionPlan, DecodesUpToSixteenPackedRows) {
  EXPECT_TRUE(plan(1, 1, 8192, 32, 8).decode);
  EXPECT_TRUE(plan(1, 4, 8192, 32, 8).decode);   // 4 queries x group of 4
  EXPECT_FALSE(plan(1, 5, 8192, 32, 8).decode);  // 20 rows
  EXPECT_TRUE(plan(1, 1, 8192, 16, 1).decode);   // a group of 16
  EXPECT_FALSE(plan(1, 1, 8192, 17, 1).decode);
}

TEST(AttentionPlan, TilesCoverEveryPackedRow) {
  for (const std::int64_t head_dim : {16, 64, 128, 160, 256}) {
    for (const std::int64_t rows : {5, 31, 32, 33, 4096}) {
      const AttentionPlan p = plan(2, rows, 5000, 32, 8, head_dim);
      EXPECT_GE(p.row_tiles * prefill_rows(static_cast<int>(head_dim), p.small_tiles), rows * 4);
      EXPECT_LT((p.row_tiles - 1) * prefill_rows(static_cast<int>(head_dim), p.small_tiles),
                rows * 4);
    }
  }
}

TEST(AttentionPlan, TakesSmallTilesWhereLargeOnesWouldIdle) {
  EXPECT_TRUE(plan(1, 512, 512, 32, 8).small_tiles);     // 64 blocks of 256 rows
  EXPECT_FALSE(plan(1, 4096, 4096, 32, 8).small_tiles);  // 512 of them
  EXPECT_TRUE(plan(256, 16, 8192, 32, 8).small_tiles);   // 64 packed rows a sequence
  EXPECT_FALSE(plan(256, 17, 8192, 32, 8).small_tiles);
}

TEST(AttentionPlan, SplitsOnlyWhatDoesNotFillTheDevice) {
  // 8 blocks on 132 multiprocessors: as many parts as fit in one wave of one block each.
  EXPECT_EQ(plan(1, 1, 1 << 20, 32, 8).splits, 132 / 8);
  EXPECT_TRUE(plan(1, 1, 1 << 20, 32, 8).wide);
  EXPECT_EQ(plan(16, 1, 8192, 32, 8).splits, 1);  // 128 blocks
  EXPECT_TRUE(plan(16, 1, 8192, 32, 8).wide);
  // 72 blocks would leave half of the multiprocessors idle; of two blocks each, 216 of 264 run.
  EXPECT_EQ(plan(9, 1, 8192, 32, 8).splits, 3);
  EXPECT_FALSE(plan(9, 1, 8192, 32, 8).wide);
  EXPECT_EQ(plan(64, 1, 8192, 32, 8).splits, 1);  // 512 blocks
  EXPECT_EQ(plan(1, 16384, 16384, 32, 8).splits, 1);
  EXPECT_EQ(plan(1, 1, 100, 32, 8).splits, 1);  // too few keys to be worth it
  EXPECT_LE(plan(1, 1, 1 << 20, 8, 1).splits, kMostSplits);
}

TEST(AttentionPlan, FixedSplitsDoNotDependOnTheBatch) {
  for (const std::int64_t batch : {1, 7, 300}) {
    EXPECT_EQ(plan(batch, 1, 8192, 32, 8, 128, 5).splits, 5);
  }
}

TEST(AttentionPlan, PartialsHoldOutputsMaximaAndSums) {
  const AttentionPlan p = plan(2, 1, 8192, 32, 8, 128, 3);
  EXPECT_EQ(partial_floats(p, 2, 32, 128), 3 * 2 * 32 * (128 + 2));
  EXPECT_EQ(partial_floats(plan(1, 1, 100, 32, 8), 1, 32, 128), 0);
}

TEST(DeviceMessages, NameWhatIsMissingAndWhatToTry) {
  EXPECT_EQ(no_code_message("NVIDIA T4", 7, 5, "cudaErrorNoKernelImageForDevice"),
            "NVIDIA T4 has compute capability 7.5, for which this build holds no code "
            "(cudaErrorNoKernelImageForDevice); configure with -DCMAKE_CUDA_ARCHITECTURES=75");
  EXPECT_EQ(out_of_memory_message(1000, 10, 100),
            "cuda: out of memory: 1000 bytes wanted, 10 of 100 free; try a smaller batch or fewer "
            "keys");
}

TEST(TensorCoreKernel, TakesWhatFitsItsRows) {
  const auto takes = [](std::int64_t d, std::int64_t dv) {
    return has_tensor_core_kernel(Type::kBFloat16, Type::kBFloat16, d, dv);
  };
  for (const std::int64_t d : {16, 24, 40, 64, 72, 80, 96, 112, 128, 192, 256}) {
    EXPECT_TRUE(takes(d, d)) << d;
  }
  EXPECT_TRUE(takes(192, 128));
  EXPECT_FALSE(takes(20, 20));    // rows that do not start at 16 bytes
  EXPECT_FALSE(takes(576, 512));  // beyond 256
  EXPECT_FALSE(has_tensor_core_kernel(Type::kFloat32, Type::kFloat32, 64, 64));
  EXPECT_FALSE(has_tensor_core_kernel(Type::kFloat16, Type::kBFloat16, 64, 64));
}

}  // namespace
}  // namespace attn::gpu
