#include "harness/backends/cpu/small_floats.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "harness/backends/cpu/fault_switch.h"

namespace attn::harness::cpu {
namespace {

/// 2^exponent for exponents of normal doubles.
constexpr double power_of_two(int exponent) {
  return std::bit_cast<double>(static_cast<std::uint64_t>(exponent + 1023) << 52);
}

constexpr double magnitude(const SmallFloat& format, unsigned code) {
  const unsigned hidden = 1u << format.mantissa_bits;
  const unsigned exponent = code >> format.mantissa_bits;
  const unsigned mantissa = code & (hidden - 1u);
  const unsigned digits = exponent == 0 ? mantissa : mantissa + hidden;
  const int step =
      std::max(static_cast<int>(exponent), 1) - 1 + format.min_exponent - format.mantissa_bits;
  return digits * power_of_two(step);
}

template <std::size_t kCodes>
constexpr std::array<float, kCodes> values_of(const SmallFloat& format) {
  std::array<float, kCodes> values{};
  for (unsigned code = 0; code < kCodes; ++code) {
    const double m = magnitude(format, code & (format.sign_bit - 1u));
    values[code] = static_cast<float>((code & format.sign_bit) != 0 ? -m : m);
  }
  return values;
}

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

constexpr std::array<float, 256> e4m3fn_values() {
  std::array<float, 256> values = values_of<256>(kE4M3FN);
  values[0x7f] = values[0xff] = kNaN;
  return values;
}

constexpr std::array<float, 256> e4m3fnuz_values() {
  std::array<float, 256> values = values_of<256>(kE4M3FNUZ);
  values[0x80] = kNaN;
  return values;
}

constexpr std::array<float, 256> e8m0_values() {
  std::array<float, 256> values{};
  for (int code = 0; code < 255; ++code) {
    values[static_cast<std::size_t>(code)] = static_cast<float>(power_of_two(code - 127));
  }
  values[0xff] = kNaN;
  return values;
}

}  // namespace

const std::array<float, 256> kE4M3FNValues = e4m3fn_values();
const std::array<float, 256> kE4M3FNUZValues = e4m3fnuz_values();
const std::array<float, 256> kE8M0Values = e8m0_values();
const std::array<float, 16> kE2M1Values = values_of<16>(kE2M1);

std::uint8_t encode(const SmallFloat& format, double value) {
  if (std::isnan(value)) return format.nan;
  if (ATTN_FAULT(fp8_overflow_is_nan, std::abs(value) > format.max)) return format.nan;
  const double a = std::min(std::abs(value), format.max);
  const int own = static_cast<int>(std::bit_cast<std::uint64_t>(a) >> 52) - 1023;
  const int exponent = std::max(own, format.min_exponent);
  // a in steps of its binade, rounded to nearest even: below 2^52 that is what adding 2^52 does.
  const double steps = a * power_of_two(format.mantissa_bits - exponent);
  auto rounded = static_cast<int>((steps + 0x1p52) - 0x1p52);
  if (ATTN_FAULT(fp8_truncated, rounded > steps)) --rounded;
  if (ATTN_FAULT(fp8_subnormals_flushed, own < format.min_exponent)) rounded = 0;
  // A binade has 2^mantissa_bits codes, and its first value is that many steps: so codes continue
  // over the ends of binades, a step rounded up to the next one included.
  const int code = ((exponent - format.min_exponent) << format.mantissa_bits) + rounded;
  const bool negative = std::signbit(value) && (code != 0 || format.has_negative_zero);
  return static_cast<std::uint8_t>(negative ? code | format.sign_bit : code);
}

}  // namespace attn::harness::cpu
