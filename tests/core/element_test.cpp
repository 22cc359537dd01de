#include "reference/core/element.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "reference/core/error.h"
#include "reference/core/philox.h"

namespace attn {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
const double kNaN = std::numeric_limits<double>::quiet_NaN();

bool is_negative_zero(double value) { return value == 0.0 && std::signbit(value); }

/// A format as its specification words it, decoded with ldexp: shares nothing with the codec.
struct Spec {
  ElementType type;
  int exponent_bits;
  int mantissa_bits;
  int bias;
  std::uint64_t max_code;  // of the largest finite value
  std::uint64_t nan_code;  // what NaN is encoded to
  bool saturates;
  bool has_infinity;
  bool has_negative_zero;

  std::uint64_t sign_code() const { return std::uint64_t{1} << (exponent_bits + mantissa_bits); }
  double value(std::uint64_t magnitude) const {
    const auto exponent = static_cast<int>(magnitude >> mantissa_bits);
    const auto mantissa =
        static_cast<double>(magnitude & ((std::uint64_t{1} << mantissa_bits) - 1));
    const double one = std::ldexp(1.0, mantissa_bits);
    if (exponent == 0) return std::ldexp(mantissa / one, 1 - bias);
    return std::ldexp(1.0 + mantissa / one, exponent - bias);
  }
};

const Spec kSpecs[] = {
    {ElementType::kFloat16, 5, 10, 15, 0x7bff, 0x7e00, false, true, true},
    {ElementType::kBFloat16, 8, 7, 127, 0x7f7f, 0x7fc0, false, true, true},
    {ElementType::kFloat8E4M3FN, 4, 3, 7, 0x7e, 0x7f, true, false, true},
    {ElementType::kFloat8E4M3FNUZ, 4, 3, 8, 0x7f, 0x80, true, false, false},
    {ElementType::kFloat8E5M2, 5, 2, 15, 0x7b, 0x7e, true, true, true},
    {ElementType::kFloat4E2M1FN, 2, 1, 1, 0x7, 0x7, true, false, true},
};

class Codec : public testing::TestWithParam<Spec> {
 protected:
  /// Code of -v, given the code of v.
  static std::uint64_t negative(std::uint64_t code) {
    return code == 0 && !GetParam().has_negative_zero ? 0 : code | GetParam().sign_code();
  }
  static std::uint64_t encoded(double value) { return encode(GetParam().type, value); }
};

TEST_P(Codec, DecodesEveryCode) {
  const Spec& spec = GetParam();
  for (std::uint64_t code = 0; code < 2 * spec.sign_code(); ++code) {
    const std::uint64_t magnitude = code & (spec.sign_code() - 1);
    const double sign = code == magnitude ? 1.0 : -1.0;
    const double value = decode(spec.type, code);
    if (code == spec.sign_code() && !spec.has_negative_zero) {
      EXPECT_TRUE(std::isnan(value)) << code;
    } else if (magnitude <= spec.max_code) {
      EXPECT_EQ(value, sign * spec.value(magnitude)) << code;
      EXPECT_EQ(std::signbit(value), sign < 0) << code;
    } else if (spec.has_infinity && magnitude == spec.max_code + 1) {
      EXPECT_EQ(value, sign * kInfinity) << code;
    } else {
      EXPECT_TRUE(std::isnan(value)) << code;
    }
  }
}

TEST_P(Codec, EncodesEveryValueToItsCode) {
  const Spec& spec = GetParam();
  for (std::uint64_t code = 0; code <= spec.max_code; ++code) {
    EXPECT_EQ(encoded(spec.value(code)), code);
    EXPECT_EQ(encoded(-spec.value(code)), negative(code));
  }
}

// The midpoint of two neighbours has one bit more than they have, so it is exact in double; the
// doubles next to it must already go to the nearer code. A codec that rounds through float32 fails
// here: those doubles are nearer to the midpoint than any float32.
TEST_P(Codec, RoundsEveryTieToEvenAndItsNeighboursToTheNearer) {
  const Spec& spec = GetParam();
  for (std::uint64_t code = 0; code < spec.max_code; ++code) {
    const double tie = (spec.value(code) + spec.value(code + 1)) / 2;
    const std::uint64_t even = code % 2 == 0 ? code : code + 1;
    ASSERT_EQ(encoded(tie), even) << "tie above code " << code;
    ASSERT_EQ(encoded(std::nextafter(tie, 0.0)), code) << "below the tie above code " << code;
    ASSERT_EQ(encoded(std::nextafter(tie, kInfinity)), code + 1) << "above the tie, code " << code;
    ASSERT_EQ(encoded(-tie), negative(even)) << "tie below code -" << code;
    ASSERT_EQ(encoded(-std::nextafter(tie, 0.0)), negative(code)) << code;
    ASSERT_EQ(encoded(-std::nextafter(tie, kInfinity)), negative(code + 1)) << code;
  }
}

TEST_P(Codec, HandlesWhatLiesBeyondTheLargestValue) {
  const Spec& spec = GetParam();
  const double largest = spec.value(spec.max_code);
  const double step = largest - spec.value(spec.max_code - 1);
  const double tie = largest + step / 2;  // with the first value that the format lacks
  const std::uint64_t beyond = spec.saturates ? spec.max_code : spec.max_code + 1;
  EXPECT_EQ(encoded(std::nextafter(tie, 0.0)), spec.max_code);
  for (const double value : {tie, std::nextafter(tie, kInfinity), largest + step, 1e300,
                             std::numeric_limits<double>::max(), kInfinity}) {
    EXPECT_EQ(encoded(value), beyond) << value;
    EXPECT_EQ(encoded(-value), negative(beyond)) << value;
  }
}

TEST_P(Codec, HandlesZerosNaNAndTheSmallestDoubles) {
  const Spec& spec = GetParam();
  EXPECT_EQ(encoded(0.0), 0U);
  EXPECT_EQ(encoded(-0.0), negative(0));
  EXPECT_EQ(encoded(std::numeric_limits<double>::denorm_min()), 0U);
  EXPECT_EQ(encoded(-std::numeric_limits<double>::denorm_min()), negative(0));
  for (const double nan : {kNaN, -kNaN, std::numeric_limits<double>::signaling_NaN()}) {
    EXPECT_EQ(encoded(nan), spec.nan_code);
  }
}

TEST_P(Codec, StatesItsLimits) {
  const Spec& spec = GetParam();
  EXPECT_EQ(max_finite(spec.type), spec.value(spec.max_code));
  EXPECT_EQ(min_subnormal(spec.type), spec.value(1));
  const double next_to_one = round_to(spec.type, 1.0 + std::ldexp(1.0, -spec.mantissa_bits));
  EXPECT_EQ(unit_roundoff(spec.type), (next_to_one - 1.0) / 2);
}

INSTANTIATE_TEST_SUITE_P(Types, Codec, testing::ValuesIn(kSpecs), [](const auto& test) {
  return std::string(element_name(test.param.type));
});

// Values printed in the formats' own documents (OCP FP8 and MX specifications, IEEE 754).
TEST(Element, KnowsPublishedValues) {
  EXPECT_EQ(max_finite(ElementType::kFloat8E4M3FN), 448.0);
  EXPECT_EQ(max_finite(ElementType::kFloat8E4M3FNUZ), 240.0);
  EXPECT_EQ(max_finite(ElementType::kFloat8E5M2), 57344.0);
  EXPECT_EQ(max_finite(ElementType::kFloat4E2M1FN), 6.0);
  EXPECT_EQ(max_finite(ElementType::kFloat16), 65504.0);
  EXPECT_EQ(max_finite(ElementType::kBFloat16), 0x1.fep127);
  EXPECT_EQ(max_finite(ElementType::kFloat8E8M0FNU), 0x1p127);
  EXPECT_EQ(min_subnormal(ElementType::kFloat8E4M3FN), 0x1p-9);
  EXPECT_EQ(min_subnormal(ElementType::kFloat8E4M3FNUZ), 0x1p-10);
  EXPECT_EQ(min_subnormal(ElementType::kFloat8E5M2), 0x1p-16);
  EXPECT_EQ(min_subnormal(ElementType::kFloat16), 0x1p-24);
  EXPECT_EQ(min_subnormal(ElementType::kBFloat16), 0x1p-133);
  EXPECT_EQ(min_subnormal(ElementType::kFloat8E8M0FNU), 0x1p-127);
  EXPECT_EQ(unit_roundoff(ElementType::kFloat64), 0x1p-53);
  EXPECT_EQ(unit_roundoff(ElementType::kFloat32), 0x1p-24);
  EXPECT_EQ(unit_roundoff(ElementType::kFloat16), 0x1p-11);
  EXPECT_EQ(unit_roundoff(ElementType::kBFloat16), 0x1p-8);
  EXPECT_EQ(unit_roundoff(ElementType::kFloat8E4M3FN), 0x1p-4);
  EXPECT_EQ(unit_roundoff(ElementType::kFloat8E5M2), 0x1p-3);
  EXPECT_EQ(unit_roundoff(ElementType::kFloat4E2M1FN), 0x1p-2);
  const double e2m1[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  for (std::uint64_t code = 0; code < 8; ++code) {
    EXPECT_EQ(decode(ElementType::kFloat4E2M1FN, code), e2m1[code]);
    EXPECT_EQ(decode(ElementType::kFloat4E2M1FN, code | 8), -e2m1[code]);
  }
}

// 1 + 2^-8 is halfway between the bfloat16 neighbours 1 and 1 + 2^-7. Just above it, the right code
// is the upper one; through float32 the excess is lost and the tie goes down to 1.
TEST(Element, RoundsOnceFromDouble) {
  const double value = 1.0 + 0x1p-8 + 0x1p-40;
  EXPECT_EQ(round_to(ElementType::kBFloat16, value), 1.0 + 0x1p-7);
  EXPECT_EQ(round_to(ElementType::kBFloat16, static_cast<float>(value)), 1.0);
}

TEST(Element, RoundsToTheNearestPowerOfTwo) {
  const ElementType type = ElementType::kFloat8E8M0FNU;
  for (int exponent = -127; exponent <= 127; ++exponent) {
    const std::uint64_t code = static_cast<unsigned>(exponent + 127);
    const double value = std::ldexp(1.0, exponent);
    EXPECT_EQ(decode(type, code), value);
    EXPECT_EQ(encode(type, value), code);
    const double tie = 1.5 * value;  // midway to 2 * value; goes up
    EXPECT_EQ(encode(type, std::nextafter(tie, 0.0)), code);
    EXPECT_EQ(encode(type, tie), std::min<std::uint64_t>(code + 1, 254));
    EXPECT_EQ(encode(type, std::nextafter(tie, kInfinity)), std::min<std::uint64_t>(code + 1, 254));
  }
  EXPECT_TRUE(std::isnan(decode(type, 0xff)));
  EXPECT_EQ(encode(type, kInfinity), 254U);
  EXPECT_EQ(encode(type, std::numeric_limits<double>::denorm_min()), 0U);
  for (const double value : {0.0, -0.0, -1.0, -kInfinity, kNaN}) {
    EXPECT_EQ(encode(type, value), 0xffU) << value;
  }
}

// All float32 exponents, random mantissas: the tie with the next float32 and its neighbours.
TEST(Element, RoundsFloat32) {
  const RandomStream random(7, "float32");
  for (std::uint32_t i = 0; i < 255 * 64; ++i) {
    const auto mantissa = static_cast<std::uint32_t>(random.below(i, 0x7fffff));
    const std::uint32_t code = (i / 64) << 23 | mantissa;
    const double value = std::bit_cast<float>(code);
    const double tie = (value + static_cast<double>(std::bit_cast<float>(code + 1))) / 2;
    ASSERT_EQ(decode(ElementType::kFloat32, code), value);
    ASSERT_EQ(encode(ElementType::kFloat32, value), code);
    ASSERT_EQ(encode(ElementType::kFloat32, tie), code + code % 2);
    ASSERT_EQ(encode(ElementType::kFloat32, std::nextafter(tie, 0.0)), code);
    ASSERT_EQ(encode(ElementType::kFloat32, std::nextafter(tie, kInfinity)), code + 1);
  }
  EXPECT_EQ(encode(ElementType::kFloat32, 1e300), 0x7f800000U);
  EXPECT_EQ(encode(ElementType::kFloat32, -1e300), 0xff800000U);
  EXPECT_EQ(encode(ElementType::kFloat32, -0.0), 0x80000000U);
  EXPECT_EQ(encode(ElementType::kFloat32, -kNaN), 0x7fc00000U);
}

TEST(Element, KeepsFloat64) {
  for (const double value : {0.0, -0.0, 1.0 / 3.0, -1e308, 5e-324, kInfinity, -kInfinity}) {
    EXPECT_EQ(encode(ElementType::kFloat64, value), std::bit_cast<std::uint64_t>(value));
    EXPECT_EQ(round_to(ElementType::kFloat64, value), value);
  }
  EXPECT_TRUE(is_negative_zero(round_to(ElementType::kFloat64, -0.0)));
  EXPECT_EQ(encode(ElementType::kFloat64, -kNaN), 0x7ff8000000000000U);
}

TEST(Element, RoundsAndSaturatesIntegers) {
  EXPECT_EQ(round_to(ElementType::kInt32, 2.5), 2.0);
  EXPECT_EQ(round_to(ElementType::kInt32, 3.5), 4.0);
  EXPECT_EQ(round_to(ElementType::kInt32, -2.5), -2.0);
  EXPECT_EQ(round_to(ElementType::kInt32, 1e10), 2147483647.0);
  EXPECT_EQ(round_to(ElementType::kInt32, -1e10), -2147483648.0);
  EXPECT_EQ(round_to(ElementType::kUInt32, -1.0), 0.0);
  EXPECT_EQ(round_to(ElementType::kUInt32, 4294967295.0), 4294967295.0);
  EXPECT_EQ(round_to(ElementType::kUInt32, 4294967295.7), 4294967295.0);
  EXPECT_EQ(round_to(ElementType::kUInt8, 300.0), 255.0);
  EXPECT_EQ(round_to(ElementType::kInt64, 1e300), 0x1p63);
  EXPECT_EQ(encode(ElementType::kInt64, 1e300), 0x7fffffffffffffffU);
  EXPECT_EQ(encode(ElementType::kInt64, -1e300), 0x8000000000000000U);
  EXPECT_EQ(round_to(ElementType::kInt64, -5.0), -5.0);
  EXPECT_EQ(round_to(ElementType::kUInt8, kNaN), 0.0);
}

class EveryType : public testing::TestWithParam<int> {
 protected:
  static ElementType type() { return static_cast<ElementType>(GetParam()); }
};

TEST_P(EveryType, BulkAgreesWithOneAtATime) {
  const RandomStream random(11, "bulk");
  std::vector<double> values{0.0, -0.0, kInfinity, -kInfinity, kNaN, 1e-40, -1e-310, 1e39, 255.5};
  for (std::uint64_t i = 0; i < 5000; ++i) {
    const int exponent = static_cast<int>(random.below(2 * i, 300)) - 150;
    values.push_back(std::ldexp(random.normal(i), exponent));
  }
  const std::size_t size = element_size(type());
  std::vector<std::byte> bytes(values.size() * size);
  encode_all(type(), values, bytes.data());
  std::vector<double> decoded(values.size());
  decode_all(type(), bytes.data(), decoded);
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint64_t code = 0;
    for (std::size_t b = 0; b < size; ++b) {
      code |= std::to_integer<std::uint64_t>(bytes[i * size + b]) << (8 * b);
    }
    ASSERT_EQ(code, encode(type(), values[i])) << values[i];
    ASSERT_EQ(std::bit_cast<std::uint64_t>(decoded[i]),
              std::bit_cast<std::uint64_t>(decode(type(), code)))
        << values[i];
  }
}

TEST_P(EveryType, IsFoundByItsName) {
  EXPECT_EQ(parse_element_type(element_name(type())), type());
  EXPECT_THROW(parse_element_type(std::string(element_name(type())) + "x"), Error);
}

INSTANTIATE_TEST_SUITE_P(Types, EveryType,
                         testing::Range(0, static_cast<int>(ElementType::kUInt8) + 1),
                         [](const auto& test) {
                           return std::string(element_name(static_cast<ElementType>(test.param)));
                         });

TEST(Element, NamesTheNearestType) {
  try {
    parse_element_type("bfloat61");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kConfig);
    EXPECT_NE(std::string(error.what()).find("did you mean \"bfloat16\"?"), std::string::npos);
  }
}

}  // namespace
}  // namespace attn
