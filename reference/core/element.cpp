#include "reference/core/element.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "reference/core/error.h"

namespace attn {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors hold little-endian bytes");
static_assert(std::numeric_limits<double>::is_iec559);

/// A binary floating-point format: sign bit, exponent, mantissa.
struct Format {
  int exponent_bits;
  int mantissa_bits;
  int bias;
  std::uint64_t max_finite;  ///< code of the largest finite value
  std::uint64_t nan;         ///< code that stands for NaN
  bool infinity;             ///< max_finite + 1 is infinity, codes beyond it are NaN
  bool saturates;            ///< values beyond max_finite become max_finite, not infinity
  bool negative_zero = true;

  constexpr int sign_bit() const { return exponent_bits + mantissa_bits; }
  constexpr std::uint64_t overflow() const { return saturates ? max_finite : max_finite + 1; }
};

constexpr Format kFloat32Format{8, 23, 127, 0x7f7fffff, 0x7fc00000, true, false};
constexpr Format kFloat16Format{5, 10, 15, 0x7bff, 0x7e00, true, false};
constexpr Format kBFloat16Format{8, 7, 127, 0x7f7f, 0x7fc0, true, false};
constexpr Format kE4M3FNFormat{4, 3, 7, 0x7e, 0x7f, false, true};
constexpr Format kE4M3FNUZFormat{4, 3, 8, 0x7f, 0x80, false, true, false};
constexpr Format kE5M2Format{5, 2, 15, 0x7b, 0x7e, true, true};
constexpr Format kE2M1Format{2, 1, 1, 0x7, 0x7, false, true};  // no NaN: its largest value instead

constexpr std::uint64_t kE8M0NaN = 0xff;
constexpr std::int64_t kE8M0Bias = 127;

constexpr std::uint64_t kDoubleSign = std::uint64_t{1} << 63;
constexpr std::uint64_t kDoubleInfinity = 0x7ff0000000000000;
constexpr std::uint64_t kDoubleNaN = 0x7ff8000000000000;

constexpr std::uint64_t bits_of(double value) { return std::bit_cast<std::uint64_t>(value); }
constexpr double double_of(std::uint64_t bits) { return std::bit_cast<double>(bits); }
constexpr double power_of_two(std::int64_t exponent) {
  return double_of(static_cast<std::uint64_t>(1023 + exponent) << 52);
}
constexpr double smallest(const Format& f) { return power_of_two(1 - f.bias - f.mantissa_bits); }

/// Rounds to nearest even straight from the bits of the double. Selects instead of branches keep
/// the bulk loops fast whatever the values are.
template <const Format& F>
constexpr std::uint64_t encode_float(double value) {
  constexpr int kDropped = 52 - F.mantissa_bits;
  constexpr std::uint64_t kRebias = static_cast<std::uint64_t>(1023 - F.bias) << F.mantissa_bits;
  constexpr std::uint64_t kSmallestNormal = bits_of(power_of_two(1 - F.bias));
  // Doubles in [kMagic, 2 * kMagic) are spaced by the format's smallest value: the addition rounds
  // to a multiple of it, and the low bits of the sum are the subnormal code.
  constexpr double kMagic = smallest(F) * 0x1p52;

  const std::uint64_t magnitude = bits_of(value) & ~kDoubleSign;
  const std::uint64_t sign = (bits_of(value) >> 63) << F.sign_bit();
  const std::uint64_t odd = (magnitude >> kDropped) & 1;
  const std::uint64_t below_half = (std::uint64_t{1} << (kDropped - 1)) - 1;
  const std::uint64_t normal = ((magnitude + below_half + odd) >> kDropped) - kRebias;
  const std::uint64_t subnormal = bits_of(double_of(magnitude) + kMagic) - bits_of(kMagic);
  std::uint64_t code = magnitude < kSmallestNormal ? subnormal : normal;
  code = std::min(code, F.overflow());
  code |= F.negative_zero || code != 0 ? sign : 0;
  return magnitude > kDoubleInfinity ? F.nan : code;
}

template <const Format& F>
constexpr double decode_float(std::uint64_t code) {
  constexpr std::uint64_t kSign = std::uint64_t{1} << F.sign_bit();
  constexpr std::uint64_t kRebias = static_cast<std::uint64_t>(1023 - F.bias) << 52;

  const std::uint64_t magnitude = code & (kSign - 1);
  const std::uint64_t shifted = magnitude << (52 - F.mantissa_bits);
  std::uint64_t bits = shifted + kRebias;
  const double subnormal = static_cast<double>(static_cast<std::int64_t>(magnitude)) * smallest(F);
  bits = magnitude >> F.mantissa_bits == 0 ? bits_of(subnormal) : bits;
  if constexpr (F.infinity) {
    bits = magnitude > F.max_finite ? shifted | kDoubleInfinity : bits;
  } else if constexpr (F.nan != F.max_finite) {
    const bool is_nan = F.negative_zero ? magnitude == F.nan : (code & (2 * kSign - 1)) == F.nan;
    bits = is_nan ? kDoubleNaN : bits;
  }
  return double_of(bits | (code & kSign) << (63 - F.sign_bit()));
}

/// Nearest power of two in value: the midpoint of 2^e and 2^(e+1) is 1.5 * 2^e, so adding half of
/// the mantissa's range carries into the exponent exactly from the midpoint on (ties to the
/// larger).
std::uint64_t encode_e8m0(double value) {
  if (!(value > 0.0)) return kE8M0NaN;  // zero, negative and NaN
  const auto exponent =
      static_cast<std::int64_t>((bits_of(value) + (std::uint64_t{1} << 51)) >> 52);
  return static_cast<std::uint64_t>(
      std::clamp<std::int64_t>(exponent - 1023 + kE8M0Bias, 0, 2 * kE8M0Bias));
}

constexpr double decode_e8m0(std::uint64_t code) {
  code &= 0xff;
  return code == kE8M0NaN ? double_of(kDoubleNaN)
                          : power_of_two(static_cast<std::int64_t>(code) - kE8M0Bias);
}

/// Nearest integer, ties to even, saturating; NaN gives 0.
template <typename T>
std::uint64_t encode_integer(double value) {
  constexpr auto kLowest = static_cast<double>(std::numeric_limits<T>::min());
  constexpr auto kBeyond =
      2.0 * static_cast<double>(std::uint64_t{1} << (std::numeric_limits<T>::digits - 1));
  T code = 0;
  if (value >= kBeyond) {
    code = std::numeric_limits<T>::max();
  } else if (value <= kLowest) {
    code = std::numeric_limits<T>::min();
  } else if (value == value) {
    const double rounded = std::nearbyint(value);
    code = rounded >= kBeyond ? std::numeric_limits<T>::max() : static_cast<T>(rounded);
  }
  return static_cast<std::uint64_t>(code);
}

std::uint32_t float32_bits(double value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
  return value == value ? bits : static_cast<std::uint32_t>(kFloat32Format.nan);
}

template <typename Function>
constexpr std::array<double, 256> make_table(Function decode_code) {
  std::array<double, 256> table{};
  for (std::uint64_t code = 0; code < 256; ++code) table[code] = decode_code(code);
  return table;
}

constexpr std::array<double, 256> kE4M3FNValues = make_table(decode_float<kE4M3FNFormat>);
constexpr std::array<double, 256> kE4M3FNUZValues = make_table(decode_float<kE4M3FNUZFormat>);
constexpr std::array<double, 256> kE5M2Values = make_table(decode_float<kE5M2Format>);
constexpr std::array<double, 256> kE2M1Values = make_table(decode_float<kE2M1Format>);
constexpr std::array<double, 256> kE8M0Values = make_table(decode_e8m0);

/// values[i] = decode_one(element i), `Storage` being the unsigned (or native) type of an element.
template <typename Storage, typename Function>
void decode_each(const std::byte* bytes, std::span<double> values, Function decode_one) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    Storage code;
    std::memcpy(&code, bytes + i * sizeof(Storage), sizeof(Storage));
    values[i] = decode_one(code);
  }
}

template <typename Storage, typename Function>
void encode_each(std::span<const double> values, std::byte* bytes, Function encode_one) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto code = static_cast<Storage>(encode_one(values[i]));
    std::memcpy(bytes + i * sizeof(Storage), &code, sizeof(Storage));
  }
}

[[noreturn]] void throw_bad_type() {
  throw Error(ErrorKind::kInternal, "element type is not one of the enumeration");
}

struct TypeInfo {
  ElementType type;
  std::string_view name;
  std::size_t size;
  const Format* format;  ///< absent for float64, e8m0 and the integers
};

constexpr std::array<TypeInfo, 13> kTypes{{
    {ElementType::kFloat64, "float64", 8, nullptr},
    {ElementType::kFloat32, "float32", 4, &kFloat32Format},
    {ElementType::kFloat16, "float16", 2, &kFloat16Format},
    {ElementType::kBFloat16, "bfloat16", 2, &kBFloat16Format},
    {ElementType::kFloat8E4M3FN, "float8_e4m3fn", 1, &kE4M3FNFormat},
    {ElementType::kFloat8E4M3FNUZ, "float8_e4m3fnuz", 1, &kE4M3FNUZFormat},
    {ElementType::kFloat8E5M2, "float8_e5m2", 1, &kE5M2Format},
    {ElementType::kFloat4E2M1FN, "float4_e2m1fn", 1, &kE2M1Format},
    {ElementType::kFloat8E8M0FNU, "float8_e8m0fnu", 1, nullptr},
    {ElementType::kInt64, "int64", 8, nullptr},
    {ElementType::kInt32, "int32", 4, nullptr},
    {ElementType::kUInt32, "uint32", 4, nullptr},
    {ElementType::kUInt8, "uint8", 1, nullptr},
}};

const TypeInfo& info_of(ElementType type) {
  const auto index = static_cast<std::size_t>(type);
  if (index >= kTypes.size()) throw_bad_type();
  return kTypes[index];
}

}  // namespace

std::size_t element_size(ElementType type) { return info_of(type).size; }

std::string_view element_name(ElementType type) { return info_of(type).name; }

ElementType parse_element_type(std::string_view name) {
  std::vector<std::string> known;
  for (const TypeInfo& info : kTypes) {
    if (info.name == name) return info.type;
    known.emplace_back(info.name);
  }
  throw Error(ErrorKind::kConfig,
              "element type \"" + std::string(name) + "\" is unknown" + hint(name, known), "dtype",
              "13");
}

bool is_float(ElementType type) {
  const TypeInfo& info = info_of(type);
  return info.format != nullptr || type == ElementType::kFloat64 ||
         type == ElementType::kFloat8E8M0FNU;
}

double decode(ElementType type, std::uint64_t code) {
  switch (type) {
    case ElementType::kFloat64:
      return double_of(code);
    case ElementType::kFloat32:
      return std::bit_cast<float>(static_cast<std::uint32_t>(code));
    case ElementType::kFloat16:
      return decode_float<kFloat16Format>(code);
    case ElementType::kBFloat16:
      return decode_float<kBFloat16Format>(code);
    case ElementType::kFloat8E4M3FN:
      return kE4M3FNValues[code & 0xff];
    case ElementType::kFloat8E4M3FNUZ:
      return kE4M3FNUZValues[code & 0xff];
    case ElementType::kFloat8E5M2:
      return kE5M2Values[code & 0xff];
    case ElementType::kFloat4E2M1FN:
      return kE2M1Values[code & 0xff];
    case ElementType::kFloat8E8M0FNU:
      return kE8M0Values[code & 0xff];
    case ElementType::kInt64:
      return static_cast<double>(static_cast<std::int64_t>(code));
    case ElementType::kInt32:
      return static_cast<std::int32_t>(static_cast<std::uint32_t>(code));
    case ElementType::kUInt32:
      return static_cast<std::uint32_t>(code);
    case ElementType::kUInt8:
      return static_cast<std::uint8_t>(code);
  }
  throw_bad_type();
}

std::uint64_t encode(ElementType type, double value) {
  switch (type) {
    case ElementType::kFloat64:
      return value == value ? bits_of(value) : kDoubleNaN;
    case ElementType::kFloat32:
      return float32_bits(value);
    case ElementType::kFloat16:
      return encode_float<kFloat16Format>(value);
    case ElementType::kBFloat16:
      return encode_float<kBFloat16Format>(value);
    case ElementType::kFloat8E4M3FN:
      return encode_float<kE4M3FNFormat>(value);
    case ElementType::kFloat8E4M3FNUZ:
      return encode_float<kE4M3FNUZFormat>(value);
    case ElementType::kFloat8E5M2:
      return encode_float<kE5M2Format>(value);
    case ElementType::kFloat4E2M1FN:
      return encode_float<kE2M1Format>(value);
    case ElementType::kFloat8E8M0FNU:
      return encode_e8m0(value);
    case ElementType::kInt64:
      return encode_integer<std::int64_t>(value);
    case ElementType::kInt32:
      return encode_integer<std::int32_t>(value) & 0xffffffff;
    case ElementType::kUInt32:
      return encode_integer<std::uint32_t>(value);
    case ElementType::kUInt8:
      return encode_integer<std::uint8_t>(value);
  }
  throw_bad_type();
}

double round_to(ElementType type, double value) { return decode(type, encode(type, value)); }

void decode_all(ElementType type, const std::byte* bytes, std::span<double> values) {
  const auto look_up = [&](const std::array<double, 256>& table) {
    decode_each<std::uint8_t>(bytes, values, [&](std::uint8_t code) { return table[code]; });
  };
  switch (type) {
    case ElementType::kFloat64:
      if (!values.empty()) std::memcpy(values.data(), bytes, values.size_bytes());
      return;
    case ElementType::kFloat32:
      return decode_each<float>(bytes, values, [](float v) { return static_cast<double>(v); });
    case ElementType::kFloat16:
      return decode_each<std::uint16_t>(bytes, values, decode_float<kFloat16Format>);
    case ElementType::kBFloat16:
      // bfloat16 is the upper half of a float32.
      return decode_each<std::uint16_t>(bytes, values, [](std::uint32_t code) {
        return static_cast<double>(std::bit_cast<float>(code << 16));
      });
    case ElementType::kFloat8E4M3FN:
      return look_up(kE4M3FNValues);
    case ElementType::kFloat8E4M3FNUZ:
      return look_up(kE4M3FNUZValues);
    case ElementType::kFloat8E5M2:
      return look_up(kE5M2Values);
    case ElementType::kFloat4E2M1FN:
      return look_up(kE2M1Values);
    case ElementType::kFloat8E8M0FNU:
      return look_up(kE8M0Values);
    case ElementType::kInt64:
      return decode_each<std::int64_t>(bytes, values,
                                       [](auto v) { return static_cast<double>(v); });
    case ElementType::kInt32:
      return decode_each<std::int32_t>(bytes, values,
                                       [](auto v) { return static_cast<double>(v); });
    case ElementType::kUInt32:
      return decode_each<std::uint32_t>(bytes, values,
                                        [](auto v) { return static_cast<double>(v); });
    case ElementType::kUInt8:
      return decode_each<std::uint8_t>(bytes, values,
                                       [](auto v) { return static_cast<double>(v); });
  }
  throw_bad_type();
}

void encode_all(ElementType type, std::span<const double> values, std::byte* bytes) {
  switch (type) {
    case ElementType::kFloat64:
      return encode_each<std::uint64_t>(values, bytes,
                                        [](double v) { return v == v ? bits_of(v) : kDoubleNaN; });
    case ElementType::kFloat32:
      return encode_each<std::uint32_t>(values, bytes, float32_bits);
    case ElementType::kFloat16:
      return encode_each<std::uint16_t>(values, bytes, encode_float<kFloat16Format>);
    case ElementType::kBFloat16:
      return encode_each<std::uint16_t>(values, bytes, encode_float<kBFloat16Format>);
    case ElementType::kFloat8E4M3FN:
      return encode_each<std::uint8_t>(values, bytes, encode_float<kE4M3FNFormat>);
    case ElementType::kFloat8E4M3FNUZ:
      return encode_each<std::uint8_t>(values, bytes, encode_float<kE4M3FNUZFormat>);
    case ElementType::kFloat8E5M2:
      return encode_each<std::uint8_t>(values, bytes, encode_float<kE5M2Format>);
    case ElementType::kFloat4E2M1FN:
      return encode_each<std::uint8_t>(values, bytes, encode_float<kE2M1Format>);
    case ElementType::kFloat8E8M0FNU:
      return encode_each<std::uint8_t>(values, bytes, encode_e8m0);
    case ElementType::kInt64:
      return encode_each<std::uint64_t>(values, bytes, encode_integer<std::int64_t>);
    case ElementType::kInt32:
      return encode_each<std::uint32_t>(values, bytes, encode_integer<std::int32_t>);
    case ElementType::kUInt32:
      return encode_each<std::uint32_t>(values, bytes, encode_integer<std::uint32_t>);
    case ElementType::kUInt8:
      return encode_each<std::uint8_t>(values, bytes, encode_integer<std::uint8_t>);
  }
  throw_bad_type();
}

double unit_roundoff(ElementType type) {
  if (type == ElementType::kFloat64) return 0x1p-53;
  if (type == ElementType::kFloat8E8M0FNU) return 0.5;
  if (const Format* format = info_of(type).format) return power_of_two(-format->mantissa_bits - 1);
  throw Error(ErrorKind::kInternal,
              std::string(element_name(type)) + " has no unit roundoff: it is not a float type");
}

double max_finite(ElementType type) {
  if (type == ElementType::kFloat64) return std::numeric_limits<double>::max();
  if (type == ElementType::kFloat8E8M0FNU) return decode(type, kE8M0NaN - 1);
  if (const Format* format = info_of(type).format) return decode(type, format->max_finite);
  return decode(type, encode(type, std::numeric_limits<double>::infinity()));
}

double min_subnormal(ElementType type) {
  if (type == ElementType::kFloat64) return std::numeric_limits<double>::denorm_min();
  if (type == ElementType::kFloat8E8M0FNU) return decode(type, 0);
  if (const Format* format = info_of(type).format) return smallest(*format);
  return 1.0;
}

}  // namespace attn
