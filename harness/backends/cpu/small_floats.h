#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace attn::harness::cpu {

/// A sign, an exponent and a mantissa in at most 8 bits; no infinities (OCP 8-bit floating point
/// specification 1.0, OCP microscaling formats 1.0). Codes below the sign bit count upwards.
struct SmallFloat {
  int mantissa_bits;
  int min_exponent;  ///< of normal numbers; subnormals have it too
  double max;
  std::uint8_t sign_bit;
  std::uint8_t nan;  ///< what NaN is encoded as
  bool has_negative_zero;
};

inline constexpr SmallFloat kE4M3FN{3, -6, 448.0, 0x80, 0x7f, true};
inline constexpr SmallFloat kE4M3FNUZ{3, -7, 240.0, 0x80, 0x80, false};
inline constexpr SmallFloat kE2M1{1, 0, 6.0, 0x08, 0x07, true};

/// Columns of a row that share one scale.
inline constexpr std::int64_t kNvBlock = 16;
inline constexpr std::int64_t kMxBlock = 32;

/// Code of the nearest value, ties to the even code; beyond the largest value, infinities included,
/// the largest of that sign.
std::uint8_t encode(const SmallFloat& format, double value);

/// The values of all codes.
extern const std::array<float, 256> kE4M3FNValues;
extern const std::array<float, 256> kE4M3FNUZValues;
extern const std::array<float, 256> kE8M0Values;  ///< 2^(code - 127), 0xff NaN
extern const std::array<float, 16> kE2M1Values;

/// e4m3fn codes read as e4m3fnuz, which has one bias more: the bits stay, the scale doubles. Only
/// 0x80 (-0, but NaN in fnuz) becomes 0.
constexpr std::uint8_t fnuz_bits_of(std::uint8_t e4m3fn) { return e4m3fn == 0x80 ? 0 : e4m3fn; }

}  // namespace attn::harness::cpu
