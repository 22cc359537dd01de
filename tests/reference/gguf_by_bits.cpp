#include "tests/reference/gguf_by_bits.h"

#include <cmath>
#include <stdexcept>

namespace attn::reference::test {
namespace {

/// A block as one string of bits: bit 0 is the lowest of byte 0.
class Bits {
 public:
  explicit Bits(std::span<const std::byte> block) : block_(block) {}

  /// `count` bits from bit `first` of byte `byte` on, as a whole number.
  int field(std::size_t byte, std::size_t first, std::size_t count) const {
    int value = 0;
    for (std::size_t b = 0; b < count; ++b) {
      const std::size_t at = 8 * byte + first + b;
      const bool set = (block_[at / 8] >> (at % 8) & std::byte{1}) != std::byte{0};
      value += set ? 1 << b : 0;
    }
    return value;
  }

  int signed_byte(std::size_t byte) const { return field(byte, 0, 7) - 128 * field(byte, 7, 1); }

  /// IEEE binary16: sign, 5 bits of exponent, 10 of mantissa.
  double half(std::size_t byte) const {
    const int mantissa = field(byte, 0, 10);
    const int exponent = field(byte, 10, 5);
    const double sign = field(byte, 15, 1) == 1 ? -1.0 : 1.0;
    return exponent == 0 ? sign * std::ldexp(mantissa, -24)
                         : sign * std::ldexp(1024 + mantissa, exponent - 25);
  }

 private:
  std::span<const std::byte> block_;
};

double f32(double v) { return static_cast<float>(v); }

/// Scale (which = 0) or minimum (which = 1) of group j of a K block: twelve bytes from byte 4 on.
int six_bits(const Bits& bits, std::size_t j, std::size_t which) {
  if (j < 4) {
    return bits.field(4 + 4 * which + j, 0, 6);
  }
  return bits.field(8 + j, 4 * which, 4) + 16 * bits.field(4 * which + j, 6, 2);
}

/// (d S) code - dmin M
double k_weight(const Bits& bits, std::size_t j, int code) {
  const double step = f32(bits.half(0) * six_bits(bits, j, 0));
  const double offset = f32(bits.half(2) * six_bits(bits, j, 1));
  return f32(f32(step * code) - offset);
}

}  // namespace

float gguf_weight_by_bits(QuantEncoding encoding, std::span<const std::byte> block, std::size_t i) {
  const Bits bits(block);
  const std::size_t l = i % 32;
  const std::size_t j = i / 32;
  // Four bits each: groups 0, 2, 4, 6 in the lower halves of 32 bytes, 1, 3, 5, 7 in the upper.
  const auto nibble = [&](std::size_t first) {
    return bits.field(first + 32 * (j / 2) + l, 4 * (j % 2), 4);
  };
  switch (encoding) {
    case QuantEncoding::kQ4_0:
      return static_cast<float>(f32(bits.half(0) * (bits.field(2 + i % 16, 4 * (i / 16), 4) - 8)));
    case QuantEncoding::kQ8_0:
      return static_cast<float>(f32(bits.half(0) * bits.signed_byte(2 + i)));
    case QuantEncoding::kQ4_K:
      return static_cast<float>(k_weight(bits, j, nibble(16)));
    case QuantEncoding::kQ5_K:
      return static_cast<float>(k_weight(bits, j, nibble(48) + 16 * bits.field(16 + l, j, 1)));
    case QuantEncoding::kQ6_K: {
      // Quarters 0 .. 3 of each half: bytes l, 32 + l, l, 32 + l of its 64; two bits of its 32.
      const std::size_t half = i / 128;
      const std::size_t quarter = j % 4;
      const int low = bits.field(64 * half + 32 * (quarter % 2) + l, quarter < 2 ? 0 : 4, 4);
      const int high = bits.field(128 + 32 * half + l, 2 * quarter, 2);
      const double step = f32(bits.half(208) * bits.signed_byte(192 + i / 16));
      return static_cast<float>(f32(step * (low + 16 * high - 32)));
    }
    default:
      throw std::invalid_argument("not a GGUF encoding");
  }
}

}  // namespace attn::reference::test
