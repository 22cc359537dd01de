#include "harness/compare/bound.h"

#include <gmock/gmock.h>

#include <cmath>

// Expected values are worked by hand from the formulas of docs/numerics.md; each comment has the
// working.

namespace attn::harness {
namespace {

constexpr double kU32 = 0x1p-24;
/// Our own evaluation's term, 1e-15 A, is below this share of any of the bounds here.
constexpr double kRelative = 1e-6;

testing::Matcher<double> Near(double want) {
  return testing::DoubleNear(want, std::abs(want) * kRelative);
}

TEST(SumError, ShortChainIsLinear) {
  // chain 4: min(4, 2 * 2) = 4. 4 * 10 + 4 * 2^2 / 10 = 41.6
  EXPECT_THAT(sum_error(Accumulator::kFloat32, 4, 4, 2.0, 10.0, 0.0), Near(kU32 * 41.6));
}

TEST(SumError, LongChainWalks) {
  // chain 100: min(100, 2 * 10) = 20. 20 * 10 + 100 * 2^2 / 10 = 240
  EXPECT_THAT(sum_error(Accumulator::kFloat32, 100, 100, 2.0, 10.0, 0.0), Near(kU32 * 240));
}

TEST(SumError, CoherentTermsGrowLinearly) {
  // Equal terms: |y| = A. 20 * 10 + 100 * 10 = 1200
  EXPECT_THAT(sum_error(Accumulator::kFloat32, 100, 100, -10.0, 10.0, 0.0), Near(kU32 * 1200));
}

TEST(SumError, Float64HasItsOwnRoundoffAndOurs) {
  // chain 4, y = 0: 2^-53 * 4 * 10, and 1e-15 * 10 of our own evaluation.
  const double want = 0x1p-53 * 40 + 1e-14;
  EXPECT_NEAR(sum_error(Accumulator::kFloat64, 4, 4, 0.0, 10.0, 0.0), want, want * 1e-12);
}

TEST(SumError, TruncatingTensorCoreIsLinearInSteps) {
  // n = 33: 3 steps of 16. 2 * (3 + 1) * 10 + 10 = 90
  EXPECT_THAT(sum_error(Accumulator::kFloat32TensorCore, 33, 33, 1.0, 10.0, 0.0), Near(kU32 * 90));
}

TEST(SumError, HalfAccumulator) {
  // n = 64: h = 9, walk min(9, 6) = 6. 6 * 10 + 9 * 4 / 10 + min(10, 4 * 2) = 71.6; floor 10 *
  // 2^-25.
  EXPECT_THAT(sum_error(Accumulator::kFloat16, 64, 64, 2.0, 10.0, 2.0),
              Near(0x1p-11 * 71.6 + 10 * 0x1p-25));
}

TEST(SumError, Fp8Accumulator) {
  // n = 64: h = 3, sqrt n = 8. 3 * (2 + 1) + 16 * (2 + 1) + 64 * 4 / 10 = 82.6; cap (64 + 3) * 10.
  EXPECT_THAT(sum_error(Accumulator::kFp8_14Bit, 64, 64, 2.0, 10.0, 1.0), Near(0x1p-13 * 82.6));
  // n = 1: h = 2; 2 * (8 + 8) + 2 * (8 + 8) + 1 * 64 / 8 = 72 is above the cap (1 + 2) * 8 = 24.
  EXPECT_THAT(sum_error(Accumulator::kFp8_14Bit, 1, 1, 8.0, 8.0, 8.0), Near(0x1p-13 * 24));
}

TEST(SumError, PromotedFp8Accumulator) {
  // n = 256: h = min(9, 5) = 5, sqrt n = 16. 5 * (2 + 1) + 32 * 1 + 128 * 4 / 10 = 98.2; 2 * 2^-24
  // * 10.
  EXPECT_THAT(sum_error(Accumulator::kFp8_14BitPromoted128, 256, 256, 2.0, 10.0, 1.0),
              Near(0x1p-13 * 98.2 + kU32 * 20));
}

TEST(SumError, SumOfNothingIsExact) {
  for (const Accumulator acc : {Accumulator::kFloat32, Accumulator::kFloat16,
                                Accumulator::kFp8_14Bit, Accumulator::kFloat64}) {
    EXPECT_EQ(sum_error(acc, 64, 64, 0.0, 0.0, 0.0), 0.0);
  }
}

TEST(ChainLength, SequentialLanesAndOnline) {
  EXPECT_EQ(chain_length(100, 1), 100.0);
  EXPECT_EQ(chain_length(100, 8), 16.0);             // ceil(100 / 8) + log2 8
  EXPECT_EQ(online_chain_length(100, 0, 1), 107.0);  // one block: 100 + 3 + 4
  EXPECT_EQ(online_chain_length(100, 16, 5), 57.0);  // 16 + 3 * 7 + 4 * 5
  EXPECT_EQ(online_chain_length(10, 64, 1), 17.0);   // 10 + 3 + 4
}

TEST(OperandError, IndependentAndCoherent) {
  // min(2 * 10, 4 sqrt 2 * 1 + 2 * 2) = 9.657
  EXPECT_THAT(operand_error(0x1p-11, -2.0, 10.0, 1.0), Near(0x1p-11 * (4 * std::sqrt(2.0) + 4)));
  // min(2 * 10, 4 sqrt 2 * 1 + 2 * 10) = 20: constant operands round alike.
  EXPECT_THAT(operand_error(0x1p-11, 10.0, 10.0, 1.0), Near(0x1p-11 * 20));
}

TEST(Rounding, OfAValueThatIsAlreadyOff) {
  // 2^-8 (3 + 1) + 2 * 2^-126
  EXPECT_THAT(rounding(ElementType::kBFloat16, -3.0, 1.0), Near(0x1p-6));
  // 2^-11 * 2 + 2 * 2^-25
  EXPECT_THAT(rounding(ElementType::kFloat16, 2.0, 0.0), Near(0x1p-10 + 0x1p-24));
  // a subnormal: the floor alone
  EXPECT_THAT(rounding(ElementType::kFloat16, 0.0, 0.0), Near(0x1p-24));
  EXPECT_EQ(rounding(ElementType::kFloat32, 0.0, 0.0), 0x1p-125);
}

TEST(Rounding, RoundoffOfBfloat16IsTwoToTheMinus8) {
  // 1 + 2^-8 lies halfway between 1 and 1 + 2^-7: the error of rounding it is 2^-8, not 2^-9.
  EXPECT_EQ(unit_roundoff(ElementType::kBFloat16), 0x1p-8);
  EXPECT_EQ(round_to(ElementType::kBFloat16, 1.0 + 0x1p-8), 1.0);
}

TEST(Propagate, TakesTheLeastOfThree) {
  // linear 3; 4 * sqrt(4) + |-1| = 9; 6 * sqrt(0.01) + 1.8 * |0.5| = 1.5
  const Propagated p = propagate({3.0, 4.0, -1.0, 0.01, 0.5});
  EXPECT_THAT(p.allowance, Near(1.5));
  EXPECT_THAT(p.variance, Near(0.01 + 0.25));
  EXPECT_THAT(propagate({0.5, 4.0, -1.0, 0.01, 0.5}).allowance, Near(0.5));
  // 4 * sqrt(0.01) + 0.1 = 0.5
  EXPECT_THAT(propagate({3.0, 0.01, 0.1, 0.01, 0.5}).allowance, Near(0.5));
}

TEST(Allowance, PartsAddUp) { EXPECT_EQ((Allowance{1, 2, 4, 8, 16, 32}.total()), 63.0); }

}  // namespace
}  // namespace attn::harness
