#include "harness/compare/spread.h"

#include <gtest/gtest.h>

namespace attn::harness {
namespace {

/// 4 rows of 4 heads; `bad(row, head)` says which are.
template <typename Bad>
std::string words(const Bad& bad, std::int64_t rows = 4, std::int64_t heads = 4) {
  Spread spread("row", heads);
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t head = 0; head < heads; ++head) {
      for (int channel = 0; channel < 2; ++channel) {
        spread.add(row, head, channel == 0 && bad(row, head));
      }
    }
  }
  return spread.words();
}

TEST(Spread, SaysWhichRowsAndHeads) {
  EXPECT_EQ(words([](auto, auto) { return true; }), "wrong in every row and every head");
  EXPECT_EQ(words([](auto row, auto) { return row == 3; }),
            "wrong in row 3 of 4 and every head, right in all others");
  EXPECT_EQ(words([](auto row, auto head) { return row < 2 && head != 1; }),
            "wrong in rows 0 and 1 of 4 and heads 0, 2 and 3 of 4, right in all others");
  EXPECT_EQ(words([](auto row, auto head) { return row == head; }),
            "wrong in 4 of 16 pairs of row and head, in every row and every head");
}

TEST(Spread, SaysNothingWhereThereIsNothingToTell) {
  EXPECT_EQ(words([](auto, auto) { return false; }), "");
  EXPECT_EQ(words([](auto, auto) { return true; }, 1, 1), "");
  EXPECT_EQ(words([](auto row, auto) { return row == 1; }, 3, 1),
            "wrong in row 1 of 3, right in all others");
}

TEST(Spread, RangesAreShort) {
  EXPECT_EQ(range_words({7}), "7");
  EXPECT_EQ(range_words({3, 4, 5, 9}), "3 to 5 and 9");
  EXPECT_EQ(range_words({0, 2, 4, 6, 8, 10}), "0, 2, 4, 6, ... 10");
}

}  // namespace
}  // namespace attn::harness
