// Activations as codes: one case worked out by hand per format, in exact arithmetic, and one per
// place where the layer as it runs rounds otherwise.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "reference/stages/output.h"
#include "reference/stages/product.h"
#include "reference/stages/projection.h"
#include "reference/stages/projection_input.h"

namespace attn::reference {
namespace {

constexpr ElementType kF32 = ElementType::kFloat32;
constexpr ElementType kE4M3 = ElementType::kFloat8E4M3FN;
const Rounding kExact(Mode::kExact);
const Rounding kFaithful(Mode::kFaithful);

/// One head of one channel on `hidden` ones, float32, with quantised weights still to be given.
Case make_case(QuantEncoding encoding, ActivationQuant activation, std::int64_t hidden) {
  Case c;
  c.config.num_attention_heads = 1;
  c.config.num_key_value_heads = 1;
  c.config.head_dim = 1;
  c.config.head_dim_v = 1;
  c.config.hidden_size = hidden;
  c.config.quant = QuantConfig{};
  c.config.quant->q_proj = c.config.quant->k_proj = encoding;
  c.config.quant->v_proj = c.config.quant->o_proj = encoding;
  c.config.quant->activation = activation;
  return c;
}

Matrix row(const std::vector<double>& values) {
  return Eigen::Map<const Matrix>(values.data(), 1, std::ssize(values));
}

/// The first values of a row of `columns`, zeros after them.
Matrix padded(const std::vector<double>& values, std::int64_t columns) {
  Matrix x = Matrix::Zero(1, columns);
  x.leftCols(std::ssize(values)) = row(values);
  return x;
}

Tensor stored(ElementType type, Shape shape, const std::vector<double>& values) {
  return Tensor::from_values(type, std::move(shape), values);
}

void give_scalar(Case& c, const std::string& name, double value) {
  c.weights[name] = Tensor::scalar(kF32, value);
}

void give_input_scales(Case& c, double q, double k, double v, double o) {
  give_scalar(c, "q_proj.input_scale", q);
  give_scalar(c, "k_proj.input_scale", k);
  give_scalar(c, "v_proj.input_scale", v);
  give_scalar(c, "o_proj.input_scale", o);
}

// ---- float8.

TEST(Float8Activations, PerTokenScaleIsTheLargestMagnitudeOver448) {
  const Case c = make_case(QuantEncoding::kFloat8E4M3FN, ActivationQuant::kToken, 4);
  Matrix x(2, 4);
  x << 3.5, -7.0, 0.1, 0.0,  //
      0.0, 0.0, 0.0, 0.0;
  const ProjectionInput input = projection_input(c, Projection::kQ, x, kExact);
  // 7 / 448 = 2^-6. 0.1 * 64 = 6.4 lies between 6 and 6.5. A row of zeros has scale 0 and codes 0.
  Matrix code(2, 4);
  code << 224, -448, 6.5, 0, 0, 0, 0, 0;
  EXPECT_EQ(input.code, code);
  EXPECT_EQ(input.scale.row(0), Matrix::Constant(1, 4, 0x1p-6));
  EXPECT_EQ(input.value(), code * 0x1p-6);
}

TEST(Float8Activations, TheScaleStopsAt1200) {
  const Case c = make_case(QuantEncoding::kFloat8E4M3FN, ActivationQuant::kToken, 2);
  const ProjectionInput input = projection_input(c, Projection::kQ, row({2400, 1}), kExact);
  // 1200 / 448 = 2.678...; 2400 / 2.678 = 896 saturates; 1 / 2.678 = 0.3733 = 11.95 / 32 becomes
  // 12 / 32.
  EXPECT_EQ(input.scale(0, 0), static_cast<double>(1200.0F / 448.0F));
  EXPECT_EQ(input.code, row({448, 0.375}));
}

TEST(Float8Activations, StaticScaleIsTheLargestOfThree) {
  Case c = make_case(QuantEncoding::kFloat8E4M3FN, ActivationQuant::kStatic, 3);
  give_input_scales(c, 0.5, 2.0, 1.0, 0.25);
  for (const Projection p : {Projection::kQ, Projection::kK, Projection::kV}) {
    // 1.1 / 2 = 0.55 = 8.8 / 16 becomes 9 / 16; 1000 / 2 saturates.
    const ProjectionInput input = projection_input(c, p, row({3.0, 1.1, -1000.0}), kExact);
    EXPECT_EQ(input.code, row({1.5, 0.5625, -448.0}));
    EXPECT_EQ(input.scale, row({2.0, 2.0, 2.0}));
  }
  EXPECT_EQ(projection_input(c, Projection::kO, row({3.0}), kExact).value(), row({3.0}));
  EXPECT_EQ(projection_input(c, Projection::kO, row({3.0}), kExact).code, row({12.0}));
}

TEST(Float8Activations, BlocksOf128ColumnsHaveTheirOwnScale) {
  const Case c = make_case(QuantEncoding::kFloat8E4M3FN, ActivationQuant::kBlock, 130);
  Matrix x = Matrix::Zero(1, 130);
  x(0, 0) = 448.0;
  x(0, 127) = 0.001;
  x(0, 128) = 0.4375;  // 448 * 2^-10
  x(0, 129) = -0.001;  // * 2^10 = -1.024, to -1
  const ProjectionInput input = projection_input(c, Projection::kV, x, kExact);
  EXPECT_EQ(input.scale(0, 127), 1.0);
  EXPECT_EQ(input.code(0, 127), 0x1p-9);  // half of it, 0.5 * 2^-9 < 0.001, lies below
  EXPECT_EQ(input.scale(0, 128), 0x1p-10);
  EXPECT_EQ(input.code(0, 128), 448.0);
  EXPECT_EQ(input.code(0, 129), -1.0);
}

TEST(Float8Activations, EachDeviceQuantisesItsSliceOfTheOutputsInput) {
  Case c = make_case(QuantEncoding::kFloat8E4M3FN, ActivationQuant::kToken, 8);
  c.config.variant = Variant::kTensorParallel;
  c.config.num_devices = 2;
  c.config.num_attention_heads = 4;
  c.config.num_key_value_heads = 2;
  const Matrix x = row({448, 1, 0.4375, 0});  // two heads of one channel each
  EXPECT_EQ(projection_input(c, Projection::kO, x, kExact).scale, row({1, 1, 0x1p-10, 0x1p-10}));
  c.config.variant = Variant::kAttentionWithRope;
  EXPECT_EQ(projection_input(c, Projection::kO, x, kExact).scale, row({1, 1, 1, 1}));
}

TEST(Float8Activations, BlocksStartAtTheSlice) {
  Case c = make_case(QuantEncoding::kFloat8E4M3FN, ActivationQuant::kBlock, 8);
  c.config.variant = Variant::kTensorParallel;
  c.config.num_devices = 2;
  c.config.num_attention_heads = 4;
  c.config.num_key_value_heads = 2;
  c.config.head_dim = c.config.head_dim_v = 96;
  // Slices of 2 * 96 columns: 128 + 64, twice.
  EXPECT_EQ(activation_blocks(c.config, Projection::kO, 384),
            (std::vector<Range>{{0, 128}, {128, 64}, {192, 128}, {320, 64}}));
  EXPECT_EQ(activation_blocks(c.config, Projection::kQ, 384),
            (std::vector<Range>{{0, 128}, {128, 128}, {256, 128}}));
  // Four devices on two kv heads: one head each.
  c.config.num_devices = 4;
  c.config.kv_head_replication = true;
  EXPECT_EQ(activation_blocks(c.config, Projection::kO, 384),
            (std::vector<Range>{{0, 96}, {96, 96}, {192, 96}, {288, 96}}));
}

TEST(Float8Activations, NaNReachesItsRowAndNoOther) {
  const Case c = make_case(QuantEncoding::kFloat8E4M3FN, ActivationQuant::kToken, 2);
  Matrix x(2, 2);
  x << std::numeric_limits<double>::quiet_NaN(), 1.0, 1.0, 2.0;
  const Matrix value = projection_input(c, Projection::kQ, x, kExact).value();
  EXPECT_TRUE(std::isnan(value(0, 0)));
  EXPECT_TRUE(value.row(1).allFinite());
}

TEST(FaithfulFloat8, StaticScaleMultipliesByItsReciprocal) {
  Case c = make_case(QuantEncoding::kFloat8E4M3FN, ActivationQuant::kStatic, 1);
  give_input_scales(c, 7, 7, 7, 7);
  // 10.9375 / 7 = 1.5625, the middle of 1.5 and 1.625, goes to 1.5 (even). float32(1/7) is 4.5e-8
  // above 1/7, the product 1.5625001, and that goes up.
  EXPECT_EQ(projection_input(c, Projection::kQ, row({10.9375}), kExact).code, row({1.5}));
  EXPECT_EQ(projection_input(c, Projection::kQ, row({10.9375}), kFaithful).code, row({1.625}));
}

TEST(FaithfulFloat8, TokenScaleMultipliesByItsReciprocal) {
  const Case c = make_case(QuantEncoding::kFloat8E4M3FN, ActivationQuant::kToken, 2);
  // s = float32(9/448) lies below 9/448, so 0.421875 / s = 21.00000028, above the middle of 20 and
  // 22, goes up. In float32 the product with float32(1/s) is 21, and goes to 20 (even).
  EXPECT_EQ(projection_input(c, Projection::kQ, row({9, 0.421875}), kExact).code, row({448, 22}));
  EXPECT_EQ(projection_input(c, Projection::kQ, row({9, 0.421875}), kFaithful).code,
            row({448, 20}));
}

TEST(FaithfulFloat8, ARowWhoseReciprocalIsNotFiniteIsZero) {
  const Case c = make_case(QuantEncoding::kFloat8E4M3FN, ActivationQuant::kToken, 1);
  // 2^-135 / 448 = 2^-143.8, a float32 subnormal whose reciprocal is beyond float32.
  EXPECT_EQ(projection_input(c, Projection::kQ, row({0x1p-135}), kFaithful).code, row({0.0}));
  EXPECT_NE(projection_input(c, Projection::kQ, row({0x1p-135}), kExact).code, row({0.0}));
}

TEST(FaithfulFloat8, RequantisationMultipliesByTheReciprocalOfTheLargestScale) {
  Case c = make_case(QuantEncoding::kFloat8E4M3FN, ActivationQuant::kStatic, 1);
  give_input_scales(c, 1, 1, 1, 1);
  for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
    c.weights[std::string(name) + ".weight"] = stored(kE4M3, {1, 1}, {1.75});
  }
  give_scalar(c, "q_proj.weight_scale", 25);
  give_scalar(c, "k_proj.weight_scale", 28);
  give_scalar(c, "v_proj.weight_scale", 1);
  // q: 1.75 * 25 / 28 = 1.5625, the middle of 1.5 and 1.625, goes to 1.5 (even). float32(1/28) is
  // 4.5e-8 above 1/28, the product 1.5625001, and that goes up. Times the largest scale, 28.
  EXPECT_EQ(projection_weight(c, Projection::kQ, kExact)(0, 0), 1.5 * 28);
  EXPECT_EQ(projection_weight(c, Projection::kQ, kFaithful)(0, 0), 1.625 * 28);
  // k keeps its codes. v: 1.75 / 28 = 0.0625.
  EXPECT_EQ(projection_weight(c, Projection::kK, kExact)(0, 0), 1.75 * 28);
  EXPECT_EQ(projection_weight(c, Projection::kV, kExact)(0, 0), 0.0625 * 28);
}

TEST(FaithfulFloat8, StaticScalesAreMultipliedFirst) {
  Case c = make_case(QuantEncoding::kFloat8E4M3FN, ActivationQuant::kStatic, 1);
  const double s = 1.0 + 0x1p-12;
  give_input_scales(c, 1, 1, 1, s);
  give_scalar(c, "o_proj.weight_scale", s);
  c.weights["o_proj.weight"] = stored(kE4M3, {1, 1}, {3.0});
  // s_x s_w = 1 + 2^-11 + 2^-24, a float32 tie that goes to 1 + 2^-11. x = s has code 1, so y = 3 *
  // that. Without the rounding, 3 * 2^-24 more would round up to one more last bit, 2^-22.
  const Matrix x = row({s});
  EXPECT_EQ(project_output(c, x, kFaithful)(0, 0), 3.0 + 3 * 0x1p-11);
  EXPECT_EQ(project_output(c, x, kExact)(0, 0), 3 * s * s);
  EXPECT_EQ(round_to(kF32, 3 * s * s), 3.0 + 3 * 0x1p-11 + 0x1p-22);
}

TEST(FaithfulFloat8, DynamicScalesMultiplyFromLeftToRight) {
  Case c = make_case(QuantEncoding::kFloat8E4M3FN, ActivationQuant::kToken, 3);
  c.config.quant->weight_granularity = WeightGranularity::kRowwise;
  c.weights["q_proj.weight"] = stored(kE4M3, {1, 3}, {1, 1, 1});
  c.weights["q_proj.weight_scale"] = stored(kF32, {1, 1}, {7});
  // Codes 448 with s_x = float32(1/448), a little above 1/448: the sum is 1344, and 1344 s_x rounds
  // to the float32 after 3, 3 + 2^-22. Seven times that, 21 + 7 * 2^-22, lies nearest to 21 +
  // 2^-19.
  const float s_x = 1.0F / 448.0F;
  const float left = 1344.0F * s_x;
  const float y = left * 7.0F;
  const Matrix x = row({1, 1, 1});
  EXPECT_EQ(project(c, Projection::kQ, x, kFaithful)(0, 0), static_cast<double>(y));
  EXPECT_EQ(y, 21.0F + 0x1p-19F);
  // The product of the scales first gives 21.
  EXPECT_EQ(1344.0F * (s_x * 7.0F), 21.0F);
}

TEST(FaithfulFloat8, BlocksAreScaledOneByOne) {
  Case c = make_case(QuantEncoding::kFloat8E4M3FN, ActivationQuant::kBlock, 256);
  c.config.quant->weight_granularity = WeightGranularity::kBlock;
  c.weights["q_proj.weight"] = stored(kE4M3, {1, 256}, std::vector<double>(256, 1.0));
  c.weights["q_proj.weight_scale"] = stored(kF32, {1, 2}, {7, 3});
  Matrix x = Matrix::Zero(1, 256);
  x(0, 0) = x(0, 1) = x(0, 2) = 1.0;       // the case above: 21 + 2^-19
  x(0, 128) = x(0, 129) = 448.0 * 0x1p-7;  // s_x = 2^-7, sum 896: 896 * 2^-7 * 3 = 21
  EXPECT_EQ(multiply(c, Projection::kQ, x, kFaithful)(0, 0), 42.0 + 0x1p-19);
}

// ---- NVFP4.

TEST(Nvfp4Activations, BlocksOf16WithAnE4m3Scale) {
  Case c = make_case(QuantEncoding::kNvfp4, ActivationQuant::kBlock, 32);
  give_input_scales(c, 0.25, 0.5, 0.125, 1.0);
  Matrix x = Matrix::Zero(1, 32);
  // Block 0: g = 12, 12 / 6 / 0.5 = 4 = s. Codes of x / (4 * 0.5): 6; 2.5, a tie, to 2; 3.5, a tie,
  // to 4; 0.25, a tie, to 0; 0.3 to 0.5; -4.5 to -4; 0.8 to 1 (the middle is 0.75).
  x.leftCols(7) = row({12, 5, 7, 0.5, 0.6, -9, 1.6});
  // Block 1: g = 13, 13 / 6 / 0.5 = 4.333 to 4.5 (steps of 0.5), so 13 / 2.25 = 5.78 to 6.
  x(0, 16) = 13;
  const ProjectionInput input = projection_input(c, Projection::kK, x, kExact);
  EXPECT_EQ(input.code.leftCols(8), row({6, 2, 4, 0, 0.5, -4, 1, 0}));
  EXPECT_EQ(input.scale(0, 15), 2.0);
  EXPECT_EQ(input.code(0, 16), 6.0);
  EXPECT_EQ(input.scale(0, 31), 2.25);
  EXPECT_EQ(input.value()(0, 16), 13.5);
}

TEST(Nvfp4Activations, ABlockWhoseScaleRoundsToZeroIsZero) {
  Case c = make_case(QuantEncoding::kNvfp4, ActivationQuant::kBlock, 16);
  give_input_scales(c, 0.5, 0.5, 0.5, 0.5);
  // 0.0029 / 6 / 0.5 = 0.00097 lies below half of the smallest e4m3 value, 2^-10 = 0.00098.
  const ProjectionInput tiny =
      projection_input(c, Projection::kQ, padded({0.0029, -0.001}, 16), kExact);
  EXPECT_EQ(tiny.value(), Matrix::Zero(1, 16));
  // 0.003 / 3 = 0.001 goes to 2^-9: 0.003 / 2^-10 = 3.07 to 3.
  const ProjectionInput small = projection_input(c, Projection::kQ, padded({0.003}, 16), kExact);
  EXPECT_EQ(small.value()(0, 0), 3 * 0x1p-10);
}

TEST(FaithfulNvfp4, ScalesAndCodesMultiplyByReciprocals) {
  Case c = make_case(QuantEncoding::kNvfp4, ActivationQuant::kBlock, 16);
  give_input_scales(c, 7, 7, 7, 7);
  // 65.625 / 6 / 7 = 1.5625, a tie, to 1.5; in float32 with reciprocals 1.5625001, to 1.625.
  const Matrix x = padded({65.625}, 16);
  EXPECT_EQ(projection_input(c, Projection::kQ, x, kExact).scale(0, 0), 1.5 * 7);
  EXPECT_EQ(projection_input(c, Projection::kQ, x, kFaithful).scale(0, 0), 1.625 * 7);
  // g = 90: 90 / 6 / 3 = 5 = s. 37.5 / 15 = 2.5, a tie, to 2; in float32 with reciprocals
  // 2.5000002, to 3.
  give_input_scales(c, 3, 3, 3, 3);
  const Matrix y = padded({90, 37.5}, 16);
  EXPECT_EQ(projection_input(c, Projection::kQ, y, kExact).code.leftCols(2), row({6, 2}));
  EXPECT_EQ(projection_input(c, Projection::kQ, y, kFaithful).code.leftCols(2), row({6, 3}));
}

TEST(FaithfulNvfp4, GlobalScalesAreMultipliedFirstAndEachProjectionHasItsOwn) {
  Case c = make_case(QuantEncoding::kNvfp4, ActivationQuant::kBlock, 16);
  const double s = 1.0 + 0x1p-12;
  give_input_scales(c, s, 1, 1, 1);
  for (const char* name : {"q_proj", "k_proj"}) {
    // Column 0: 1.5 (code 3) under block scale 2.
    c.weights[std::string(name) + ".weight"] =
        stored(ElementType::kUInt8, {1, 8}, {3, 0, 0, 0, 0, 0, 0, 0});
    c.weights[std::string(name) + ".weight_scale"] = stored(kE4M3, {1, 1}, {2});
  }
  give_scalar(c, "q_proj.weight_scale_2", s);
  give_scalar(c, "k_proj.weight_scale_2", 0.5);
  // x = 6 s: block scale 1, code 6. y = 18 * (s s), s s = 1 + 2^-11 + 2^-24 in float32 1 + 2^-11.
  const Matrix x = padded({6 * s}, 16);
  EXPECT_EQ(multiply(c, Projection::kQ, x, kFaithful)(0, 0), 18 * (1 + 0x1p-11));
  EXPECT_EQ(multiply(c, Projection::kQ, x, kExact)(0, 0), 18 * s * s);
  EXPECT_EQ(multiply(c, Projection::kK, x, kExact)(0, 0), 18 * s * 0.5);
}

// ---- MXFP4, MXFP8.

TEST(MxActivations, TheScaleIsThePowerOfTwoThatLetsNothingSaturate) {
  const Case c = make_case(QuantEncoding::kMxfp4, ActivationQuant::kBlock, 96);
  Matrix x = Matrix::Zero(1, 96);
  x.leftCols(3) = row({6, -2.5, 0.75});       // 6 / 6 = 2^0: 6; a tie, to -2; a tie, to 1
  x.middleCols(32, 3) = row({7, 6.1, -0.4});  // 7 / 6 = 1.17, to 2: 3.5 to 4; 3.05 to 3; -0.2
  x(0, 64) = 0x1p-140;                        // far below 2^-127
  const ProjectionInput input = projection_input(c, Projection::kQ, x, kExact);
  EXPECT_EQ(input.scale(0, 31), 1.0);
  EXPECT_EQ(input.code.leftCols(3), row({6, -2, 1}));
  EXPECT_EQ(input.scale(0, 32), 2.0);
  EXPECT_EQ(input.code.middleCols(32, 3), row({4, 3, 0}));
  EXPECT_EQ(input.scale(0, 64), 0x1p-127);
  EXPECT_EQ(input.code(0, 64), 0.0);
  // Powers of two: the layer as it runs does the same.
  EXPECT_EQ(projection_input(c, Projection::kQ, x, kFaithful).value(), input.value());
}

TEST(MxActivations, E4m3CodesUseTheWholeRange) {
  const Case c = make_case(QuantEncoding::kMxfp8, ActivationQuant::kBlock, 64);
  Matrix x = Matrix::Zero(1, 64);
  x.leftCols(2) = row({448, 100});  // scale 1; 100 between 96 and 104, a tie, to 96 (even)
  x.middleCols(32, 2) =
      row({449, -1.3});  // 449 / 448 above 1, so 2: 224.5 to 224; -0.65 = -10.4/16
  const ProjectionInput input = projection_input(c, Projection::kV, x, kExact);
  EXPECT_EQ(input.value().leftCols(2), row({448, 96}));
  EXPECT_EQ(input.scale(0, 33), 2.0);
  EXPECT_EQ(input.code.middleCols(32, 2), row({224, -0.625}));
}

TEST(MxActivations, MultiplyDecodedWeights) {
  Case c = make_case(QuantEncoding::kMxfp4, ActivationQuant::kBlock, 32);
  std::vector<double> nibbles(16, 0.0);
  nibbles[0] = 0x5f;  // column 0: -6, column 1: 3
  c.weights["q_proj.weight"] = stored(ElementType::kUInt8, {1, 16}, nibbles);
  c.weights["q_proj.weight_scale"] = stored(ElementType::kFloat8E8M0FNU, {1, 1}, {0.25});
  // x = (7, 4): scale 2, codes (4, 2), values (8, 4): 0.25 (-48 + 12) = -9.
  for (const Rounding r : {kExact, kFaithful}) {
    EXPECT_EQ(multiply(c, Projection::kQ, padded({7, 4}, 32), r)(0, 0), -9.0);
  }
}

// ---- GGUF, int8.

TEST(Int8Activations, RoundToEvenWithOneScalePerBlock) {
  const Case small = make_case(QuantEncoding::kQ8_0, ActivationQuant::kInt8, 64);
  Matrix x = Matrix::Zero(1, 64);
  x.leftCols(5) = row({127, 0.5, 1.5, 2.5, -126.5});  // multiplier 1: ties go to even
  x.middleCols(32, 2) = row({-4, 1});                 // 31.75: -127; 31.75 to 32
  const ProjectionInput input = projection_input(small, Projection::kQ, x, kExact);
  EXPECT_EQ(input.code.leftCols(5), row({127, 0, 2, 2, -126}));
  EXPECT_EQ(input.scale(0, 0), 1.0);
  EXPECT_EQ(input.code.middleCols(32, 2), row({-127, 32}));
  EXPECT_EQ(input.scale(0, 32), 4.0 / 127.0);
  EXPECT_EQ(projection_input(small, Projection::kQ, Matrix::Zero(1, 64), kExact).value(),
            Matrix::Zero(1, 64));

  // K blocks share one over 256 columns.
  const Case large = make_case(QuantEncoding::kQ4_K, ActivationQuant::kInt8, 256);
  Matrix y = Matrix::Zero(1, 256);
  y(0, 0) = 127;
  y(0, 255) = 0.4;
  EXPECT_EQ(projection_input(large, Projection::kQ, y, kExact).code(0, 255), 0.0);
}

TEST(FaithfulInt8, MultiplierIsFloat32) {
  const Case c = make_case(QuantEncoding::kQ8_0, ActivationQuant::kInt8, 32);
  // 3 / 127 and 127 / 3 are no float32 numbers.
  const float multiplier = 127.0F / 3.0F;
  const float scale = 3.0F / 127.0F;
  const ProjectionInput input = projection_input(c, Projection::kQ, padded({3, 1}, 32), kFaithful);
  EXPECT_EQ(input.scale(0, 0), static_cast<double>(scale));
  EXPECT_NE(input.scale(0, 0), 3.0 / 127.0);
  EXPECT_EQ(input.code(0, 1), std::nearbyint(multiplier));
}

/// One row of `blocks` Q8_0 blocks with d (a float16 code) and the given first codes.
Tensor q8_0_row(const std::vector<std::vector<int>>& blocks, int d) {
  Tensor t(ElementType::kUInt8, {1, 34 * std::ssize(blocks)});
  for (std::int64_t b = 0; b < std::ssize(blocks); ++b) {
    t.set_code(34 * b, static_cast<std::uint64_t>(d & 0xff));
    t.set_code(34 * b + 1, static_cast<std::uint64_t>(d >> 8));
    const std::vector<int>& codes = blocks[static_cast<std::size_t>(b)];
    for (std::int64_t i = 0; i < std::ssize(codes); ++i) {
      t.set_code(34 * b + 2 + i, static_cast<std::uint64_t>(codes[static_cast<std::size_t>(i)]));
    }
  }
  return t;
}

TEST(FaithfulInt8, BlocksAddUpInFloat32) {
  Case c = make_case(QuantEncoding::kQ8_0, ActivationQuant::kInt8, 64);
  constexpr int kD = 0x2e66;  // 0.0999755859375
  c.weights["q_proj.weight"] = q8_0_row({{5, 3}, {7}}, kD);
  Matrix x = Matrix::Zero(1, 64);
  x.leftCols(2) = row({3, 1});  // codes 127, 42
  x(0, 32) = -0.7;              // code -127
  const float d = 0.0999755859375F;
  const float s0 = 3.0F / 127.0F;
  const float s1 = 0.7F / 127.0F;
  float y = 0.0F + (5 * 127 + 3 * 42) * s0 * d;
  y = y + (7 * -127) * s1 * d;
  const double got =
      multiply(c, Projection::kQ,
               x.unaryExpr([](double v) { return static_cast<double>(static_cast<float>(v)); }),
               kFaithful)(0, 0);
  EXPECT_EQ(got, static_cast<double>(y));
  // Summed in double and rounded once it is another float32.
  const double once =
      static_cast<double>(d) * (761 * static_cast<double>(s0) - 889 * static_cast<double>(s1));
  EXPECT_NE(round_to(kF32, once), got);
  EXPECT_NEAR(once, got, 4 * 0x1p-24 * 2.0);  // four roundings of numbers below 2
}

TEST(FaithfulInt8, KBlocksRoundTheirTwoSumsAndTheirDifference) {
  Case c = make_case(QuantEncoding::kQ4_K, ActivationQuant::kInt8, 256);
  // d = 0.0999755859375, dmin = 0.5, all scales and minima 63, all codes 15.
  std::vector<double> bytes(144, 0xff);
  bytes[0] = 0x66;
  bytes[1] = 0x2e;
  bytes[2] = 0x00;
  bytes[3] = 0x38;
  c.weights["q_proj.weight"] = stored(ElementType::kUInt8, {1, 144}, bytes);
  Matrix x = Matrix::Constant(1, 256, 3.0);  // code 127
  x(0, 9) = 1.0;                             // code 42
  // Sum of the codes of x: 255 * 127 + 42 = 32427. Times 63 * 15 it is odd and above 2^24, so
  // float32 rounds it; its product with d, the other one, their difference and the last product
  // round again.
  const float products = static_cast<float>(63 * 15 * 32427);
  const float minima = static_cast<float>(63 * 32427);
  const float t = products * 0.0999755859375F - minima * 0.5F;
  const float s = 3.0F / 127.0F;
  const float y = t * s;
  EXPECT_EQ(multiply(c, Projection::kQ, x, kFaithful)(0, 0), static_cast<double>(y));
  const double once =
      (63.0 * 15 * 32427 * 0.0999755859375 - 63.0 * 32427 * 0.5) * static_cast<double>(s);
  EXPECT_NE(round_to(kF32, once), static_cast<double>(y));
}

TEST(Int8Activations, NaNReachesItsRow) {
  Case c = make_case(QuantEncoding::kQ8_0, ActivationQuant::kInt8, 32);
  c.weights["q_proj.weight"] = q8_0_row({{1}}, 0x3c00);
  const Matrix x = padded({1.0, std::numeric_limits<double>::quiet_NaN()}, 32);
  for (const Rounding r : {kExact, kFaithful}) {
    EXPECT_TRUE(std::isnan(multiply(c, Projection::kQ, x, r)(0, 0)));
  }
}

}  // namespace
}  // namespace attn::reference
