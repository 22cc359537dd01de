#include "harness/generate/encode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "reference/formats/gguf.h"

namespace attn::harness {
namespace {

/// Stored bytes as numbers.
std::vector<int> numbers(const std::vector<std::byte>& bytes) {
  std::vector<int> out;
  for (const std::byte byte : bytes) out.push_back(std::to_integer<int>(byte));
  return out;
}

std::vector<int> slice(const std::vector<int>& bytes, std::size_t first, std::size_t count) {
  return {bytes.begin() + static_cast<std::ptrdiff_t>(first),
          bytes.begin() + static_cast<std::ptrdiff_t>(first + count)};
}

/// Keeps what a job refers to.
struct Bench {
  QuantConfig quant;
  ScaleKinds scales;
  LayerWeights weights;

  void run(QuantEncoding encoding, const DenseMatrix& w,
           void (*encoder)(const EncodeJob&, LayerWeights&), const std::string& name = "q_proj") {
    encoder({w, quant, encoding, name, 7, 4.0, scales}, weights);
  }
  const Tensor& operator[](const std::string& suffix) const {
    return weights.at("q_proj." + suffix);
  }
};

DenseMatrix random_matrix(std::int64_t rows, std::int64_t columns) {
  DenseMatrix w{rows, columns, std::vector<double>(static_cast<std::size_t>(rows * columns))};
  RandomStream(3, "encode_test").normals(0, w.values);
  return w;
}

constexpr int kHalfOne[] = {0x00, 0x3c};  // float16 1

// ---- GGUF, worked out by hand from the block layouts of ggml.

/// -8 is the element of largest magnitude, so d = -8 / -8 = 1 and code = value + 8: 0 .. 15 in the
/// low nibbles of elements 0 .. 15, 15 .. 0 in the high ones of elements 16 .. 31.
TEST(GgufBlocks, Q4_0ByHand) {
  std::vector<double> values;
  for (int j = 0; j < 16; ++j) values.push_back(j - 8);
  for (int j = 0; j < 16; ++j) values.push_back(7 - j);
  std::vector<int> wanted(std::begin(kHalfOne), std::end(kHalfOne));
  for (int j = 0; j < 16; ++j) wanted.push_back(j + 16 * (15 - j));
  EXPECT_EQ(numbers(encode_gguf_blocks(QuantEncoding::kQ4_0, values)), wanted);
}

/// -128 is the element of largest magnitude: d = 1, codes are the values. +128 first makes d = -1.
TEST(GgufBlocks, Q8_0ByHand) {
  std::vector<double> values(32, 0.0);
  values[0] = -128;
  values[1] = 127;
  values[2] = -1;
  values[31] = 3;
  std::vector<int> wanted(34, 0);
  wanted[1] = 0x3c;
  wanted[2] = 0x80;
  wanted[3] = 0x7f;
  wanted[4] = 0xff;
  wanted[33] = 3;
  EXPECT_EQ(numbers(encode_gguf_blocks(QuantEncoding::kQ8_0, values)), wanted);

  for (double& value : values) value = -value;
  wanted[1] = 0xbc;  // -1
  EXPECT_EQ(numbers(encode_gguf_blocks(QuantEncoding::kQ8_0, values)), wanted);
}

/// Eight groups that reach from -M_j to top * S_j - M_j, so that d = dmin = 1, whose first elements
/// have the codes 0, top, j and, in groups 0, 2 and 3, the highest bit alone.
std::vector<double> super_block(const std::array<int, 8>& scales, const std::array<int, 8>& minima,
                                int top) {
  std::vector<double> values;
  for (std::size_t j = 0; j < 8; ++j) {
    std::vector<double> group(32, static_cast<double>(-minima[j]));
    group[1] = scales[j] * top - minima[j];
    group[2] = scales[j] * static_cast<int>(j) - minima[j];
    if (j == 0 || j == 2 || j == 3) group[3] = scales[j] * (top + 1) / 2 - minima[j];
    values.insert(values.end(), group.begin(), group.end());
  }
  return values;
}

constexpr std::array<int, 8> kScales = {63, 1, 32, 5, 63, 16, 1, 42};
constexpr std::array<int, 8> kMinima = {1, 63, 0, 21, 63, 1, 48, 15};
// Bytes 0 .. 3: S_j | (S_{j+4} >> 4) << 6; 4 .. 7: M_j | (M_{j+4} >> 4) << 6;
// 8 .. 11: (S_{j+4} & 15) | (M_{j+4} & 15) << 4.
const std::vector<int> kPacked = {63 | 3 << 6,  1 | 1 << 6, 32,         5 | 2 << 6,
                                  1 | 3 << 6,   63,         0 | 3 << 6, 21,
                                  15 | 15 << 4, 0 | 1 << 4, 1 | 0 << 4, 10 | 15 << 4};

TEST(GgufBlocks, Q4_KByHand) {
  const std::vector<int> bytes =
      numbers(encode_gguf_blocks(QuantEncoding::kQ4_K, super_block(kScales, kMinima, 15)));
  ASSERT_EQ(bytes.size(), 144U);
  EXPECT_EQ(slice(bytes, 0, 4), (std::vector<int>{0x00, 0x3c, 0x00, 0x3c}));
  EXPECT_EQ(slice(bytes, 4, 12), kPacked);
  constexpr std::array<int, 4> kHighBit = {0x08, 0x88, 0x00, 0x00};  // 8 in groups 0; 2, 3
  for (std::size_t chunk = 0; chunk < 4; ++chunk) {  // groups 2 chunk (low) and 2 chunk + 1 (high)
    const int j = static_cast<int>(2 * chunk);
    EXPECT_EQ(slice(bytes, 16 + 32 * chunk, 4),
              (std::vector<int>{0x00, 0xff, j | (j + 1) << 4, kHighBit[chunk]}));
  }
}

TEST(GgufBlocks, Q5_KByHand) {
  const std::vector<int> bytes =
      numbers(encode_gguf_blocks(QuantEncoding::kQ5_K, super_block(kScales, kMinima, 31)));
  ASSERT_EQ(bytes.size(), 176U);
  EXPECT_EQ(slice(bytes, 0, 4), (std::vector<int>{0x00, 0x3c, 0x00, 0x3c}));
  EXPECT_EQ(slice(bytes, 4, 12), kPacked);
  // Code 31 of element 1 sets the fifth bit in all eight groups, codes 0 .. 7 in none; code 16 of
  // element 3 in groups 0, 2 and 3.
  EXPECT_EQ(slice(bytes, 16, 4), (std::vector<int>{0x00, 0xff, 0x00, 0x0d}));
  for (std::size_t chunk = 0; chunk < 4; ++chunk) {
    const int j = static_cast<int>(2 * chunk);
    EXPECT_EQ(slice(bytes, 48 + 32 * chunk, 4),
              (std::vector<int>{0x00, 0xff, j | (j + 1) << 4, 0x00}));
  }
}

/// Sixteen groups with the scales -128, 127, 126, ...: the element of largest magnitude, -32 times
/// the scale, has code 0; code g + 40 follows, 4 more in each group's third place; the rest are 32.
TEST(GgufBlocks, Q6_KByHand) {
  std::vector<int> scales{-128};
  for (int g = 1; g < 16; ++g) scales.push_back(g % 2 == 0 ? -9 * g : 9 * g - 8);
  scales[15] = 127;
  std::vector<double> values;
  for (int g = 0; g < 16; ++g) {
    std::vector<double> group(16, 0.0);
    group[0] = -32.0 * scales[static_cast<std::size_t>(g)];
    group[1] = (g + 8.0) * scales[static_cast<std::size_t>(g)];
    values.insert(values.end(), group.begin(), group.end());
  }
  const std::vector<int> bytes = numbers(encode_gguf_blocks(QuantEncoding::kQ6_K, values));
  ASSERT_EQ(bytes.size(), 210U);
  for (int g = 0; g < 16; ++g) {
    const int stored = scales[static_cast<std::size_t>(g)];
    EXPECT_EQ(bytes[static_cast<std::size_t>(192 + g)], stored < 0 ? stored + 256 : stored) << g;
  }
  EXPECT_EQ(slice(bytes, 208, 2), (std::vector<int>{0x00, 0x3c}));
  // Element 128 n + 32 u + l: code 0 for l = 0 and 16, g + 40 for l = 1 and 17 with g = 8 n + 2 u
  // + l / 16, else 32 (low nibble 0, high bits 2). Quarters 0 and 2 share ql[64 n ..], 1 and 3
  // ql[64 n + 32 ..], low nibbles first.
  for (int n = 0; n < 2; ++n) {
    for (int l = 0; l < 32; ++l) {
      std::array<int, 4> codes{};
      for (int u = 0; u < 4; ++u) {
        const int g = 8 * n + 2 * u + l / 16;
        codes[static_cast<std::size_t>(u)] = l % 16 == 0 ? 0 : l % 16 == 1 ? g + 40 : 32;
      }
      const auto at = static_cast<std::size_t>(64 * n + l);
      EXPECT_EQ(bytes[at], codes[0] % 16 + 16 * (codes[2] % 16)) << n << " " << l;
      EXPECT_EQ(bytes[at + 32], codes[1] % 16 + 16 * (codes[3] % 16)) << n << " " << l;
      EXPECT_EQ(bytes[static_cast<std::size_t>(128 + 32 * n + l)],
                codes[0] / 16 + 4 * (codes[1] / 16) + 16 * (codes[2] / 16) + 64 * (codes[3] / 16))
          << n << " " << l;
    }
  }
}

/// No magnitude, no division by it.
TEST(GgufBlocks, ZeroBlocksDecodeToZero) {
  const std::vector<double> zeros(256, 0.0);
  using enum QuantEncoding;
  for (const QuantEncoding encoding : {kQ4_K, kQ5_K}) {
    EXPECT_THAT(encode_gguf_blocks(encoding, zeros), ::testing::Each(std::byte{0}));
  }
  for (const QuantEncoding encoding : {kQ4_0, kQ8_0, kQ6_K}) {
    const std::vector<int> bytes = numbers(encode_gguf_blocks(encoding, zeros));
    const std::size_t half = encoding == kQ6_K ? 208 : 0;
    EXPECT_EQ(bytes[half] + (bytes[half + 1] & 0x7f), 0) << "d is 0 or -0";
  }
}

/// Relative root mean square error of N(0, 1) weights, decoded by the reference. A step of a block
/// of n weights is about max |w| of the block in n draws over half the number of codes, and
/// rounding to steps leaves step / sqrt(12): q4_0 2.07 / 8 / 3.46 = 7.5 %, q8_0 0.47 %; q6_k (16
/// weights) 1.77 / 32 / 3.46 = 1.6 %, and its rounded scale adds as much again at most. q4_k and
/// q5_k step over the range, 2 * 2.07 / 15 / 3.46 = 8.0 % and 3.9 %, and round scale and minimum to
/// 1 / 63 of the largest. Half of that is what no such format can reach, 1.5 times what a good
/// quantiser stays below.
TEST(GgufBlocks, RoundTripErrorIsThatOfTheFormat) {
  const DenseMatrix w = random_matrix(16, 1024);
  using enum QuantEncoding;
  for (const auto& [encoding, wanted] :
       {std::pair{kQ4_0, 0.075}, {kQ8_0, 0.0047}, {kQ4_K, 0.080}, {kQ5_K, 0.039}, {kQ6_K, 0.016}}) {
    Bench bench;
    bench.run(encoding, w, encode_gguf);
    const reference::Matrix decoded = reference::decode_gguf(encoding, bench["weight"]);
    double errors = 0;
    double squares = 0;
    for (std::int64_t i = 0; i < decoded.size(); ++i) {
      const double value = w.values[static_cast<std::size_t>(i)];
      errors += (decoded.data()[i] - value) * (decoded.data()[i] - value);
      squares += value * value;
    }
    EXPECT_LT(std::sqrt(errors / squares), 1.5 * wanted) << name_of(encoding);
    EXPECT_GT(std::sqrt(errors / squares), 0.5 * wanted) << name_of(encoding);
  }
}

// ---- The other formats, on matrices worked out by hand.

/// codes times scales give back every weight to half a step of e4m3 (2^-4 relative, 2^-10 scales
/// below the smallest normal), or 448 scales where a code saturates.
void expect_fp8_round_trip(const DenseMatrix& w, const Tensor& codes, const Tensor& scales,
                           std::int64_t block_rows, std::int64_t block_columns) {
  const std::int64_t across = (w.columns + block_columns - 1) / block_columns;
  int saturated = 0;
  for (std::int64_t i = 0; i < codes.size(); ++i) {
    const std::int64_t block = i / w.columns / block_rows * across + i % w.columns / block_columns;
    const double scale = scales.size() == 1 ? scales.value(0) : scales.value(block);
    const double value = w.values[static_cast<std::size_t>(i)];
    const double stored = codes.value(i) * scale;
    if (std::abs(value) >= 448 * scale) {
      EXPECT_EQ(std::abs(stored), 448 * scale) << i;
      ++saturated;
    } else {
      EXPECT_LE(std::abs(stored - value), std::max(std::abs(value) / 16, scale * 0x1p-10)) << i;
    }
  }
  EXPECT_LT(saturated, codes.size() / 8);
}

TEST(Fp8Weights, RoundTripInEveryGranularity) {
  const DenseMatrix w = random_matrix(24, 80);
  struct Blocks {
    WeightGranularity granularity;
    Shape shape;
    std::int64_t rows, columns;
  };
  for (const Blocks& b : {Blocks{WeightGranularity::kTensor, {}, 24, 80},
                          Blocks{WeightGranularity::kRowwise, {24, 1}, 1, 80},
                          Blocks{WeightGranularity::kBlock, {3, 3}, 8, 32}}) {
    Bench bench;
    bench.quant.weight_granularity = b.granularity;
    bench.quant.block_n = 8;
    bench.quant.block_k = 32;  // the last block has 16 columns
    bench.run(QuantEncoding::kFloat8E4M3FN, w, encode_fp8);
    EXPECT_EQ(bench["weight_scale"].shape(), b.shape);
    expect_fp8_round_trip(w, bench["weight"], bench["weight_scale"], b.rows, b.columns);
    EXPECT_FALSE(bench.weights.contains("q_proj.input_scale"));
  }
}

/// Each block scale is the nearest e4m3 to amax / 6 / weight_scale_2, so a weight is off by at most
/// half the widest gap of e2m1 (1, between 4 and 6) in steps of up to 1.0625 of that, and by 6.25 %
/// of 6 steps where the scale was rounded down. A subnormal scale would be worse; here there is
/// none.
TEST(Nvfp4Weights, RoundTrip) {
  const DenseMatrix w = random_matrix(8, 64);
  Bench bench;
  bench.run(QuantEncoding::kNvfp4, w, encode_nvfp4);
  const double second = bench["weight_scale_2"].value(0);
  int even_is_low = 0;
  for (std::int64_t r = 0; r < 8; ++r) {
    for (std::int64_t k = 0; k < 64; ++k) {
      const auto byte = bench["weight"].code(r * 32 + k / 2);
      const double code = decode(ElementType::kFloat4E2M1FN, k % 2 == 0 ? byte & 15U : byte >> 4U);
      const double step = bench["weight_scale"].value(r * 4 + k / 16) * second;
      const double value = w.row(r)[static_cast<std::size_t>(k)];
      EXPECT_LE(std::abs(code * step - value), 1.0625 * step) << r << ", " << k;
      even_is_low += std::abs(code * step - value) < 0.5 * step ? 1 : 0;
    }
  }
  EXPECT_GT(even_is_low, 400);  // of 512
  EXPECT_GT(bench["input_scale"].value(0), 0);
}

/// 2^e with e = ceil(log2(amax / 6)): 6 and 3 need 0 and -1; 6.5 needs 1. A block may have one
/// less.
TEST(MxWeights, ExponentsByHand) {
  DenseMatrix w{6, 32, std::vector<double>(6 * 32, 0.25)};
  const std::array<double, 6> largest = {6, 3, 6.5, 12, 0.25, 96};
  const std::array<int, 6> exponents = {127, 126, 128, 128, 123, 131};
  for (std::size_t r = 0; r < 6; ++r) w.values[32 * r + 5] = -largest[r];
  Bench bench;
  bench.run(QuantEncoding::kMxfp4, w, encode_mx);
  int lowered = 0;
  for (std::int64_t r = 0; r < 6; ++r) {
    const auto exponent = static_cast<int>(bench["weight_scale"].code(r));
    const int wanted = exponents[static_cast<std::size_t>(r)];
    EXPECT_TRUE(exponent == wanted || exponent == wanted - 1) << r << " " << exponent;
    lowered += exponent == wanted ? 0 : 1;
    const auto stored = decode(ElementType::kFloat4E2M1FN, bench["weight"].code(r * 16 + 2) >> 4U);
    EXPECT_LE(stored, -3.0) << "column 5, odd, is in the high nibble";
  }
  EXPECT_LT(lowered, 4);
}

TEST(MxWeights, Fp8CodesRoundTrip) {
  const DenseMatrix w = random_matrix(16, 64);
  Bench bench;
  bench.run(QuantEncoding::kMxfp8, w, encode_mx);
  expect_fp8_round_trip(w, bench["weight"], bench["weight_scale"], 1, 32);
}

/// Two rows of four groups: the scale is amax / 7.5, here 1 and 2; codes are nearest(w / s) + 8,
/// 15 at most; words hold eight of them, column 0 in the lowest bits.
TEST(GptqWeights, FourBitsByHand) {
  DenseMatrix w{2, 32, std::vector<double>(64, 0.0)};
  const std::array<double, 8> first = {-7.5, 7.5, 1, -1, 0.4, 2, -3, 0};
  const std::array<int, 8> codes = {0, 15, 9, 7, 8, 10, 5, 8};
  for (std::size_t k = 0; k < 8; ++k) {
    w.values[k] = first[k];
    w.values[32 + k] = 2 * first[k];
  }
  Bench bench;
  bench.quant.group_size = 32;
  bench.run(QuantEncoding::kGptq, w, encode_gptq);
  std::uint32_t word = 0;
  for (std::size_t k = 0; k < 8; ++k) word |= static_cast<std::uint32_t>(codes[k]) << 4 * k;
  EXPECT_EQ(bench["qweight"].shape(), (Shape{4, 2}));
  EXPECT_EQ(bench["qweight"].as<std::uint32_t>()[0], word);
  EXPECT_EQ(bench["qweight"].as<std::uint32_t>()[1], word);
  EXPECT_EQ(bench["qweight"].as<std::uint32_t>()[2], 0x88888888U);
  EXPECT_EQ(bench["scales"].values(), (std::vector<double>{1, 2}));
  // Two rows in a word of eight: zero - 1 for each, and padding.
  EXPECT_EQ(bench["qzeros"].as<std::uint32_t>()[0], 0xffffff77U);
  EXPECT_THAT(bench["g_idx"].values(), ::testing::Each(0.0));

  bench.quant.checkpoint_v2 = true;
  bench.run(QuantEncoding::kGptq, w, encode_gptq);
  EXPECT_EQ(bench["qzeros"].as<std::uint32_t>()[0], 0xffffff88U);
}

TEST(GptqWeights, EightBitsWholeRow) {
  const DenseMatrix w = random_matrix(3, 40);
  Bench bench;
  bench.quant.bits = 8;
  bench.quant.group_size = -1;
  bench.run(QuantEncoding::kGptq, w, encode_gptq);
  EXPECT_EQ(bench["scales"].shape(), (Shape{1, 3}));
  for (std::int64_t n = 0; n < 3; ++n) {
    const double scale = bench["scales"].value(n);
    for (std::int64_t k = 0; k < 40; ++k) {
      const std::uint32_t word = bench["qweight"].as<std::uint32_t>()[k / 4 * 3 + n];
      const auto code = static_cast<double>(word >> (8 * (k % 4)) & 255U);
      // Half a step, and where the scale was rounded down (2^-11 of 127.5 steps) a little more.
      EXPECT_NEAR((code - 128) * scale, w.row(n)[static_cast<std::size_t>(k)],
                  (0.5 + 127.5 * 0x1p-11) * scale);
    }
  }
}

/// desc_act deals the channels: every group has all its members, in another order for o_proj.
TEST(GptqWeights, DescActPermutesTheChannels) {
  const DenseMatrix w = random_matrix(8, 128);
  Bench bench;
  bench.quant.group_size = 32;
  bench.quant.desc_act = true;
  for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
    bench.run(QuantEncoding::kGptq, w, encode_gptq, name);
  }
  const std::vector<double> groups = bench["g_idx"].values();
  EXPECT_FALSE(std::ranges::is_sorted(groups));
  for (const double g : {0.0, 1.0, 2.0, 3.0}) EXPECT_EQ(std::ranges::count(groups, g), 32);
  EXPECT_EQ(bench.weights.at("k_proj.g_idx"), bench["g_idx"]);
  EXPECT_EQ(bench.weights.at("v_proj.g_idx"), bench["g_idx"]);
  EXPECT_NE(bench.weights.at("o_proj.g_idx"), bench["g_idx"]);
  for (std::int64_t n = 0; n < 8; ++n) {
    for (std::int64_t k = 0; k < 128; ++k) {
      const auto group = static_cast<std::int64_t>(groups[static_cast<std::size_t>(k)]);
      const double scale = bench["scales"].value(group * 8 + n);
      const std::uint32_t word = bench["qweight"].as<std::uint32_t>()[k / 8 * 8 + n];
      const auto code = static_cast<double>(word >> (4 * (k % 8)) & 15U);
      EXPECT_NEAR((code - 8) * scale, w.row(n)[static_cast<std::size_t>(k)],
                  (0.5 + 7.5 * 0x1p-11) * scale);
    }
  }
}

TEST(DistinctScalesTest, KeepsAwayFromOneAndFromEachOther) {
  DistinctScales scales;
  std::vector<double> drawn;
  for (const double wanted : {1.0, 0.9, 1.5, 0.01, 0.0101}) drawn.push_back(scales.next(wanted));
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    EXPECT_GT(std::abs(std::log(drawn[i])), std::log(1.19));
    EXPECT_EQ(drawn[i], static_cast<float>(drawn[i]));
    for (std::size_t j = 0; j < i; ++j) {
      EXPECT_GT(std::abs(std::log(drawn[i] / drawn[j])), std::log(1.19));
    }
  }
}

}  // namespace
}  // namespace attn::harness
