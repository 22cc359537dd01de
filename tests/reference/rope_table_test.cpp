// Frequencies and tables against values worked out by hand from the published formulas, at factors
// that reach every branch. n = 8 channels and theta = 10000 make the plain frequencies 1, 0.1,
// 0.01, 0.001.

#include "reference/stages/rope_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "reference/stages/rope_scaling.h"

namespace attn::reference {
namespace {

const Rounding kExact(Mode::kExact);
const Rounding kFaithful(Mode::kFaithful);

AttentionConfig eight_channels(RopeScalingType type) {
  AttentionConfig config;
  config.head_dim = 8;
  config.rope.theta = 10000.0;
  config.rope.scaling.type = type;
  return config;
}

/// The hand values have 16 digits (2^-53 relative), and each is a chain of at most eight float64
/// operations, none of which cancels.
void expect_frequencies(const std::vector<double>& got, const std::vector<double>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t j = 0; j < want.size(); ++j) {
    EXPECT_NEAR(got[j], want[j], 8 * 0x1p-52 * want[j]) << "pair " << j;
  }
}

void expect_same_table(const Matrix& a, const Matrix& b) {
  ASSERT_EQ(a.rows(), b.rows());
  ASSERT_EQ(a.cols(), b.cols());
  EXPECT_TRUE((a.array() == b.array()).all());
}

TEST(RopeFrequencies, DefaultIsPowersOfTheta) {
  const RopeFrequencies f = rope_frequencies(eight_channels(RopeScalingType::kDefault), kExact);
  expect_frequencies(f.below, {1.0, 0.1, 0.01, 0.001});
  EXPECT_EQ(f.attention_factor, 1.0);
}

TEST(RopeFrequencies, PartialRotaryCountsRotaryChannels) {
  AttentionConfig config = eight_channels(RopeScalingType::kDefault);
  config.head_dim = 32;
  config.rope.rotary_dim = 8;
  expect_frequencies(rope_frequencies(config, kExact).below, {1.0, 0.1, 0.01, 0.001});
}

TEST(RopeFrequencies, LinearDividesByTheFactor) {
  AttentionConfig config = eight_channels(RopeScalingType::kLinear);
  config.rope.scaling.factor = 4.0;
  expect_frequencies(rope_frequencies(config, kExact).below, {0.25, 0.025, 0.0025, 0.00025});
}

TEST(RopeFrequencies, DynamicLeavesTheTableAlone) {
  AttentionConfig config = eight_channels(RopeScalingType::kDynamic);
  config.rope.scaling.factor = 4.0;
  const Matrix longer = rope_table(config, 300, kExact);
  const Matrix plain = rope_table(eight_channels(RopeScalingType::kDefault), 200, kExact);
  expect_same_table(longer.topRows(200), plain);
}

TEST(RopeFrequencies, Llama3KeepsBlendsAndSlows) {
  // Wavelengths 2 pi {1, 10, 100, 1000} = 6.3, 62.8, 628.3, 6283.2 against original/high = 256 and
  // original/low = 1024: two kept, one blended with u = (1024/628.3185 - 1) / (4 - 1) =
  // 0.2099155390870028 to (1 - u) 0.01/8 + u 0.01, one divided by 8.
  AttentionConfig config = eight_channels(RopeScalingType::kLlama3);
  config.rope.scaling.factor = 8.0;
  config.rope.scaling.low_freq_factor = 1.0;
  config.rope.scaling.high_freq_factor = 4.0;
  config.rope.scaling.original_max_position_embeddings = 1024;
  const RopeFrequencies f = rope_frequencies(config, kExact);
  expect_frequencies(f.below, {1.0, 0.1, 0.003086760967011274, 0.001 / 8.0});
  EXPECT_EQ(f.attention_factor, 1.0);
}

AttentionConfig yarn(double factor, double beta_fast, double beta_slow, std::int64_t original) {
  AttentionConfig config = eight_channels(RopeScalingType::kYarn);
  config.rope.scaling.factor = factor;
  config.rope.scaling.beta_fast = beta_fast;
  config.rope.scaling.beta_slow = beta_slow;
  config.rope.scaling.original_max_position_embeddings = original;
  return config;
}

TEST(RopeFrequencies, YarnRampsBetweenTheCorrectionPairs) {
  // d(r) = 8 ln(1024 / (2 pi r)) / (2 ln 10000): d(32) = 0.707 and d(1) = 2.212, so the ramp runs
  // from floor 0 to trunc + 1 = 3: 0, 1/3, 2/3, 1. With factor 4 pair j gets inv (ramp/4 + 1 -
  // ramp), that is 1, 0.75, 0.5, 0.25 of the plain ones; cos and sin times 0.1 ln 4 + 1.
  const RopeFrequencies f = rope_frequencies(yarn(4.0, 32.0, 1.0, 1024), kExact);
  expect_frequencies(f.below, {1.0, 0.075, 0.005, 0.00025});
  EXPECT_NEAR(f.attention_factor, 1.138629436111989, 2 * 0x1p-52);
}

TEST(RopeFrequencies, YarnClampsTheLastPairToTheChannels) {
  // d(0.00001) = 7.2, trunc + 1 = 8, clamped to n - 1 = 7: ramp j/7.
  const RopeFrequencies f = rope_frequencies(yarn(2.0, 32.0, 0.00001, 1024), kExact);
  expect_frequencies(f.below,
                     {1.0, 0.1 * (13.0 / 14.0), 0.01 * (12.0 / 14.0), 0.001 * (11.0 / 14.0)});
}

TEST(RopeFrequencies, YarnClampsTheFirstPairToZero) {
  // d(32) = -2.3, clamped to 0; d(0.5) = -0.497, trunc + 1 = 1: pair 0 kept, the others divided.
  const RopeFrequencies f = rope_frequencies(yarn(2.0, 32.0, 0.5, 1), kExact);
  expect_frequencies(f.below, {1.0, 0.05, 0.005, 0.0005});
}

TEST(RopeFrequencies, YarnWithoutWidthIsAStep) {
  // d(32) = -2.3 clamped to 0, d(8) = -1.7, trunc + 1 = 0: no width, replaced by 0.001.
  const RopeFrequencies f = rope_frequencies(yarn(2.0, 32.0, 8.0, 1), kExact);
  expect_frequencies(f.below, {1.0, 0.05, 0.005, 0.0005});
}

TEST(RopeFrequencies, YarnThatDoesNotStretchHasFactorOne) {
  EXPECT_EQ(rope_frequencies(yarn(1.0, 32.0, 1.0, 1024), kExact).attention_factor, 1.0);
  EXPECT_EQ(rope_frequencies(yarn(0.5, 32.0, 1.0, 1024), kExact).attention_factor, 1.0);
}

TEST(RopeFrequencies, DeepseekYarnTakesThetasIntegerPart) {
  // theta 2.9, original 64: the correction uses ln 2: d(8) = 4 ln(64/(16 pi))/ln 2 = 1.394, floor
  // 1; d(4) = 5.394, trunc + 1 = 6 (ln 2.9 would give 0 and 4). Ramp (j - 1)/5: 0, 0, 0.2, 0.4.
  // Powers 2.9^(-j/4) = 1, 0.7663..., 0.58722..., 0.44999...; factor 2 takes half of the ramp off
  // each.
  AttentionConfig config = yarn(2.0, 8.0, 4.0, 64);
  config.rope.scaling.type = RopeScalingType::kDeepseekYarn;
  config.rope.theta = 2.9;
  expect_frequencies(rope_frequencies(config, kExact).below,
                     {1.0, 0.7663029554391028, 0.5284981975632331, 0.3599908717661728});
}

TEST(RopeFrequencies, DeepseekYarnMultipliesByTheRatioOfItsMscales) {
  const auto factor = [](double f, double mscale, double mscale_all_dim) {
    AttentionConfig config = yarn(f, 32.0, 1.0, 1024);
    config.rope.scaling.type = RopeScalingType::kDeepseekYarn;
    config.rope.scaling.mscale = mscale;
    config.rope.scaling.mscale_all_dim = mscale_all_dim;
    return rope_frequencies(config, kExact).attention_factor;
  };
  // (0.1 ln 40 + 1) / (0.05 ln 40 + 1) and (0.0707 ln 2 + 1) / (0.13 ln 2 + 1).
  EXPECT_NEAR(factor(40.0, 1.0, 0.5), 1.1557219901962608, 4 * 0x1p-52);
  EXPECT_NEAR(factor(2.0, 0.707, 1.3), 0.9622940249328434, 4 * 0x1p-52);
  EXPECT_EQ(factor(40.0, 0.7, 0.7), 1.0);
  EXPECT_EQ(factor(1.0, 1.0, 0.5), 1.0);
  EXPECT_EQ(factor(0.5, 1.0, 0.5), 1.0);
}

AttentionConfig longrope(LongropeConvention convention) {
  AttentionConfig config = eight_channels(RopeScalingType::kLongrope);
  config.rope.scaling.short_factor = {1.0, 1.25, 2.0, 2.5};
  config.rope.scaling.long_factor = {1.0, 2.0, 4.0, 8.0};
  config.rope.scaling.original_max_position_embeddings = 64;
  config.rope.scaling.max_position_embeddings = 512;
  config.rope.scaling.convention = convention;
  return config;
}

const std::vector<double> kShort{1.0, 0.08, 0.005, 0.0004};
const std::vector<double> kLong{1.0, 0.05, 0.0025, 0.000125};

TEST(RopeFrequencies, LongropeMaxChangesListAtTheOriginalLength) {
  for (const bool use_long : {false, true}) {  // which this convention does not look at
    AttentionConfig config = longrope(LongropeConvention::kMax);
    config.rope.scaling.use_long = use_long;
    const RopeFrequencies f = rope_frequencies(config, kExact);
    expect_frequencies(f.inv_freq(0), kShort);
    expect_frequencies(f.inv_freq(63), kShort);
    expect_frequencies(f.inv_freq(64), kLong);
    EXPECT_EQ(f.attention_factor, 1.0);
  }
}

TEST(RopeTable, LongropeMaxHasBothLists) {
  const Matrix table = rope_table(longrope(LongropeConvention::kMax), 66, kExact);
  // Pair 3: 63 * 0.0004 below the boundary, 64 * 0.000125 and 65 * 0.000125 beyond.
  EXPECT_EQ(table(63, 7), static_cast<double>(static_cast<float>(std::sin(0.0252))));
  EXPECT_EQ(table(64, 7), static_cast<double>(static_cast<float>(std::sin(0.008))));
  EXPECT_EQ(table(65, 6), static_cast<double>(static_cast<float>(std::cos(0.008125))));
}

TEST(RopeFrequencies, LongropeTransformersTakesOneList) {
  AttentionConfig config = longrope(LongropeConvention::kTransformers);
  for (const bool use_long : {false, true}) {
    config.rope.scaling.use_long = use_long;
    const RopeFrequencies f = rope_frequencies(config, kExact);
    expect_frequencies(f.inv_freq(63), use_long ? kLong : kShort);
    expect_frequencies(f.inv_freq(64), use_long ? kLong : kShort);
    // sqrt(1 + ln(512/64) / ln 64) = sqrt(1.5)
    EXPECT_NEAR(f.attention_factor, 1.224744871391589, 2 * 0x1p-52);
  }
  for (const std::int64_t max : {64, 32}) {
    config.rope.scaling.max_position_embeddings = max;
    EXPECT_EQ(rope_frequencies(config, kExact).attention_factor, 1.0);
  }
}

TEST(RopeTable, RowIsCosAndSinOfEachPair) {
  const Matrix table = rope_table(eight_channels(RopeScalingType::kDefault), 4, kExact);
  ASSERT_EQ(table.rows(), 4);
  ASSERT_EQ(table.cols(), 8);
  for (int j = 0; j < 4; ++j) {
    EXPECT_EQ(table(0, 2 * j), 1.0);
    EXPECT_EQ(table(0, 2 * j + 1), 0.0);
  }
  // cos 3 and sin 3, to float32
  EXPECT_EQ(table(3, 0), static_cast<double>(-0.98999249660044542F));
  EXPECT_EQ(table(3, 1), static_cast<double>(0.14112000805986721F));
}

TEST(RopeTable, AttentionFactorIsMultipliedBeforeTheOneRounding) {
  // Position 3, pair 1: angle 3 * 0.075 = 0.225, times 1.138629436111989.
  const Matrix table = rope_table(yarn(4.0, 32.0, 1.0, 1024), 4, kExact);
  EXPECT_EQ(table(3, 2), 1.1099293231964111);
  EXPECT_EQ(table(3, 3), 0.25403547286987305);
}

TEST(RopeTable, FaithfulAnglesAreFloat32) {
  // Position 100003, pair 1: float32(0.1) = 0.100000001490116, times 100003 = 10000.300149; the
  // float32s there are 2^-10 apart: 10000.2998046875. The exact angle is 10000.3.
  const AttentionConfig config = eight_channels(RopeScalingType::kDefault);
  const Matrix faithful = rope_table(config, 100004, kFaithful);
  EXPECT_EQ(faithful(100003, 2), -0.8194255232810974);
  EXPECT_EQ(faithful(100003, 3), -0.5731856822967529);
  const Matrix exact = rope_table(config, 100004, kExact);
  EXPECT_EQ(exact(100003, 2), -0.8193135261535645);
  EXPECT_EQ(exact(100003, 3), -0.5733457207679749);
}

TEST(RopeTable, FaithfulScalingsStayWithinFloat32OfTheExactOnes) {
  for (const AttentionConfig& config :
       {yarn(4.0, 32.0, 1.0, 1024), longrope(LongropeConvention::kMax),
        longrope(LongropeConvention::kTransformers), eight_channels(RopeScalingType::kLlama3)}) {
    AttentionConfig with_length = config;
    with_length.rope.scaling.original_max_position_embeddings = 64;
    const RopeFrequencies exact = rope_frequencies(with_length, kExact);
    const RopeFrequencies faithful = rope_frequencies(with_length, kFaithful);
    for (std::size_t j = 0; j < exact.below.size(); ++j) {
      // At most eight float32 roundings, none before a cancellation (1 - ramp is exact to one of
      // them).
      EXPECT_NEAR(faithful.below[j], exact.below[j], 8 * 0x1p-24 * exact.below[0]);
      EXPECT_EQ(faithful.below[j], round_to(ElementType::kFloat32, faithful.below[j]));
    }
  }
}

}  // namespace
}  // namespace attn::reference
