// Every code of every weight format, bit for bit, against formulas over the bit fields that are
// written here a second way, and against blocks worked out by hand.

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "reference/core/philox.h"
#include "reference/core/quant_internal.h"
#include "reference/formats/e2m1.h"
#include "reference/formats/fp8.h"
#include "reference/formats/gguf.h"
#include "reference/formats/gptq.h"
#include "reference/formats/mxfp.h"
#include "reference/formats/nvfp4.h"
#include "tests/reference/gguf_by_bits.h"

namespace attn::reference {
namespace {

const Rounding kExact(Mode::kExact);
const Rounding kFaithful(Mode::kFaithful);

Tensor bytes_of(ElementType type, Shape shape, const std::vector<std::uint64_t>& codes) {
  Tensor t(type, std::move(shape));
  for (std::size_t i = 0; i < codes.size(); ++i) {
    t.set_code(static_cast<std::int64_t>(i), codes[i]);
  }
  return t;
}

bool same_bits(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) ||
         std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
}

/// Sign, 4 bits of exponent, 3 of mantissa, bias 7 (e4m3fn) or 8 (e4m3fnuz); NaN is 0x7f and 0xff,
/// or 0x80 alone.
double e4m3(int code, int bias) {
  const bool is_nan = bias == 7 ? (code & 0x7f) == 0x7f : code == 0x80;
  if (is_nan) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  const int exponent = code >> 3 & 15;
  const int mantissa = code & 7;
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -2 - bias)
                                         : std::ldexp(8 + mantissa, exponent - 3 - bias);
  return code >= 0x80 ? -magnitude : magnitude;
}

double e2m1(int code) {
  const double magnitudes[] = {0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0};
  return code >= 8 ? -magnitudes[code - 8] : magnitudes[code];
}

std::vector<std::uint64_t> all_bytes() {
  std::vector<std::uint64_t> codes;
  for (std::uint64_t code = 0; code < 256; ++code) {
    codes.push_back(code);
  }
  return codes;
}

TEST(Decode, EveryFloat8CodeTimesItsScale) {
  const Tensor weight = bytes_of(ElementType::kFloat8E4M3FN, {2, 128}, all_bytes());
  // Blocks of 1 by 48 columns: the third of a row is cut off.
  const Tensor scale = Tensor::from_values(ElementType::kFloat32, {2, 3},
                                           std::vector<double>{0.5, 3.0, 1e-30, 0.1, 7.0, 1e30});
  const Matrix scales = spread_scales(scale, 2, 128, {1, 48});
  const Matrix codes = decode_matrix(weight, 2, 128);
  for (int code = 0; code < 256; ++code) {
    const int n = code / 128;
    const int k = code % 128;
    EXPECT_TRUE(same_bits(codes(n, k), e4m3(code, 7))) << code;
    EXPECT_EQ(scales(n, k), scale.value(3 * n + k / 48)) << code;
  }
}

TEST(Decode, ScalesSpreadOverBlocksOfRowsAndColumns) {
  const Tensor scale =
      Tensor::from_values(ElementType::kFloat32, {2, 2}, std::vector<double>{1, 2, 3, 4});
  Matrix want(3, 5);
  want << 1, 1, 1, 2, 2, 1, 1, 1, 2, 2, 3, 3, 3, 4, 4;
  EXPECT_EQ(spread_scales(scale, 3, 5, {2, 3}), want);
}

TEST(Decode, EveryPairOfNibbles) {
  const Matrix values = decode_e2m1(bytes_of(ElementType::kUInt8, {16, 16}, all_bytes()));
  ASSERT_EQ(values.cols(), 32);
  for (int byte = 0; byte < 256; ++byte) {
    EXPECT_TRUE(same_bits(values(byte / 16, 2 * (byte % 16)), e2m1(byte % 16))) << byte;
    EXPECT_TRUE(same_bits(values(byte / 16, 2 * (byte % 16) + 1), e2m1(byte / 16))) << byte;
  }
}

/// Row n holds every e2m1 code, twice: 8 bytes, then the same again.
Tensor nibble_rows(std::int64_t rows, std::int64_t in) {
  std::vector<std::uint64_t> codes;
  for (std::int64_t i = 0; i < rows * in / 2; ++i) {
    const auto even = static_cast<std::uint64_t>(2 * i % 16);
    codes.push_back(even | (even + 1) << 4);
  }
  return bytes_of(ElementType::kUInt8, {rows, in / 2}, codes);
}

TEST(Decode, EveryNvfp4CodeWithEveryScaleCode) {
  const Tensor scale = bytes_of(ElementType::kFloat8E4M3FN, {128, 2}, all_bytes());
  const Matrix w = decode_nvfp4(nibble_rows(128, 32), scale);
  for (int n = 0; n < 128; ++n) {
    for (int k = 0; k < 32; ++k) {
      // The sign of a scale is not read.
      const double want = e2m1(k % 16) * std::abs(e4m3(2 * n + k / 16, 7));
      EXPECT_TRUE(same_bits(w(n, k), want)) << n << ", " << k;
    }
  }
}

double e8m0(int code) {
  return code == 255 ? std::numeric_limits<double>::quiet_NaN() : std::exp2(code - 127);
}

TEST(Decode, EveryMxfp4CodeWithEveryScaleCode) {
  const Tensor scale = bytes_of(ElementType::kFloat8E8M0FNU, {128, 2}, all_bytes());
  const Matrix w = decode_mxfp4(nibble_rows(128, 64), scale);
  for (int n = 0; n < 128; ++n) {
    for (int k = 0; k < 64; ++k) {
      EXPECT_TRUE(same_bits(w(n, k), e2m1(k % 16) * e8m0(2 * n + k / 32))) << n << ", " << k;
    }
  }
}

TEST(Decode, EveryMxfp8CodeWithEveryScaleCode) {
  std::vector<std::uint64_t> codes;
  for (int n = 0; n < 256; ++n) {
    for (int k = 0; k < 256; ++k) {
      codes.push_back(static_cast<std::uint64_t>(k));
    }
  }
  std::vector<std::uint64_t> scales;
  for (int i = 0; i < 256 * 8; ++i) {
    scales.push_back(static_cast<std::uint64_t>((i / 8 + i % 8) % 256));
  }
  const Matrix w = decode_mxfp8(bytes_of(ElementType::kFloat8E4M3FN, {256, 256}, codes),
                                bytes_of(ElementType::kFloat8E8M0FNU, {256, 8}, scales));
  for (int n = 0; n < 256; ++n) {
    for (int k = 0; k < 256; ++k) {
      const double want = e4m3(k, 7) * e8m0((n + k / 32) % 256);
      ASSERT_TRUE(same_bits(w(n, k), want)) << n << ", " << k;
    }
  }
}

TEST(Decode, Float8OfTheOtherKindKeepsEveryValue) {
  // e4m3fnuz has bias 8: a code means half of what it means in e4m3fn, and the scale doubles.
  const Tensor weight = bytes_of(ElementType::kFloat8E4M3FN, {256}, all_bytes());
  const Tensor scale = Tensor::scalar(ElementType::kFloat32, 0.75);
  const FnuzWeight fnuz = e4m3fnuz_from_e4m3fn(weight, scale);
  EXPECT_EQ(fnuz.weight.type(), ElementType::kFloat8E4M3FNUZ);
  EXPECT_EQ(fnuz.scale.value(0), 1.5);
  // By hand: 0x38 is 1.0 in e4m3fn and 0.5 in e4m3fnuz; 0.5 * 1.5 = 1.0 * 0.75.
  EXPECT_EQ(fnuz.weight.code(0x38), 0x38U);
  EXPECT_EQ(fnuz.weight.value(0x38), 0.5);
  // 0x7e is 448 and 224; 0x80, -0 in the one and NaN in the other, becomes 0.
  EXPECT_EQ(fnuz.weight.value(0x7e) * 1.5, 448 * 0.75);
  EXPECT_EQ(fnuz.weight.code(0x80), 0U);
  for (int code = 0; code < 256; ++code) {
    if ((code & 0x7f) != 0x7f) {  // not NaN
      EXPECT_EQ(fnuz.weight.value(code) * 1.5, e4m3(code, 7) * 0.75) << code;
      EXPECT_EQ(fnuz.weight.value(code), code == 0x80 ? 0.0 : e4m3(code, 8)) << code;
    }
  }
}

// ---- GGUF.

using Block = std::vector<std::byte>;

Block empty_block(QuantEncoding encoding) {
  return Block(static_cast<std::size_t>(gguf_block(encoding).bytes));
}

void set(Block& block, std::size_t first, const std::vector<int>& bytes) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    block[first + i] = static_cast<std::byte>(bytes[i]);
  }
}

void fill(Block& block, std::size_t first, std::size_t count, int byte) {
  set(block, first, std::vector<int>(count, byte));
}

/// The block's weights through the decoder of a whole weight.
Matrix decode_block(QuantEncoding encoding, const Block& block) {
  Tensor stored(ElementType::kUInt8, {1, static_cast<std::int64_t>(block.size())});
  std::memcpy(stored.data(), block.data(), block.size());
  return decode_gguf(encoding, stored);
}

/// Little-endian float16 codes.
const std::vector<int> kOne{0x00, 0x3c};
const std::vector<int> kHalf{0x00, 0x38};
const std::vector<int> kMinusTwo{0x00, 0xc0};
const std::vector<int> kLargest{0xff, 0x7b};        // 65504
const std::vector<int> kSmallest{0x01, 0x00};       // 2^-24, subnormal
const std::vector<int> kLastSubnormal{0xff, 0x03};  // 1023 * 2^-24

TEST(GgufByHand, Q4_0) {
  Block block = empty_block(QuantEncoding::kQ4_0);
  set(block, 2, {0xf0, 0x0f, 0x98});
  // Bytes 0, 1, 2: low nibbles 0, 15, 8 are columns 0, 1, 2; high ones 15, 0, 9 columns 16, 17, 18.
  for (const auto& [d, value] : {std::pair{kOne, 1.0}, {kMinusTwo, -2.0}, {kSmallest, 0x1p-24}}) {
    set(block, 0, d);
    const Matrix w = decode_block(QuantEncoding::kQ4_0, block);
    EXPECT_EQ(w(0, 0), -8 * value);
    EXPECT_EQ(w(0, 1), 7 * value);
    EXPECT_EQ(w(0, 2), 0.0);
    EXPECT_EQ(w(0, 16), 7 * value);
    EXPECT_EQ(w(0, 17), -8 * value);
    EXPECT_EQ(w(0, 18), 1 * value);
    EXPECT_EQ(w(0, 31), -8 * value);
  }
}

TEST(GgufByHand, Q8_0) {
  Block block = empty_block(QuantEncoding::kQ8_0);
  set(block, 0, kLastSubnormal);
  set(block, 2, {0x80, 0x7f, 0xff, 0x01});
  const Matrix w = decode_block(QuantEncoding::kQ8_0, block);
  EXPECT_EQ(w(0, 0), -128 * 1023 * 0x1p-24);
  EXPECT_EQ(w(0, 1), 127 * 1023 * 0x1p-24);
  EXPECT_EQ(w(0, 2), -1023 * 0x1p-24);
  EXPECT_EQ(w(0, 3), 1023 * 0x1p-24);
}

TEST(GgufByHand, Q4_KScalesAndMinimaOfSixBits) {
  Block block = empty_block(QuantEncoding::kQ4_K);
  set(block, 0, kOne);
  set(block, 2, kHalf);
  fill(block, 4, 12, 0xff);  // all scales and minima 63
  set(block, 16, {0xf0});    // column 0 (group 0): 0; column 32 (group 1): 15
  Matrix w = decode_block(QuantEncoding::kQ4_K, block);
  EXPECT_EQ(w(0, 0), -31.5);          // 63 * 0 - 63 / 2
  EXPECT_EQ(w(0, 32), 945.0 - 31.5);  // 63 * 15 - 63 / 2

  // Group 4's fields alone: scale = sc[8] & 15 | upper bits of sc[0], minimum = sc[8] >> 4 | upper
  // bits of sc[4].
  fill(block, 4, 12, 0);
  set(block, 4, {0xc0, 0, 0, 0, 0x40, 0, 0, 0, 0xa5});
  set(block, 16 + 64, {0x03});  // columns 128 (group 4): 3, 160 (group 5): 0
  w = decode_block(QuantEncoding::kQ4_K, block);
  EXPECT_EQ(w(0, 128), (5 + 48) * 3 - 0.5 * (10 + 16));
  EXPECT_EQ(w(0, 160), 0.0);
  EXPECT_EQ(w(0, 0), 0.0);  // groups 0 .. 3 do not see those upper bits

  // d 65504 and dmin 2^-24: 65504 * 1 * 1 less 2^-24 rounds back to 65504 in float32.
  set(block, 0, kLargest);
  set(block, 2, kSmallest);
  fill(block, 4, 12, 0);
  set(block, 4, {1, 0, 0, 0, 1});
  set(block, 16, {0x01});
  w = decode_block(QuantEncoding::kQ4_K, block);
  EXPECT_EQ(w(0, 0), 65504.0);
  EXPECT_EQ(w(0, 1), -0x1p-24);
}

TEST(GgufByHand, Q5_KHighBits) {
  Block block = empty_block(QuantEncoding::kQ5_K);
  set(block, 0, kOne);
  set(block, 2, kHalf);
  fill(block, 4, 12, 0xff);
  set(block, 16, {0x80, 0x01});  // column 0 of group 7, column 1 of group 0
  set(block, 48 + 96, {0xf0});   // group 7, column 0: 15
  const Matrix w = decode_block(QuantEncoding::kQ5_K, block);
  EXPECT_EQ(w(0, 224), 63 * 31 - 31.5);
  EXPECT_EQ(w(0, 1), 63 * 16 - 31.5);
  EXPECT_EQ(w(0, 0), -31.5);
  EXPECT_EQ(w(0, 225), -31.5);
}

TEST(GgufByHand, Q6_KSignedScalesAndHighBits) {
  Block block = empty_block(QuantEncoding::kQ6_K);
  set(block, 208, kOne);
  set(block, 192, {0x80, 0x7f, 0xff});  // groups of 16 columns: -128, 127, -1
  set(block, 0, {0x0f});                // column 0: low bits 15; column 64: 0
  set(block, 128, {0x03});              // column 0: high bits 3; columns 32, 64, 96: 0
  Matrix w = decode_block(QuantEncoding::kQ6_K, block);
  EXPECT_EQ(w(0, 0), -128 * 31.0);
  EXPECT_EQ(w(0, 1), -128 * -32.0);
  EXPECT_EQ(w(0, 16), 127 * -32.0);
  EXPECT_EQ(w(0, 32), 32.0);
  EXPECT_EQ(w(0, 64), 0.0);  // its scale is 0

  // The last column of all: group 15, upper half of the last byte of ql, top bits of the last qh.
  set(block, 192 + 15, {0x80});
  set(block, 127, {0xf0});
  set(block, 191, {0xc0});
  set(block, 208, kSmallest);
  w = decode_block(QuantEncoding::kQ6_K, block);
  EXPECT_EQ(w(0, 255), 31 * -128 * 0x1p-24);
  EXPECT_EQ(w(0, 254), -32 * -128 * 0x1p-24);
}

const std::vector<QuantEncoding> kGguf{QuantEncoding::kQ4_0, QuantEncoding::kQ8_0,
                                       QuantEncoding::kQ4_K, QuantEncoding::kQ5_K,
                                       QuantEncoding::kQ6_K};

void expect_block(QuantEncoding encoding, const Block& block) {
  const Matrix w = decode_block(encoding, block);
  for (std::int64_t i = 0; i < w.cols(); ++i) {
    const float want = test::gguf_weight_by_bits(encoding, block, static_cast<std::size_t>(i));
    ASSERT_TRUE(same_bits(w(0, i), static_cast<double>(want)))
        << name_of(encoding) << " column " << i << ": " << w(0, i) << ", want " << want;
  }
}

/// Bytes of the float16 fields: not all bits of theirs may be set, or they are no number.
std::vector<std::size_t> half_fields(QuantEncoding encoding) {
  switch (encoding) {
    case QuantEncoding::kQ4_K:
    case QuantEncoding::kQ5_K:
      return {0, 2};
    case QuantEncoding::kQ6_K:
      return {208};
    default:
      return {0};
  }
}

TEST(Gguf, EveryByteInEveryPlace) {
  for (const QuantEncoding encoding : kGguf) {
    Block block = empty_block(encoding);
    // Byte i of block b is b + 37 i: with 256 blocks every byte of a block takes every value.
    for (int b = 0; b < 256; ++b) {
      for (std::size_t i = 0; i < block.size(); ++i) {
        block[i] = static_cast<std::byte>(b + 37 * static_cast<int>(i));
      }
      for (const std::size_t at : half_fields(encoding)) {
        set(block, at, b % 3 == 0 ? kHalf : b % 3 == 1 ? kMinusTwo : kLastSubnormal);
      }
      expect_block(encoding, block);
    }
  }
}

TEST(Gguf, EveryFloat16Scale) {
  for (const QuantEncoding encoding : kGguf) {
    Block block = empty_block(encoding);
    for (std::size_t i = 0; i < block.size(); ++i) {
      block[i] = static_cast<std::byte>(91 * i + 17);
    }
    for (int code = 0; code < 0x10000; ++code) {
      if ((code & 0x7c00) == 0x7c00) {
        continue;  // infinite or NaN
      }
      for (const std::size_t at : half_fields(encoding)) {
        const int field = at == 2 ? code ^ 0x8155 : code;  // another dmin than d
        set(block, at, {field & 0xff, field >> 8});
      }
      const GgufFields fields = unpack_gguf(encoding, block);
      const auto last = static_cast<std::size_t>(fields.columns - 1);
      ASSERT_EQ(fields.weight(0), test::gguf_weight_by_bits(encoding, block, 0)) << code;
      ASSERT_EQ(fields.weight(fields.columns - 1), test::gguf_weight_by_bits(encoding, block, last))
          << code;
    }
  }
}

TEST(Gguf, RandomBlocks) {
  for (const QuantEncoding encoding : kGguf) {
    const RandomStream random(11, std::string(name_of(encoding)));
    std::uint64_t drawn = 0;
    for (int b = 0; b < 500; ++b) {
      Block block = empty_block(encoding);
      for (std::byte& byte : block) {
        byte = static_cast<std::byte>(random.below(drawn++, 256));
      }
      for (const std::size_t at : half_fields(encoding)) {
        block[at + 1] &= std::byte{0xbf};  // finite
      }
      expect_block(encoding, block);
    }
  }
}

TEST(Gguf, RowsAreBlocksOneAfterTheOther) {
  Tensor stored(ElementType::kUInt8, {2, 2 * 34});
  for (std::int64_t b = 0; b < 4; ++b) {
    stored.set_code(b * 34 + 1, 0x3c);  // d = 1
    stored.set_code(b * 34 + 2, static_cast<std::uint64_t>(b + 1));
  }
  const Matrix w = decode_gguf(QuantEncoding::kQ8_0, stored);
  ASSERT_EQ(w.rows(), 2);
  ASSERT_EQ(w.cols(), 64);
  EXPECT_EQ(w(0, 0), 1.0);
  EXPECT_EQ(w(0, 32), 2.0);
  EXPECT_EQ(w(1, 0), 3.0);
  EXPECT_EQ(w(1, 32), 4.0);
}

// ---- GPTQ.

/// Three output rows; the code of input column k and row n is (k + 5 n) mod 2^bits, and its group
/// (7 k) mod groups.
struct GptqCase {
  Tensor qweight;
  Tensor scales;
  Tensor g_idx;
};

constexpr std::int64_t kOut = 3;

std::uint64_t gptq_code(std::int64_t k, std::int64_t n, std::int64_t bits) {
  return static_cast<std::uint64_t>(k + 5 * n) % (std::uint64_t{1} << bits);
}

GptqCase make_gptq(std::int64_t bits, std::int64_t in, const std::vector<double>& scales) {
  const std::int64_t groups = std::ssize(scales) / kOut;
  GptqCase c{Tensor(ElementType::kInt32, {in * bits / 32, kOut}),
             Tensor::from_values(ElementType::kFloat16, {groups, kOut}, scales),
             Tensor(ElementType::kInt32, {in})};
  for (std::int64_t k = 0; k < in; ++k) {
    c.g_idx.set_value(k, static_cast<double>(7 * k % groups));
    for (std::int64_t n = 0; n < kOut; ++n) {
      // Bit b of code k is bit (k * bits + b) mod 32 of word (k * bits + b) / 32 of column n.
      for (std::int64_t b = 0; b < bits; ++b) {
        const std::int64_t at = (k * bits + b) / 32 * kOut + n;
        const std::uint64_t bit = gptq_code(k, n, bits) >> b & 1;
        c.qweight.set_code(at, c.qweight.code(at) | bit << ((k * bits + b) % 32));
      }
    }
  }
  return c;
}

TEST(Decode, EveryGptqCodeInEveryPlaceOfAWord) {
  const std::vector<double> scales{0.5, -0.25, 3.0, 0x1p-24, 1023 * 0x1p-24, 65504.0};
  for (const std::int64_t bits : {4, 8}) {
    // Along k a code takes every place of a word with every value: neighbours differ by one.
    const std::int64_t in = 512 * 17;
    const GptqCase c = make_gptq(bits, in, scales);
    const Matrix w =
        decode_gptq({c.qweight, c.scales, c.g_idx, bits}, ElementType::kBFloat16, kExact);
    ASSERT_EQ(w.rows(), kOut);
    ASSERT_EQ(w.cols(), in);
    for (std::int64_t n = 0; n < kOut; ++n) {
      for (std::int64_t k = 0; k < in; ++k) {
        const double zero = bits == 4 ? 8.0 : 128.0;
        const double code = static_cast<double>(gptq_code(k, n, bits));
        const double scale = scales[static_cast<std::size_t>(7 * k % 2 * kOut + n)];
        ASSERT_EQ(w(n, k), (code - zero) * scale) << n << ", " << k;
      }
    }
  }
}

TEST(Decode, FaithfulGptqCutsScalesToBfloat16TowardZero) {
  // 1 + 3 * 2^-8 is nearest to 1 + 2^-6 of the bfloat16 values 1 + 2^-7 and 1 + 2^-6 (a tie, to
  // even); cutting gives 1 + 2^-7. Times code 15 - 8 = 7: 7 + 7 * 2^-7 has 10 bits and goes to 7 +
  // 2 * 2^-5 (7.0546875 lies between 7.03125 and 7.0625).
  const double scale = 1.0 + 3 * 0x1p-8;
  const GptqCase c = make_gptq(4, 16, {scale, -scale, 1.0});
  const auto weight = [&](ElementType dtype, Rounding r) {
    return decode_gptq({c.qweight, c.scales, c.g_idx, 4}, dtype, r);
  };
  EXPECT_EQ(weight(ElementType::kBFloat16, kFaithful)(0, 15), 7.0625);
  EXPECT_EQ(weight(ElementType::kBFloat16, kFaithful)(0, 9), 1.0 + 0x1p-7);
  EXPECT_EQ(weight(ElementType::kBFloat16, kFaithful)(1, 4), -1.0 - 0x1p-7);  // code 9
  EXPECT_EQ(weight(ElementType::kBFloat16, kExact)(0, 15), 7 * scale);
  // In float16 the scale stays, and 7 + 21 * 2^-8 has 11 bits.
  EXPECT_EQ(weight(ElementType::kFloat16, kFaithful)(0, 15), 7 * scale);
}

}  // namespace
}  // namespace attn::reference
