#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace attn {

/// Element types of stored tensors. Names (element_name) are those of ml_dtypes and numpy.
enum class ElementType : std::uint8_t {
  kFloat64,
  kFloat32,
  kFloat16,          ///< IEEE binary16
  kBFloat16,         ///< upper half of binary32
  kFloat8E4M3FN,     ///< 1-4-3, bias 7, max 448, no infinity, NaN 0x7f and 0xff
  kFloat8E4M3FNUZ,   ///< 1-4-3, bias 8, max 240, no infinity, no -0, NaN 0x80
  kFloat8E5M2,       ///< 1-5-2, bias 15, max 57344, infinity 0x7c, NaN 0x7d-0x7f
  kFloat4E2M1FN,     ///< 1-2-1, bias 1, max 6, no infinity, no NaN; one code a byte, low nibble
  kFloat8E8M0FNU,    ///< 2^(code-127), NaN 0xff, no zero, no sign
  kInt64,
  kInt32,
  kUInt32,
  kUInt8,
};

/// Bytes of one element.
std::size_t element_size(ElementType type);

/// "float32", "bfloat16", "float8_e4m3fn", ...
std::string_view element_name(ElementType type);

/// Inverse of element_name. Throws Error(kConfig) with the nearest known name.
ElementType parse_element_type(std::string_view name);

bool is_float(ElementType type);

/// Value of one stored code (the low bits of `code`), exact in double. Integers are converted.
double decode(ElementType type, std::uint64_t code);

/// Code of the value nearest to `value`, ties to the even code, in one rounding from double.
/// float16, bfloat16 and float32 overflow to infinity as IEEE 754 says. The 8- and 4-bit types
/// saturate: values beyond the largest finite one, infinities included, give the largest finite one
/// of their sign. NaN gives the type's NaN (0x7f for e4m3fn, 0x80 for e4m3fnuz, 0x7e for e5m2,
/// 0xff for e8m0); e2m1 has none and gives its largest value. -0 keeps its sign where the type has
/// one. e8m0: nearest power of two in value, ties to the larger; zero, negative values and NaN give
/// 0xff.
std::uint64_t encode(ElementType type, double value);

/// decode(encode(value)): the value after one rounding to `type`.
double round_to(ElementType type, double value);

/// Bulk forms; `bytes` holds count * element_size(type) little-endian bytes.
void decode_all(ElementType type, const std::byte* bytes, std::span<double> values);
void encode_all(ElementType type, std::span<const double> values, std::byte* bytes);

/// Unit roundoff u (half the distance from 1 to the next value): 2^-53, 2^-24, 2^-11, 2^-8, 2^-4, ...
double unit_roundoff(ElementType type);

/// Largest finite value.
double max_finite(ElementType type);

/// Smallest positive (subnormal) value.
double min_subnormal(ElementType type);

}  // namespace attn
