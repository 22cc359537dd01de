// The cpu backend's decoders against blocks whose fields are set by hand, at each field's extremes,
// and codes against the formats' definitions.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "harness/backends/cpu/gguf.h"
#include "harness/backends/cpu/small_floats.h"
#include "harness/backends/cpu/unpack.h"
#include "harness/backends/cpu/weight_rows.h"
#include "reference/core/element.h"
#include "reference/core/philox.h"

namespace attn::harness::cpu {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// ---- Codes of small floats.

struct NamedFormat {
  SmallFloat format;
  ElementType type;  ///< the same in reference/core, which shares no code with the backend
  unsigned codes;
};

const NamedFormat kFormats[] = {{kE4M3FN, ElementType::kFloat8E4M3FN, 256},
                                {kE4M3FNUZ, ElementType::kFloat8E4M3FNUZ, 256},
                                {kE2M1, ElementType::kFloat4E2M1FN, 16}};

const float* values_of(const NamedFormat& f) {
  if (f.codes == 16) return kE2M1Values.data();
  return f.type == ElementType::kFloat8E4M3FN ? kE4M3FNValues.data() : kE4M3FNUZValues.data();
}

TEST(CpuSmallFloats, HandWorkedCodes) {
  // e4m3fn: 0 0111 000 is 1, 0 1111 110 is 1.75 * 2^8, 0 0000 001 is 2^-9.
  EXPECT_EQ(kE4M3FNValues[0x38], 1.0f);
  EXPECT_EQ(kE4M3FNValues[0x7e], 448.0f);
  EXPECT_EQ(kE4M3FNValues[0x01], 0x1p-9f);
  EXPECT_EQ(kE4M3FNValues[0xb9], -1.125f);
  EXPECT_TRUE(std::signbit(kE4M3FNValues[0x80]));
  // One bias more: half of e4m3fn, and the exponent of all ones is an ordinary one.
  EXPECT_EQ(kE4M3FNUZValues[0x38], 0.5f);
  EXPECT_EQ(kE4M3FNUZValues[0x7f], 240.0f);
  EXPECT_EQ(kE4M3FNUZValues[0x01], 0x1p-10f);
  EXPECT_TRUE(std::isnan(kE4M3FNUZValues[0x80]));
  const float e2m1[] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
  for (std::size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(kE2M1Values[i], e2m1[i]);
    EXPECT_EQ(kE2M1Values[i + 8], -e2m1[i]);
  }
  EXPECT_EQ(kE8M0Values[0], 0x1p-127f);
  EXPECT_EQ(kE8M0Values[127], 1.0f);
  EXPECT_EQ(kE8M0Values[254], 0x1p127f);
  EXPECT_TRUE(std::isnan(kE8M0Values[255]));
}

TEST(CpuSmallFloats, EveryCodeHasItsValueAndComesBack) {
  for (const NamedFormat& f : kFormats) {
    for (unsigned code = 0; code < f.codes; ++code) {
      const auto value = static_cast<double>(values_of(f)[code]);
      const double want = decode(f.type, code);
      SCOPED_TRACE(std::string(element_name(f.type)) + " " + std::to_string(code));
      if (std::isnan(want)) {
        EXPECT_TRUE(std::isnan(value));
        continue;
      }
      EXPECT_EQ(value, want);
      EXPECT_EQ(encode(f.format, value), code);
    }
    EXPECT_EQ(encode(f.format, kNaN), f.format.nan);
  }
  for (unsigned code = 0; code < 255; ++code) {
    EXPECT_EQ(static_cast<double>(kE8M0Values[code]), decode(ElementType::kFloat8E8M0FNU, code));
  }
}

TEST(CpuSmallFloats, MidpointsGoToTheEvenCodeAndTheirNeighboursToTheNearest) {
  for (const NamedFormat& f : kFormats) {
    const float* const values = values_of(f);
    for (unsigned code = 0; static_cast<double>(values[code]) < f.format.max; ++code) {
      const double middle =
          (static_cast<double>(values[code]) + static_cast<double>(values[code + 1])) / 2.0;
      EXPECT_EQ(encode(f.format, middle), code + code % 2) << middle;
      EXPECT_EQ(encode(f.format, std::nextafter(middle, 0.0)), code) << middle;
      EXPECT_EQ(encode(f.format, std::nextafter(middle, kInf)), code + 1) << middle;
      EXPECT_EQ(encode(f.format, -std::nextafter(middle, kInf)), (code + 1) | f.format.sign_bit);
    }
    for (const double beyond : {f.format.max * 1.001, 1e300, kInf}) {
      EXPECT_EQ(static_cast<double>(values[encode(f.format, beyond)]), f.format.max);
      EXPECT_EQ(static_cast<double>(values[encode(f.format, -beyond)]), -f.format.max);
    }
    EXPECT_EQ(encode(f.format, 1e-300), 0);
    EXPECT_EQ(encode(f.format, -1e-300), f.format.has_negative_zero ? f.format.sign_bit : 0);
  }
}

TEST(CpuSmallFloats, E4m3fnCodesReadAsFnuzAreHalfTheirValue) {
  for (unsigned code = 0; code < 256; ++code) {
    if (std::isnan(kE4M3FNValues[code])) continue;
    const std::uint8_t bits = fnuz_bits_of(static_cast<std::uint8_t>(code));
    EXPECT_EQ(2.0f * kE4M3FNUZValues[bits], kE4M3FNValues[code]) << code;
  }
}

// ---- GGUF blocks. Fields are written where ggml's layout has them, element by element.

class Block {
 public:
  explicit Block(QuantEncoding encoding)
      : format_(gguf_format(encoding)), bytes_(static_cast<std::size_t>(format_.bytes)) {}

  void set_half(std::size_t at, double value) {
    const auto code = static_cast<std::uint16_t>(attn::encode(ElementType::kFloat16, value));
    std::memcpy(&bytes_.at(at), &code, sizeof code);
  }
  void set_byte(std::size_t at, int value) {
    bytes_.at(at) = static_cast<std::byte>(static_cast<std::uint8_t>(value));
  }
  /// Replaces `bits` bits of a byte from bit `shift` on.
  void set_bits(std::size_t at, unsigned shift, unsigned bits, unsigned value) {
    const unsigned mask = ((1u << bits) - 1u) << shift;
    const unsigned old = std::to_integer<unsigned>(bytes_.at(at));
    bytes_.at(at) = static_cast<std::byte>((old & ~mask) | (value << shift & mask));
  }
  std::vector<float> decoded() const {
    std::vector<float> values(static_cast<std::size_t>(format_.columns));
    format_.decode_block(bytes_.data(), values.data());
    return values;
  }

 private:
  const GgufFormat& format_;
  std::vector<std::byte> bytes_;
};

const double kHalves[] = {0.0,        1.0,     -0.333251953125,
                          0x1p-24,    65504.0, -0x1.ff8p-15 /* the largest subnormal */,
                          0x1.554p-3, -2.0};

TEST(CpuGguf, Q4_0) {
  for (const double d : kHalves) {
    for (unsigned turn = 0; turn < 16; ++turn) {
      // Codes that share a byte differ.
      const auto code = [&](unsigned i) { return (i + i / 16 * 5 + turn) % 16; };
      Block block(QuantEncoding::kQ4_0);
      block.set_half(0, d);
      for (unsigned i = 0; i < 32; ++i) {
        block.set_bits(2 + i % 16, i < 16 ? 0 : 4, 4, code(i));
      }
      const std::vector<float> values = block.decoded();
      for (unsigned i = 0; i < 32; ++i) {
        EXPECT_EQ(static_cast<double>(values[i]), d * (static_cast<int>(code(i)) - 8)) << i;
      }
    }
  }
}

TEST(CpuGguf, Q8_0) {
  for (const double d : kHalves) {
    for (int code = -128; code < 128; ++code) {
      Block block(QuantEncoding::kQ8_0);
      block.set_half(0, d);
      for (unsigned i = 0; i < 32; ++i) block.set_byte(2 + i, code + static_cast<int>(i));
      const std::vector<float> values = block.decoded();
      for (unsigned i = 0; i < 32; ++i) {
        const int wrapped = code + static_cast<int>(i) > 127 ? code + static_cast<int>(i) - 256
                                                             : code + static_cast<int>(i);
        EXPECT_EQ(static_cast<double>(values[i]), d * wrapped) << i;
      }
    }
  }
}

/// Writes the six bits of a group's scale and min where Q4_K and Q5_K have them.
void set_group(Block& block, unsigned j, unsigned scale, unsigned min) {
  constexpr std::size_t kPacked = 4;
  if (j < 4) {
    block.set_bits(kPacked + j, 0, 6, scale);
    block.set_bits(kPacked + 4 + j, 0, 6, min);
  } else {
    block.set_bits(kPacked + 4 + j, 0, 4, scale & 15u);
    block.set_bits(kPacked + j - 4, 6, 2, scale >> 4);
    block.set_bits(kPacked + 4 + j, 4, 4, min & 15u);
    block.set_bits(kPacked + j, 6, 2, min >> 4);
  }
}

struct KQuant {
  QuantEncoding encoding;
  unsigned codes;
};

void set_k_code(Block& block, const KQuant& k, unsigned i, unsigned code) {
  const bool has_fifth_bit = k.codes == 32;
  const std::size_t qs = has_fifth_bit ? 48 : 16;
  block.set_bits(qs + i / 64 * 32 + i % 32, i / 32 % 2 == 0 ? 0 : 4, 4, code & 15u);
  if (has_fifth_bit) block.set_bits(16 + i % 32, i / 32, 1, code >> 4);
}

/// Every scale, min and code in every place: in round t group j has scale (5 j + t) % 64, min
/// (63 - 3 j + t) % 64 and codes that run through all values, other ones for each group.
TEST(CpuGguf, Q4_KAndQ5_K) {
  for (const KQuant& k : {KQuant{QuantEncoding::kQ4_K, 16}, KQuant{QuantEncoding::kQ5_K, 32}}) {
    for (unsigned t = 0; t < 64; ++t) {
      const double d = kHalves[t % std::size(kHalves)];
      const double d_min = kHalves[(t / 8 + 3) % std::size(kHalves)];
      Block block(k.encoding);
      block.set_half(0, d);
      block.set_half(2, d_min);
      const auto scale = [&](unsigned j) { return (5 * j + t) % 64; };
      const auto min = [&](unsigned j) { return (63 - 3 * j + t) % 64; };
      const auto code = [&](unsigned i) { return (i + i / 32 * 5 + t) % k.codes; };
      for (unsigned j = 0; j < 8; ++j) set_group(block, j, scale(j), min(j));
      for (unsigned i = 0; i < 256; ++i) set_k_code(block, k, i, code(i));
      const std::vector<float> values = block.decoded();
      for (unsigned i = 0; i < 256; ++i) {
        // Both products are exact in float32, so one rounding is left.
        const double want = d * scale(i / 32) * code(i) - d_min * min(i / 32);
        ASSERT_EQ(values[i], static_cast<float>(want))
            << name_of(k.encoding) << " " << t << " " << i;
      }
    }
  }
}

/// Bytes written out: packed[0] = 0xc0 gives group 4 the scale's top bits (48) and group 0 nothing;
/// packed[4] = 0x40 gives its min 16; packed[8] = 0xf3 adds 3 to the scale and 15 to the min.
TEST(CpuGguf, Q4_KByHand) {
  Block block(QuantEncoding::kQ4_K);
  block.set_half(0, 0.5);
  block.set_half(2, 0.25);
  block.set_byte(4 + 0, 0xc0);
  block.set_byte(4 + 4, 0x40);
  block.set_byte(4 + 8, 0xf3);
  block.set_byte(16 + 64 + 5, 0x9e);  // element 128 + 5 has code 14, element 160 + 5 code 9
  const std::vector<float> values = block.decoded();
  EXPECT_EQ(values[128 + 5], 0.5f * 51.0f * 14.0f - 0.25f * 31.0f);
  EXPECT_EQ(values[128 + 6], -0.25f * 31.0f);
  for (const std::size_t i : {0U, 127U, 160U, 165U, 255U}) EXPECT_EQ(values[i], 0.0f) << i;
}

TEST(CpuGguf, Q6_K) {
  for (int t = 0; t < 64; ++t) {
    const double d = kHalves[static_cast<std::size_t>(t) % std::size(kHalves)];
    Block block(QuantEncoding::kQ6_K);
    block.set_half(208, d);
    // Scales run through -128 .. 127, codes through 0 .. 63, which stand for -32 .. 31.
    const auto scale = [&](unsigned g) {
      return static_cast<int>(16 * g + 4U * static_cast<unsigned>(t)) % 256 - 128;
    };
    const auto code = [&](unsigned i) { return (i + i / 32 * 5 + static_cast<unsigned>(t)) % 64; };
    for (unsigned g = 0; g < 16; ++g) block.set_byte(192 + g, scale(g));
    for (unsigned i = 0; i < 256; ++i) {
      const unsigned half = i / 128, quarter = i % 128 / 32, l = i % 32;
      block.set_bits(64 * half + 32 * (quarter % 2) + l, quarter < 2 ? 0 : 4, 4, code(i) & 15u);
      block.set_bits(128 + 32 * half + l, 2 * quarter, 2, code(i) >> 4);
    }
    const std::vector<float> values = block.decoded();
    for (unsigned i = 0; i < 256; ++i) {
      // d times an int8 is exact in float32; 16 columns share it.
      const double want = d * scale(i / 16) * (static_cast<int>(code(i)) - 32);
      ASSERT_EQ(values[i], static_cast<float>(want)) << t << " " << i;
    }
  }
}

// ---- Weights of a whole projection.

/// o_proj [out, in] of a layer with one head; its weights are given by name.
struct OneWeight {
  Case c;
  std::int64_t in;

  OneWeight(std::int64_t out, std::int64_t columns, const QuantConfig& quant) : in(columns) {
    c.config.num_attention_heads = c.config.num_key_value_heads = 1;
    c.config.head_dim = c.config.head_dim_v = in;
    c.config.hidden_size = out;
    c.config.quant = quant;
  }

  std::vector<float> row(std::int64_t n, std::int64_t before = 0) const {
    Rows rows(before + 1, in);
    open_weight(c, Matrix::kO)->decode(n - before, rows);
    return {rows.row(before), rows.row(before) + in};
  }
};

QuantConfig all_projections(QuantEncoding encoding) {
  QuantConfig quant;
  quant.q_proj = quant.k_proj = quant.v_proj = quant.o_proj = encoding;
  return quant;
}

Tensor random_codes(ElementType type, const Shape& shape, std::uint64_t seed) {
  Tensor tensor(type, shape);
  const RandomStream random(seed, "codes");
  for (std::int64_t i = 0; i < tensor.size(); ++i) {
    const std::uint64_t all = element_size(type) == 4 ? 0xffffffffu : 0xffu;
    tensor.set_code(i, random.bits(static_cast<std::uint64_t>(i)) & all);
  }
  return tensor;
}

Tensor uniform_tensor(ElementType type, const Shape& shape, std::uint64_t seed) {
  Tensor tensor(type, shape);
  const RandomStream random(seed, "values");
  for (std::int64_t i = 0; i < tensor.size(); ++i) {
    tensor.set_value(i, 0.01 + random.uniform(static_cast<std::uint64_t>(i)));
  }
  return tensor;
}

void expect_same(float got, double want, const std::string& what) {
  if (std::isnan(want)) {
    EXPECT_TRUE(std::isnan(got)) << what;
  } else {
    EXPECT_EQ(got, static_cast<float>(want)) << what;
  }
}

/// Codes as the bytes of a column read one after the other: a byte is two 4-bit codes, the first in
/// its low half, or one 8-bit code.
unsigned gptq_code(const Tensor& qweight, std::int64_t bits, std::int64_t k, std::int64_t n) {
  const std::int64_t byte = k * bits / 8;
  const std::byte* const word = qweight.data() + (byte / 4 * qweight.dim(1) + n) * 4;
  const unsigned value = std::to_integer<unsigned>(word[byte % 4]);
  return bits == 8 ? value : (k % 2 == 0 ? value & 15u : value >> 4);
}

TEST(CpuGptq, EveryCodeInEveryPlaceOfOddPanels) {
  struct Layout {
    std::int64_t bits, out, in, group_size;
    bool desc_act;
  };
  for (const Layout& l :
       {Layout{4, 13, 256, 128, false}, Layout{4, 7, 96, 32, true}, Layout{4, 16, 64, -1, false},
        Layout{8, 13, 256, 64, false}, Layout{8, 6, 96, 32, true}, Layout{4, 5, 30, 10, true},
        Layout{8, 5, 30, -1, false}}) {
    QuantConfig quant = all_projections(QuantEncoding::kGptq);
    quant.bits = l.bits;
    quant.group_size = l.group_size;
    quant.desc_act = l.desc_act;
    OneWeight w(l.out, l.in, quant);
    const std::int64_t group = l.group_size > 0 ? l.group_size : l.in;
    const Tensor qweight = random_codes(ElementType::kInt32, {(l.in * l.bits + 31) / 32, l.out}, 3);
    const Tensor scales = uniform_tensor(ElementType::kFloat16, {l.in / group, l.out}, 4);
    Tensor g_idx(ElementType::kInt32, {l.in});
    for (std::int64_t k = 0; k < l.in; ++k) {
      // 7 is prime to every `in` above, so desc_act deals the columns out without order.
      const std::int64_t from = l.desc_act ? k * 7 % l.in : k;
      g_idx.set_code(k, static_cast<std::uint64_t>(from / group));
    }
    w.c.weights = {{"o_proj.qweight", qweight}, {"o_proj.scales", scales}, {"o_proj.g_idx", g_idx}};
    for (std::int64_t n = 0; n < l.out; ++n) {
      const std::vector<float> row = w.row(n, /*before=*/n % 6);
      for (std::int64_t k = 0; k < l.in; ++k) {
        const int code = static_cast<int>(gptq_code(qweight, l.bits, k, n));
        const double scale = scales.value(static_cast<std::int64_t>(g_idx.code(k)) * l.out + n);
        ASSERT_EQ(static_cast<double>(row[static_cast<std::size_t>(k)]),
                  (code - (1 << (l.bits - 1))) * scale)
            << l.bits << " bits, n " << n << " k " << k;
      }
    }
  }
}

/// By hand: words 0x0000000f and 0x80000000 of column 0: code 15 at k = 0, code 8 at k = 15, 0
/// else.
TEST(CpuGptq, ByHand) {
  QuantConfig quant = all_projections(QuantEncoding::kGptq);
  quant.group_size = 8;
  OneWeight w(1, 16, quant);
  Tensor qweight(ElementType::kInt32, {2, 1});
  qweight.set_code(0, 0x0000000f);
  qweight.set_code(1, 0x80000000);
  Tensor g_idx(ElementType::kInt32, {16});
  for (std::int64_t k = 8; k < 16; ++k) g_idx.set_code(k, 1);
  w.c.weights = {{"o_proj.qweight", qweight},
                 {"o_proj.scales", Tensor::from_values(ElementType::kFloat16, {2, 1},
                                                       std::vector<double>{0.5, 2.0})},
                 {"o_proj.g_idx", g_idx}};
  const std::vector<float> row = w.row(0);
  EXPECT_EQ(row[0], 3.5f);
  EXPECT_EQ(row[1], -4.0f);
  EXPECT_EQ(row[7], -4.0f);
  EXPECT_EQ(row[8], -16.0f);
  EXPECT_EQ(row[15], 0.0f);
  EXPECT_FALSE(std::signbit(row[15]));
}

TEST(CpuFp8Weights, EveryCodeTimesTheScaleOfItsRowBlockOrTensor) {
  constexpr std::int64_t kOut = 11, kIn = 50;  // blocks that do not divide them
  struct Layout {
    WeightGranularity granularity;
    std::int64_t block_n, block_k;
    Shape scale;
  };
  for (const Layout& l : {Layout{WeightGranularity::kTensor, 128, 128, {}},
                          Layout{WeightGranularity::kRowwise, 128, 128, {kOut, 1}},
                          Layout{WeightGranularity::kBlock, 3, 16, {4, 4}}}) {
    QuantConfig quant = all_projections(QuantEncoding::kFloat8E4M3FN);
    quant.weight_granularity = l.granularity;
    quant.block_n = l.block_n;
    quant.block_k = l.block_k;
    OneWeight w(kOut, kIn, quant);
    Tensor codes(ElementType::kFloat8E4M3FN, {kOut, kIn});
    for (std::int64_t i = 0; i < codes.size(); ++i) {
      codes.set_code(i, static_cast<std::uint64_t>(i) & 0xffu);  // all of them, twice
    }
    const Tensor scale = uniform_tensor(ElementType::kFloat32, l.scale, 5);
    w.c.weights = {{"o_proj.weight", codes}, {"o_proj.weight_scale", scale}};
    for (std::int64_t n = 0; n < kOut; ++n) {
      // Panels begin in any row of a block.
      const std::vector<float> row = w.row(n, std::min<std::int64_t>(n, n * 2 % 5));
      for (std::int64_t k = 0; k < kIn; ++k) {
        std::int64_t at = 0;
        if (l.granularity == WeightGranularity::kRowwise) at = n;
        if (l.granularity == WeightGranularity::kBlock) at = n / 3 * 4 + k / 16;
        expect_same(row[static_cast<std::size_t>(k)], codes.value(n * kIn + k) * scale.value(at),
                    std::to_string(n) + " " + std::to_string(k));
      }
    }
  }
}

TEST(CpuFp4Weights, BothNibblesOfEveryByteTimesTheirScales) {
  for (const QuantEncoding encoding : {QuantEncoding::kNvfp4, QuantEncoding::kMxfp4}) {
    const bool nv = encoding == QuantEncoding::kNvfp4;
    const std::int64_t block = nv ? 16 : 32;
    constexpr std::int64_t kOut = 5, kIn = 128;  // 320 bytes: every one at least once
    OneWeight w(kOut, kIn, all_projections(encoding));
    Tensor codes(ElementType::kUInt8, {kOut, kIn / 2});
    for (std::int64_t i = 0; i < codes.size(); ++i) {
      codes.set_code(i, static_cast<std::uint64_t>(i) & 0xffu);
    }
    Tensor scale(nv ? ElementType::kFloat8E4M3FN : ElementType::kFloat8E8M0FNU,
                 {kOut, kIn / block});
    for (std::int64_t i = 0; i < scale.size(); ++i) {
      // Of e4m3fn some negative, whose sign is not used; of e8m0 from 2^-127 on.
      scale.set_code(i, nv ? 0x31u + static_cast<std::uint64_t>(i) * 37u % 192u
                           : static_cast<std::uint64_t>(i) * 9u);
    }
    w.c.weights = {{"o_proj.weight", codes}, {"o_proj.weight_scale", scale}};
    if (nv) w.c.weights["o_proj.weight_scale_2"] = Tensor::scalar(ElementType::kFloat32, 0.37);
    const double scale_2 = nv ? static_cast<double>(0.37f) : 1.0;
    const double e2m1[] = {0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0};
    for (std::int64_t n = 0; n < kOut; ++n) {
      const std::vector<float> row = w.row(n, n % 2);
      for (std::int64_t k = 0; k < kIn; ++k) {
        const std::uint64_t byte = codes.code(n * kIn / 2 + k / 2);
        const std::uint64_t code = k % 2 == 0 ? byte & 15u : byte >> 4;
        const double magnitude = e2m1[code & 7u] * (code >= 8 ? -1.0 : 1.0);
        const double block_scale = std::abs(scale.value(n * (kIn / block) + k / block));
        expect_same(row[static_cast<std::size_t>(k)], magnitude * block_scale * scale_2,
                    std::string(name_of(encoding)) + " " + std::to_string(n * kIn + k));
      }
    }
  }
}

TEST(CpuMxfp8Weights, EveryCodeTimesThePowerOfItsBlock) {
  constexpr std::int64_t kOut = 4, kIn = 64;
  OneWeight w(kOut, kIn, all_projections(QuantEncoding::kMxfp8));
  Tensor codes(ElementType::kFloat8E4M3FN, {kOut, kIn});
  for (std::int64_t i = 0; i < codes.size(); ++i) codes.set_code(i, static_cast<std::uint64_t>(i));
  Tensor scale(ElementType::kFloat8E8M0FNU, {kOut, 2});
  for (std::int64_t i = 0; i < scale.size(); ++i) {
    scale.set_code(i, 100u + 7u * static_cast<std::uint64_t>(i));
  }
  w.c.weights = {{"o_proj.weight", codes}, {"o_proj.weight_scale", scale}};
  for (std::int64_t n = 0; n < kOut; ++n) {
    const std::vector<float> row = w.row(n);
    for (std::int64_t k = 0; k < kIn; ++k) {
      expect_same(row[static_cast<std::size_t>(k)],
                  codes.value(n * kIn + k) *
                      std::exp2(100.0 + 7.0 * static_cast<double>(2 * n + k / 32) - 127.0),
                  std::to_string(n * kIn + k));
    }
  }
}

// ---- What q, k and v share.

/// Weights of one row and as many columns as codes, all three with these codes.
Case qkv_case(const std::vector<double>& values, const std::vector<double>& scales,
              ActivationQuant activation) {
  Case c;
  c.config.num_attention_heads = c.config.num_key_value_heads = 1;
  c.config.head_dim = c.config.head_dim_v = 1;
  c.config.hidden_size = static_cast<std::int64_t>(values.size());
  c.config.quant = all_projections(QuantEncoding::kFloat8E4M3FN);
  c.config.quant->activation = activation;
  std::size_t i = 0;
  for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
    c.weights[std::string(name) + ".weight"] =
        Tensor::from_values(ElementType::kFloat8E4M3FN, {1, c.config.hidden_size}, values);
    c.weights[std::string(name) + ".weight_scale"] =
        Tensor::scalar(ElementType::kFloat32, scales[i++]);
  }
  return c;
}

std::vector<float> decoded(const Case& c, Matrix matrix) {
  Rows rows(1, c.config.hidden_size);
  open_weight(c, matrix)->decode(0, rows);
  return {rows.row(0), rows.row(0) + rows.width};
}

/// s_max is 2. With 0.5 the codes are divided by 4: 2^-9 becomes 2^-11, a quarter of the smallest
/// code, and so 0. With 0.3: 0.15 is 9.6 steps of 2^-6, so 10 of them; 448 * 0.15 = 67.2 is 8.4
/// steps of 8, so 64.
TEST(CpuFp8Weights, StaticPerTensorScalesAreMergedByRequantising) {
  const std::vector<double> values = {1.0, 448.0, 0x1p-9, -1.0};
  const Case c = qkv_case(values, {2.0, 0.5, 0.3}, ActivationQuant::kStatic);
  EXPECT_EQ(largest_qkv_scale(c, "weight_scale"), 2.0f);
  EXPECT_EQ(decoded(c, Matrix::kQ), (std::vector<float>{2.0f, 896.0f, 0x1p-8f, -2.0f}));
  EXPECT_EQ(decoded(c, Matrix::kK), (std::vector<float>{0.5f, 224.0f, 0.0f, -0.5f}));
  EXPECT_EQ(decoded(c, Matrix::kV), (std::vector<float>{0.3125f, 128.0f, 0.0f, -0.3125f}));
}

TEST(CpuFp8Weights, DynamicActivationsLeaveEachProjectionItsOwnScale) {
  for (const ActivationQuant activation : {ActivationQuant::kToken, ActivationQuant::kNone}) {
    const Case c = qkv_case({1.0, 448.0, 0x1p-9}, {2.0, 0.5, 0.3}, activation);
    EXPECT_EQ(decoded(c, Matrix::kK), (std::vector<float>{0.5f, 224.0f, 0x1p-10f}));
    EXPECT_EQ(decoded(c, Matrix::kV), (std::vector<float>{0.3f, 448.0f * 0.3f, 0x1p-9f * 0.3f}));
  }
}

TEST(CpuFp8Weights, TheOutputProjectionIsNotMerged) {
  Case c = qkv_case({1.0}, {2.0, 0.5, 0.3}, ActivationQuant::kStatic);
  c.weights["o_proj.weight"] = c.weights.at("q_proj.weight");
  c.weights["o_proj.weight_scale"] = Tensor::scalar(ElementType::kFloat32, 0.3);
  EXPECT_EQ(decoded(c, Matrix::kO), (std::vector<float>{0.3f}));
}

/// The bound acts on the codes' values: 1.5 of them, whatever the scale.
TEST(CpuFp8Weights, ClipBoundsTheCodesBeforeTheScale) {
  Case c = qkv_case({1.0, 448.0, -2.0}, {2.0, 2.0, 1.0}, ActivationQuant::kToken);
  c.config.clip_qkv = 1.5;
  EXPECT_EQ(decoded(c, Matrix::kQ), (std::vector<float>{2.0f, 3.0f, -3.0f}));
  c.config.quant->activation = ActivationQuant::kStatic;
  EXPECT_EQ(decoded(c, Matrix::kV), (std::vector<float>{1.0f, 1.5f, -1.5f}));
}

TEST(CpuFp8Weights, MaterializeMergesWhatItWasGiven) {
  Case c = qkv_case({1.0}, {8.0, 0.5, 1.0}, ActivationQuant::kStatic);
  EXPECT_EQ(largest_qkv_scale(c, "weight_scale"), 8.0f);
  c.weights.erase("q_proj.weight_scale");
  EXPECT_EQ(largest_qkv_scale(c, "weight_scale"), 1.0f);
}

TEST(CpuNvfp4Weights, EachProjectionHasItsOwnSecondScale) {
  Case c;
  c.config.num_attention_heads = c.config.num_key_value_heads = 1;
  c.config.head_dim = c.config.head_dim_v = 1;
  c.config.hidden_size = 16;
  c.config.quant = all_projections(QuantEncoding::kNvfp4);
  double scale_2 = 1.0;
  for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
    const std::string prefix = name;
    c.weights[prefix + ".weight"] = Tensor(ElementType::kUInt8, {1, 8});
    for (std::int64_t i = 0; i < 8; ++i) c.weights[prefix + ".weight"].set_code(i, 0x72);  // 1, 6
    c.weights[prefix + ".weight_scale"] =
        Tensor::from_values(ElementType::kFloat8E4M3FN, {1, 1}, std::vector<double>{1.5});
    c.weights[prefix + ".weight_scale_2"] = Tensor::scalar(ElementType::kFloat32, scale_2);
    scale_2 /= 4.0;
  }
  EXPECT_EQ(decoded(c, Matrix::kQ)[0], 1.5f);
  EXPECT_EQ(decoded(c, Matrix::kK)[0], 0.375f);
  EXPECT_EQ(decoded(c, Matrix::kV)[1], 9.0f / 16.0f);
}

TEST(CpuNumbers, EveryHalfHasItsValue) {
  for (unsigned code = 0; code < 0x10000; ++code) {
    expect_same(float_from_half(static_cast<std::uint16_t>(code)),
                attn::decode(ElementType::kFloat16, code), std::to_string(code));
  }
}

}  // namespace
}  // namespace attn::harness::cpu
