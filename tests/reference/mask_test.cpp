// Masks against the visibility table of the layer, key by key.

#include "reference/stages/mask.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/reference/make_case.h"

namespace attn::reference {
namespace {

using test::make_case;
using test::make_mask;
using test::small_core_config;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// floor(a / b); chunks are aligned to position 0, negative positions included.
std::int64_t floor_div(std::int64_t a, std::int64_t b) {
  return a >= 0 ? a / b : -((-a + b - 1) / b);
}

/// Whether a query at position q sees key k, W the window or chunk.
bool visible(MaskVariant variant, std::int64_t q, std::int64_t k, std::int64_t w) {
  switch (variant) {
    case MaskVariant::kNull:
    case MaskVariant::kTensor:
      return true;
    case MaskVariant::kCausal:
      return k <= q;
    case MaskVariant::kChunkedCausal:
      return k <= q && floor_div(q, w) == floor_div(k, w);
    case MaskVariant::kSlidingWindowCausal:
      return k <= q && q - k < w;
    case MaskVariant::kSlidingWindowNoncausal:
      return k + w > q;
  }
  return false;
}

class MaskTest : public testing::TestWithParam<std::tuple<MaskVariant, MaskAlign, std::int64_t>> {};

TEST_P(MaskTest, SeesWhatTheTableSays) {
  const auto [variant, align, width] = GetParam();
  AttentionConfig config = small_core_config();
  config.mask = make_mask(variant, width);
  config.mask.align = align;
  // Fewer, as many and more keys than queries, and none.
  const Case c = make_case(config, {{1, 13, 5}, {2, 6, 6}, {3, 4, 9}, {4, 0, 3}, {5, 7, 0}});
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    const std::int64_t keys = c.key_count(b);
    for (std::int64_t i = 0; i < c.row_count(b); ++i) {
      const std::int64_t q = align == MaskAlign::kTopLeft ? i : keys - c.row_count(b) + i;
      const RowMask mask = row_mask(c, b, c.row_begin(b) + i);
      EXPECT_LE(0, mask.begin);
      EXPECT_LE(mask.begin, mask.end);
      EXPECT_LE(mask.end, keys);
      for (std::int64_t k = 0; k < keys; ++k) {
        EXPECT_EQ(mask.sees(k), visible(variant, q, k, width))
            << "sequence " << b << ", query at " << q << ", key " << k << ", width " << width;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Variants, MaskTest,
    testing::Combine(testing::Values(MaskVariant::kNull, MaskVariant::kCausal,
                                     MaskVariant::kChunkedCausal, MaskVariant::kSlidingWindowCausal,
                                     MaskVariant::kSlidingWindowNoncausal),
                     testing::Values(MaskAlign::kBottomRight, MaskAlign::kTopLeft),
                     testing::Values(1, 2, 3, 5, 100)));

TEST(TensorMask, MinusInfinityHidesAKeyAndAWholeRowOfThemSeesNothing) {
  AttentionConfig config = small_core_config();
  config.mask.variant = MaskVariant::kTensor;
  Case c = make_case(config, {{1, 5, 2}});
  const std::vector<double> rows{-kInfinity, 1.0,        -kInfinity, 2.0,        -kInfinity,
                                 -kInfinity, -kInfinity, -kInfinity, -kInfinity, -kInfinity};
  c.mask = Tensor::from_values(ElementType::kFloat32, {2, 5}, rows);
  const RowMask first = row_mask(c, 0, 0);
  EXPECT_EQ(first.begin, 1);
  EXPECT_EQ(first.end, 4);
  EXPECT_EQ(first.added, (std::vector<double>{1.0, -kInfinity, 2.0}));
  EXPECT_TRUE(first.sees(1));
  EXPECT_FALSE(first.sees(0));
  EXPECT_FALSE(first.sees(2));
  EXPECT_FALSE(first.sees(4));
  const RowMask second = row_mask(c, 0, 1);
  EXPECT_EQ(second.begin, second.end);
}

}  // namespace
}  // namespace attn::reference
