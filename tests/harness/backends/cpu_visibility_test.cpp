#include <gtest/gtest.h>

#include "harness/backends/cpu/visibility.h"
#include "tests/harness/backends/naive_attention.h"

namespace attn::harness::cpu {
namespace {

TEST(CpuVisibility, EveryMaskAndWindowAgreesWithTheTable) {
  for (const MaskVariant variant : {MaskVariant::kNull, MaskVariant::kCausal,
                                    MaskVariant::kChunkedCausal, MaskVariant::kSlidingWindowCausal,
                                    MaskVariant::kSlidingWindowNoncausal, MaskVariant::kTensor}) {
    for (std::int64_t width = 1; width <= 11; ++width) {
      MaskConfig mask;
      mask.variant = variant;
      mask.window_size = width;
      mask.chunk_size = width;
      for (std::int64_t keys = 0; keys <= 9; ++keys) {
        for (std::int64_t q = -12; q <= 14; ++q) {
          const KeyRange range = visible_keys(mask, q, keys);
          for (std::int64_t k = 0; k < keys; ++k) {
            EXPECT_EQ(range.begin <= k && k < range.end, naive_visible(mask, q, k))
                << name_of(variant) << " width " << width << " keys " << keys << " q " << q << " k "
                << k;
          }
        }
      }
    }
  }
}

TEST(CpuVisibility, HandWorkedEdges) {
  MaskConfig mask;
  mask.window_size = 3;
  mask.chunk_size = 4;
  const auto expect = [&](std::int64_t q, std::int64_t keys, std::int64_t begin, std::int64_t end) {
    const KeyRange range = visible_keys(mask, q, keys);
    EXPECT_EQ(range.begin, begin);
    EXPECT_EQ(range.end, end);
  };
  mask.variant = MaskVariant::kSlidingWindowCausal;
  expect(10, 20, 8, 11);  // itself and the two before
  expect(1, 20, 0, 2);
  mask.variant = MaskVariant::kSlidingWindowNoncausal;
  expect(10, 20, 8, 20);  // and everything after
  mask.variant = MaskVariant::kChunkedCausal;
  expect(7, 20, 4, 8);  // chunks count from key 0: 4 .. 7
  expect(8, 20, 8, 9);
  mask.variant = MaskVariant::kCausal;
  expect(25, 20, 0, 20);  // top-left queries past the last key
}

}  // namespace
}  // namespace attn::harness::cpu
