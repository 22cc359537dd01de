// The cpu backend's activation codes: rows worked out by hand, and choices at ties.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "harness/backends/cpu/activations.h"
#include "harness/backends/cpu/small_floats.h"
#include "reference/core/philox.h"

namespace attn::harness::cpu {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

Case quantised_case(QuantEncoding encoding, ActivationQuant activation) {
  Case c;
  QuantConfig quant;
  quant.q_proj = quant.k_proj = quant.v_proj = quant.o_proj = encoding;
  quant.activation = activation;
  c.config.quant = quant;
  return c;
}

void set_input_scales(Case& c, double q, double k, double v, double o) {
  c.weights["q_proj.input_scale"] = Tensor::scalar(ElementType::kFloat32, q);
  c.weights["k_proj.input_scale"] = Tensor::scalar(ElementType::kFloat32, k);
  c.weights["v_proj.input_scale"] = Tensor::scalar(ElementType::kFloat32, v);
  c.weights["o_proj.input_scale"] = Tensor::scalar(ElementType::kFloat32, o);
}

std::vector<float> quantised(const Case& c, Matrix matrix, const std::vector<float>& row) {
  Rows x(1, static_cast<std::int64_t>(row.size()));
  std::copy(row.begin(), row.end(), x.row(0));
  quantise_activations(c, matrix, x);
  return {x.row(0), x.row(0) + x.width};
}

/// x followed by zeros.
std::vector<float> widened(std::vector<float> x, std::size_t width) {
  x.resize(width, 0.0f);
  return x;
}

using Row = std::vector<float>;

/// s = 2 for q, k and v: 0.3 / 2 = 0.15 is 9.6 steps of 2^-6, so 10 of them; 1000 / 2 saturates.
/// s = 0.5 for o: 0.3 / 0.5 = 0.6 is 9.6 steps of 2^-4.
TEST(CpuActivations, StaticFp8SharesTheLargestScaleOfQKAndV) {
  Case c = quantised_case(QuantEncoding::kFloat8E4M3FN, ActivationQuant::kStatic);
  set_input_scales(c, 0.25, 2.0, 1.0, 0.5);
  for (const Matrix matrix : {Matrix::kQ, Matrix::kK, Matrix::kV}) {
    EXPECT_EQ(quantised(c, matrix, {1000.0f, 3.0f, 0.3f, -0.3f, 0.0f, -kInf}),
              (Row{896.0f, 3.0f, 0.3125f, -0.3125f, 0.0f, -896.0f}));
  }
  EXPECT_EQ(quantised(c, Matrix::kO, {1000.0f, 0.3f}), (Row{224.0f, 0.3125f}));
  EXPECT_TRUE(std::isnan(quantised(c, Matrix::kQ, {kNaN})[0]));
}

/// 896 / 448 = 2: 0.7 / 2 = 0.35 is 11.2 steps of 2^-5, so 0.34375, and 0.6875 again. The second
/// row has a scale of its own.
TEST(CpuActivations, TokenFp8HasOneScaleARow) {
  const Case c = quantised_case(QuantEncoding::kFloat8E4M3FN, ActivationQuant::kToken);
  Rows x(2, 3);
  std::copy_n(Row{-896.0f, 0.7f, 1.0f}.begin(), 3, x.row(0));
  std::copy_n(Row{448.0f, 0.7f, 17.0f}.begin(), 3, x.row(1));
  quantise_activations(c, Matrix::kK, x);
  EXPECT_EQ(Row(x.row(0), x.row(0) + 3), (Row{-896.0f, 0.6875f, 1.0f}));
  // 0.7 is 11.2 steps of 2^-4; 17 lies between 16 and 18, and 16 is even.
  EXPECT_EQ(Row(x.row(1), x.row(1) + 3), (Row{448.0f, 0.6875f, 16.0f}));
  // However wide the row is.
  Row wide(300, 0.0f);
  wide[0] = 0.7f;
  wide[299] = 896.0f;
  EXPECT_EQ(quantised(c, Matrix::kK, wide)[0], 0.6875f);
}

/// The largest value counts as 1200 at most: s = float(1200 / 448), and everything beyond
/// saturates.
TEST(CpuActivations, DynamicFp8CapsTheLargestValue) {
  const Case c = quantised_case(QuantEncoding::kFloat8E4M3FN, ActivationQuant::kToken);
  const float s = 1200.0f / 448.0f;
  EXPECT_EQ(quantised(c, Matrix::kO, {2400.0f, 1200.0f, -5000.0f, s}),
            (Row{448.0f * s, 448.0f * s, -448.0f * s, s}));
  EXPECT_EQ(quantised(c, Matrix::kO, {kInf, 0.0f}), (Row{448.0f * s, 0.0f}));
  EXPECT_EQ(quantised(c, Matrix::kO, {0.0f, -0.0f, 0.0f}), (Row{0.0f, 0.0f, 0.0f}));
  // A scale that underflows to 0.
  EXPECT_EQ(quantised(c, Matrix::kO, {0x1p-149f, 0.0f}), (Row{0.0f, 0.0f}));
}

TEST(CpuActivations, BlockFp8HasAScaleFor128ColumnsAndOneForTheRest) {
  const Case c = quantised_case(QuantEncoding::kFloat8E4M3FN, ActivationQuant::kBlock);
  Row x(130, 0.0f);
  x[0] = 896.0f;
  x[127] = 0.7f;
  x[128] = 0.7f;
  x[129] = 448.0f;
  const Row y = quantised(c, Matrix::kQ, x);
  EXPECT_EQ(y[127], 0.6875f);  // as in the row above, s = 2
  EXPECT_EQ(y[128], 0.6875f);  // s = 1
  x[129] = 0.7f;               // s = float(0.7 / 448): 0.7 is its own code 448
  const float s = 0.7f / 448.0f;
  const Row again = quantised(c, Matrix::kQ, x);
  EXPECT_EQ(again[127], 0.6875f);
  EXPECT_EQ(again[128], 448.0f * s);
}

/// a = 127: codes are x itself, ties to even. a = 254: steps of 2.
TEST(CpuActivations, Int8By32ColumnsAndBy256) {
  const Case c = quantised_case(QuantEncoding::kQ8_0, ActivationQuant::kInt8);
  const Row first = widened({127.0f, 0.5f, 1.5f, 2.5f, -2.5f, 0.49f}, 32);
  const Row want = widened({127.0f, 0.0f, 2.0f, 2.0f, -2.0f, 0.0f}, 32);
  EXPECT_EQ(quantised(c, Matrix::kK, first), want);

  Row both = first;
  const Row second = widened({-254.0f, 3.0f, 5.0f, 0.9f}, 32);
  both.insert(both.end(), second.begin(), second.end());
  Row want_both = want;
  const Row want_second = widened({-254.0f, 4.0f, 4.0f, 0.0f}, 32);  // 1.5 and 2.5 steps
  want_both.insert(want_both.end(), want_second.begin(), want_second.end());
  EXPECT_EQ(quantised(c, Matrix::kK, both), want_both);

  // One block of 256: the second half has the steps of the first's 254.
  const Case k_quant = quantised_case(QuantEncoding::kQ4_K, ActivationQuant::kInt8);
  Row wide(512, 0.0f);
  wide[0] = 254.0f;
  wide[200] = 3.0f;
  wide[256] = 127.0f;
  wide[300] = 3.0f;
  const Row y = quantised(k_quant, Matrix::kV, wide);
  EXPECT_EQ(y[200], 4.0f);
  EXPECT_EQ(y[300], 3.0f);
  EXPECT_EQ(quantised(c, Matrix::kK, Row(32, 0.0f)), Row(32, 0.0f));
}

TEST(CpuActivations, EachProjectionHasTheBlocksOfItsEncoding) {
  Case c = quantised_case(QuantEncoding::kQ4_0, ActivationQuant::kInt8);
  c.config.quant->k_proj = QuantEncoding::kQ6_K;
  Row x(256, 0.0f);
  x[0] = 254.0f;
  x[40] = 127.0f;
  x[41] = 3.0f;
  EXPECT_EQ(quantised(c, Matrix::kQ, x)[41], 3.0f);
  EXPECT_EQ(quantised(c, Matrix::kK, x)[41], 4.0f);
}

/// input_scale 0.25 (the largest of q, k, v). Block 0: amax 6, s = e4m3(6 / 6 / 0.25) = 4, steps of
/// 1: ties go to even codes (5 to 4, 2.5 to 2, 0.25 to 0, 0.75 to 1). Block 1: amax 7, 7 / 6 / 0.25
/// = 4.67 is 9.33 steps of 0.5, so s = 4.5, and steps of 1.125: 7 saturates to 6, 1 is 0.89, so 1.
TEST(CpuActivations, Nvfp4ByHand) {
  Case c = quantised_case(QuantEncoding::kNvfp4, ActivationQuant::kBlock);
  set_input_scales(c, 0.25, 0.125, 0.0625, 0.125);
  Row x = widened({6.0f, 5.0f, 2.5f, 0.25f, 0.75f, -3.5f, 0.26f}, 16);
  Row want = widened({6.0f, 4.0f, 2.0f, 0.0f, 1.0f, -4.0f, 0.5f}, 16);
  const Row x1 = widened({7.0f, 1.0f, -7.0f}, 16);
  const Row want1 = widened({6.75f, 1.125f, -6.75f}, 16);
  x.insert(x.end(), x1.begin(), x1.end());
  want.insert(want.end(), want1.begin(), want1.end());
  for (const Matrix matrix : {Matrix::kQ, Matrix::kK, Matrix::kV}) {
    EXPECT_EQ(quantised(c, matrix, x), want);
  }
  // o_proj: 6 / 6 / 0.125 = 8, the same steps.
  EXPECT_EQ(quantised(c, Matrix::kO, Row(x.begin(), x.begin() + 16)),
            Row(want.begin(), want.begin() + 16));
  // A block whose scale rounds to 0, and one of zeros.
  EXPECT_EQ(quantised(c, Matrix::kQ, Row(16, 1e-4f)), Row(16, 0.0f));
  EXPECT_EQ(quantised(c, Matrix::kQ, Row(16, 0.0f)), Row(16, 0.0f));
}

/// The exponent is ceil(log2(amax / 6)): 6 gives 0, a little more gives 1 and 3 gives -1.
TEST(CpuActivations, Mxfp4ByHand) {
  const Case c = quantised_case(QuantEncoding::kMxfp4, ActivationQuant::kBlock);
  EXPECT_EQ(quantised(c, Matrix::kQ, widened({6.0f, 0.5f, 5.0f}, 32)),
            widened({6.0f, 0.5f, 4.0f}, 32));
  // Steps of 2: 6.5 / 2 = 3.25 is nearest to 3, 0.5 / 2 ties to 0, 1 / 2 stays.
  EXPECT_EQ(quantised(c, Matrix::kQ, widened({-6.5f, 0.5f, 1.0f}, 32)),
            widened({-6.0f, 0.0f, 1.0f}, 32));
  EXPECT_EQ(quantised(c, Matrix::kQ, widened({std::nextafter(6.0f, 7.0f), 0.5f, 1.0f}, 32)),
            widened({6.0f, 0.0f, 1.0f}, 32));
  // Steps of 1/2.
  EXPECT_EQ(quantised(c, Matrix::kQ, widened({3.0f, 0.25f, 0.3f}, 32)),
            widened({3.0f, 0.25f, 0.25f}, 32));
  // The second block has an exponent of its own.
  Row two = widened({6.0f}, 64);
  two[32] = 0.375f;
  EXPECT_EQ(quantised(c, Matrix::kQ, two)[32], 0.375f);
  // 2^-127 is the smallest scale: 2^-129 is a quarter of it, which ties to 0.
  EXPECT_EQ(quantised(c, Matrix::kQ, Row(32, 0x1p-128f)), Row(32, 0x1p-128f));
  EXPECT_EQ(quantised(c, Matrix::kQ, Row(32, 0x1p-129f)), Row(32, 0.0f));
  EXPECT_EQ(quantised(c, Matrix::kQ, Row(32, 0.0f)), Row(32, 0.0f));
}

/// 448 gives exponent 0, 449 gives 1: 449 / 2 = 224.5 is 14.03 steps of 16, 17 / 2 = 8.5 stays 8.5
/// (steps of 1: ties to 8).
TEST(CpuActivations, Mxfp8ByHand) {
  const Case c = quantised_case(QuantEncoding::kMxfp8, ActivationQuant::kBlock);
  EXPECT_EQ(quantised(c, Matrix::kO, widened({448.0f, 17.0f, 0.3f}, 32)),
            widened({448.0f, 16.0f, 0.3125f}, 32));
  EXPECT_EQ(quantised(c, Matrix::kO, widened({449.0f, 17.0f, 0.3f}, 32)),
            widened({448.0f, 16.0f, 0.3125f}, 32));
  // 2^-9 is the smallest code: below half of it (2^-10) nothing is left; twice as much with 449.
  EXPECT_EQ(quantised(c, Matrix::kO, widened({448.0f, 0x1.8p-10f}, 32))[1], 0x1p-9f);
  EXPECT_EQ(quantised(c, Matrix::kO, widened({449.0f, 0x1.8p-10f}, 32))[1], 0.0f);
}

/// Close to a tie the quotient must not be rounded twice: x = float(m s) with m in the middle of
/// two codes. x / s in float32 is m itself, whose even neighbour is right only where x is.
TEST(CpuActivations, CodesAreThoseOfTheExactQuotient) {
  Case c = quantised_case(QuantEncoding::kFloat8E4M3FN, ActivationQuant::kStatic);
  const RandomStream random(1, "scales");
  int decided_below_float32 = 0;
  for (std::uint64_t i = 0; i < 2000; ++i) {
    const auto s = static_cast<float>(1.0 + random.uniform(i));
    const double low = 1.0 + 0.125 * static_cast<double>(random.below(i, 7));
    const double middle = low + 0.0625;
    const auto x = static_cast<float>(middle * static_cast<double>(s));
    // 5 and 24 bits: the product is exact in double.
    const double excess = static_cast<double>(x) - middle * static_cast<double>(s);
    if (excess == 0.0) continue;
    if (static_cast<double>(x / s) == middle) ++decided_below_float32;
    set_input_scales(c, 1.0, 1.0, 1.0, static_cast<double>(s));
    const double code = excess > 0.0 ? low + 0.125 : low;
    ASSERT_EQ(quantised(c, Matrix::kO, {x})[0], static_cast<float>(code * static_cast<double>(s)));
  }
  EXPECT_GT(decided_below_float32, 100);
}

}  // namespace
}  // namespace attn::harness::cpu
