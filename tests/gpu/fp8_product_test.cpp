// Which float8 products go to cuBLASLt, and how their weights lie there: host code, tested without
// a device.
#include "gpu/layers/fp8_product.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace attn::gpu {
namespace {

constexpr const char* kStatic =
    R"({"encoding":"float8_e4m3fn","activation":"static","weight_granularity":"tensor"})";
constexpr const char* kToken =
    R"({"encoding":"float8_e4m3fn","activation":"token","weight_granularity":"rowwise"})";
constexpr const char* kTokenOneScale =
    R"({"encoding":"float8_e4m3fn","activation":"token","weight_granularity":"tensor"})";
constexpr const char* kTokenBlocks =
    R"({"encoding":"float8_e4m3fn","activation":"token","weight_granularity":"block",)"
    R"("block":[128,128]})";
constexpr const char* kBlocks =
    R"({"encoding":"float8_e4m3fn","activation":"block","weight_granularity":"block",)"
    R"("block":[128,128]})";
constexpr const char* kWeightsAlone =
    R"({"encoding":"float8_e4m3fn","weight_granularity":"rowwise"})";

struct Geometry {
  int hidden = 4096;
  int heads = 32;
  int kv_heads = 8;
  int head_dim = 128;
  int devices = 1;
};

AttentionConfig config_of(const char* quant, const Geometry& g = {}, const std::string& more = "") {
  const std::string variant = g.devices > 1 ? R"("variant":"tensor_parallel","num_devices":)" +
                                                  std::to_string(g.devices) + ","
                                            : "";
  return parse_config("{" + variant + more + R"("dtype":"bfloat16","hidden_size":)" +
                      std::to_string(g.hidden) + R"(,"num_attention_heads":)" +
                      std::to_string(g.heads) + R"(,"num_key_value_heads":)" +
                      std::to_string(g.kv_heads) + R"(,"head_dim":)" + std::to_string(g.head_dim) +
                      R"(,"quant":)" + quant + R"(,"kv_cache":{"dtype":"bfloat16"}})");
}

/// "qo": both products; "-": neither.
std::string served(const AttentionConfig& config, Fp8Products products) {
  const std::string served = std::string(fp8_library_serves_qkv(config, products) ? "q" : "") +
                             (fp8_library_serves_o(config, products) ? "o" : "");
  return served.empty() ? "-" : served;
}

TEST(Fp8Dispatch, ServesEveryScalingThatCublasLtHas) {
  for (const char* quant : {kStatic, kToken, kTokenOneScale, kBlocks}) {
    EXPECT_EQ(served(config_of(quant), Fp8Products::kAuto), "qo") << quant;
    EXPECT_EQ(served(config_of(quant), Fp8Products::kOwn), "-") << quant;
  }
  for (const char* quant : {kTokenBlocks, kWeightsAlone, R"({"encoding":"nvfp4"})",
                            R"({"encoding":"mxfp8","activation":"block"})"}) {
    EXPECT_EQ(served(config_of(quant), Fp8Products::kAuto), "-") << quant;
    EXPECT_EQ(served(config_of(quant), Fp8Products::kLibrary), "-") << quant;
  }
}

TEST(Fp8Dispatch, LeavesSmallWeightsToOurKernels) {
  const AttentionConfig small = config_of(kToken, {1024, 8, 2, 64});  // 768 and 512 x 1024
  EXPECT_EQ(served(small, Fp8Products::kAuto), "-");
  EXPECT_EQ(served(small, Fp8Products::kLibrary), "qo");
  EXPECT_EQ(served(config_of(kToken, {1024, 8, 4, 64}), Fp8Products::kAuto), "q");  // 2^20
}

TEST(Fp8Dispatch, WantsWidthsAndHeightsInSixteens) {
  // q, k and v of 24 rows; o with an input of 8 columns.
  EXPECT_EQ(served(config_of(kToken, {64, 1, 1, 8}), Fp8Products::kLibrary), "-");
  EXPECT_EQ(served(config_of(kToken, {64, 2, 1, 8}), Fp8Products::kLibrary), "qo");
  EXPECT_EQ(served(config_of(kToken, {72, 2, 1, 8}), Fp8Products::kLibrary), "-");
  // Blocks are not filled up.
  EXPECT_EQ(served(config_of(kBlocks, {192, 2, 1, 128}), Fp8Products::kLibrary), "o");
}

TEST(Fp8Dispatch, DevicesThatScaleTheirOwnSlicesKeepThem) {
  const Geometry two{4096, 32, 8, 128, 2};
  EXPECT_EQ(served(config_of(kToken, two), Fp8Products::kAuto), "q");
  EXPECT_EQ(served(config_of(kStatic, two), Fp8Products::kAuto), "qo");
  EXPECT_EQ(served(config_of(kBlocks, two), Fp8Products::kAuto), "qo");
  // Slices that start within a block of 128.
  EXPECT_EQ(served(config_of(kBlocks, {4096, 6, 2, 64, 2}), Fp8Products::kLibrary), "q");
}

TEST(Fp8Dispatch, TheCacheAloneHasNoOutputProduct) {
  EXPECT_EQ(served(config_of(kToken, {}, R"("entry_point":"materialize_kv_from_hidden",)"),
                   Fp8Products::kAuto),
            "q");
}

TEST(Fp8Dispatch, TakesRowsThatOurKernelsDoNotReadAsFast) {
  GemmArguments shape;
  shape.n = 6144;
  shape.k = 4096;
  shape.out_type = Type::kBFloat16;
  const auto takes = [&](std::int64_t m, Fp8Products products) {
    shape.m = m;
    return takes_fp8_library(shape, products);
  };
  EXPECT_FALSE(takes(16, Fp8Products::kAuto));
  EXPECT_TRUE(takes(17, Fp8Products::kAuto));
  EXPECT_TRUE(takes(1, Fp8Products::kLibrary));
  EXPECT_FALSE(takes(0, Fp8Products::kLibrary));
  EXPECT_FALSE(takes(4096, Fp8Products::kOwn));

  const float bias = 1.0f;
  shape.bias = &bias;  // of a type that it does not add
  EXPECT_FALSE(takes(4096, Fp8Products::kAuto));
  shape.typed_bias = &bias;
  EXPECT_TRUE(takes(4096, Fp8Products::kAuto));
  shape.out_type = Type::kFloat32;
  EXPECT_FALSE(takes(4096, Fp8Products::kAuto));
  shape.bias = nullptr;
  EXPECT_TRUE(takes(4096, Fp8Products::kAuto));
  shape.y_stride = 8192;  // rows with gaps
  EXPECT_FALSE(takes(4096, Fp8Products::kAuto));
}

/// Codes 0, 1, 2, ... and the scale of row r, group g: 1 + r + 1000 g.
CodedRows rows_of(std::int64_t n, std::int64_t k, std::int64_t group, CodeScaling scaling) {
  CodedRows w;
  w.kind = CodeKind::kE4m3;
  w.scaling = scaling;
  w.columns = k;
  w.group = group;
  for (std::int64_t i = 0; i < n * k; ++i) w.codes.push_back(static_cast<std::uint8_t>(i % 127));
  for (std::int64_t row = 0; row < n; ++row) {
    for (std::int64_t g = 0; g < k / group; ++g) {
      w.inner.push_back(static_cast<float>(1 + row + 1000 * g));
    }
  }
  return w;
}

TEST(PlainFp8, KeepsCodesInOrderAndScalesOfRows) {
  const CodedRows w = rows_of(32, 48, 48, CodeScaling::kRow);
  const auto plain = plain_fp8(w, {ActivationFormat::kFp8, 0, 0.0f});
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->scaling, Fp8Scaling::kRows);
  EXPECT_EQ(plain->codes, w.codes);
  EXPECT_EQ(plain->scales, w.inner);
}

TEST(PlainFp8, OneScaleIsMultipliedByThatOfTheActivations) {
  CodedRows w = rows_of(32, 48, 48, CodeScaling::kRow);
  const InputFormat input{ActivationFormat::kFp8Static, 0, 0.25f};
  EXPECT_FALSE(plain_fp8(w, input));  // scales differ
  std::ranges::fill(w.inner, 3.0f);
  const auto plain = plain_fp8(w, input);
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->scaling, Fp8Scaling::kTensor);
  EXPECT_EQ(plain->scale, 0.75f);
  EXPECT_TRUE(plain->scales.empty());
  // Scales whose product is no normal number are multiplied one after the other.
  std::ranges::fill(w.inner, std::ldexp(1.0f, -100));
  EXPECT_FALSE(plain_fp8(w, {ActivationFormat::kFp8Static, 0, std::ldexp(1.0f, -30)}));
}

TEST(PlainFp8, ScalesOfBlocksLieAlongKInFours) {
  CodedRows w = rows_of(144, 256, 128, CodeScaling::kGroup);  // a block and an eighth, two wide
  for (std::size_t i = 0; i < w.inner.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i) / 2;
    w.inner[i] = static_cast<float>(row / 128 * 10 + static_cast<std::int64_t>(i) % 2);
  }
  const auto plain = plain_fp8(w, {ActivationFormat::kFp8, 128, 0.0f});
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->scaling, Fp8Scaling::kBlocks);
  EXPECT_EQ(plain->scales, (std::vector<float>{0, 1, 0, 0, 10, 11, 0, 0}));
}

TEST(PlainFp8, BlocksOfOtherHeightsHaveAScaleARow) {
  const CodedRows w = rows_of(144, 256, 128, CodeScaling::kGroup);
  const auto plain = plain_fp8(w, {ActivationFormat::kFp8, 128, 0.0f});
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->scaling, Fp8Scaling::kRowBlocks);
  ASSERT_EQ(plain->scales.size(), 288U);
  for (std::size_t row = 0; row < 144; ++row) {
    EXPECT_EQ(plain->scales[row], static_cast<float>(1 + row));
    EXPECT_EQ(plain->scales[144 + row], static_cast<float>(1001 + row));
  }
}

TEST(PlainFp8, RefusesWhatCublasLtDoesNotScaleSo) {
  const InputFormat token{ActivationFormat::kFp8, 0, 0.0f};
  const InputFormat block{ActivationFormat::kFp8, 128, 0.0f};
  EXPECT_FALSE(plain_fp8(rows_of(24, 48, 48, CodeScaling::kRow), token));    // 24 rows
  EXPECT_FALSE(plain_fp8(rows_of(32, 40, 40, CodeScaling::kRow), token));    // 40 columns
  EXPECT_FALSE(plain_fp8(rows_of(32, 48, 48, CodeScaling::kGroup), token));  // slices of devices
  EXPECT_FALSE(plain_fp8(rows_of(32, 256, 64, CodeScaling::kGroup), block));
  EXPECT_FALSE(plain_fp8(rows_of(32, 256, 256, CodeScaling::kRow), block));
  EXPECT_FALSE(plain_fp8(rows_of(32, 192, 128, CodeScaling::kGroup), block));  // a block and a half
  EXPECT_FALSE(
      plain_fp8(rows_of(32, 256, 32, CodeScaling::kGroup), {ActivationFormat::kMxfp8, 32, 0.0f}));
  EXPECT_FALSE(plain_fp8(rows_of(32, 48, 48, CodeScaling::kRow), {}));
  CodedRows bytes = rows_of(32, 48, 48, CodeScaling::kRow);
  bytes.kind = CodeKind::kI8;
  EXPECT_FALSE(plain_fp8(bytes, token));
}

}  // namespace
}  // namespace attn::gpu
