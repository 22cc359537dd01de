#include "harness/backends/cpu/unpack.h"

#include <array>
#include <bit>
#include <cstring>
#include <string>

#include "harness/backends/cpu/simd.h"
#include "harness/backends/cpu/small_floats.h"
#include "reference/core/error.h"

namespace attn::harness::cpu {
namespace {

std::uint16_t code16(const std::byte* bytes, std::int64_t i) {
  std::uint16_t code = 0;
  std::memcpy(&code, bytes + 2 * i, sizeof code);
  return code;
}

void put16(std::byte* bytes, std::int64_t i, std::uint16_t code) {
  std::memcpy(bytes + 2 * i, &code, sizeof code);
}

void look_up(const std::array<float, 256>& table, const std::byte* codes, std::int64_t count,
             float* values) {
  for (std::int64_t i = 0; i < count; ++i) values[i] = table[static_cast<std::uint8_t>(codes[i])];
}

[[noreturn]] void refuse(ElementType type) {
  throw Error(ErrorKind::kUnsupported,
              "cpu: tensors of type " + std::string(element_name(type)) +
                  " are not read or written here; use float32, bfloat16 or float16");
}

}  // namespace

bool is_plain_float(ElementType type) {
  return type == ElementType::kFloat32 || type == ElementType::kBFloat16 ||
         type == ElementType::kFloat16;
}

float float_from_half(std::uint16_t code) {
  const std::uint32_t sign = static_cast<std::uint32_t>(code & 0x8000u) << 16;
  const std::uint32_t magnitude = code & 0x7fffu;
  // The bits moved to binary32's fields read as value * 2^-112: the biases differ by 127 - 15. The
  // product is exact and turns half's subnormals into float's normal numbers.
  const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  // Infinity and NaN have exponents of all ones in both formats. No branch, so that loops
  // vectorise.
  const std::uint32_t special = magnitude >= 0x7c00u ? 0x7f800000u : 0u;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(scaled) | special | sign);
}

std::uint16_t half_from_float(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  std::uint32_t code = 0;
  if (magnitude > 0x7f800000u) {
    code = 0x7e00u;
  } else if (magnitude >= 0x47800000u) {  // 2^16; from 65520 on the last branch rounds to infinity
    code = 0x7c00u;
  } else if (magnitude < 0x38800000u) {
    // Below 2^-14 the step is 2^-24. In [2^-1, 1) float32 has that step too, so adding 1/2 rounds
    // to it, to nearest even, and leaves the multiple of 2^-24 in the low bits.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    code = std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(0.5f);
  } else {
    const std::uint32_t rebiased = magnitude - (112u << 23);
    code = (rebiased + 0xfffu + (rebiased >> 13 & 1u)) >> 13;
  }
  return static_cast<std::uint16_t>(code | sign);
}

std::uint16_t bfloat16_from_float(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

void unpack(ElementType type, const std::byte* bytes, std::int64_t count, float* values) {
  if (count == 0) return;
  switch (type) {
    case ElementType::kFloat32:
      std::memcpy(values, bytes, static_cast<std::size_t>(count) * sizeof(float));
      return;
    case ElementType::kBFloat16:
      for (std::int64_t i = 0; i < count; ++i) {
        values[i] = std::bit_cast<float>(static_cast<std::uint32_t>(code16(bytes, i)) << 16);
      }
      return;
    case ElementType::kFloat16:
      for (std::int64_t i = 0; i < count; ++i) values[i] = float_from_half(code16(bytes, i));
      return;
    case ElementType::kFloat8E4M3FN:
      return look_up(kE4M3FNValues, bytes, count, values);
    case ElementType::kFloat8E4M3FNUZ:
      return look_up(kE4M3FNUZValues, bytes, count, values);
    case ElementType::kFloat8E8M0FNU:
      return look_up(kE8M0Values, bytes, count, values);
    default:
      refuse(type);
  }
}

void pack(ElementType type, const float* values, std::int64_t count, std::byte* bytes) {
  if (count == 0) return;
  switch (type) {
    case ElementType::kFloat32:
      std::memcpy(bytes, values, static_cast<std::size_t>(count) * sizeof(float));
      return;
    case ElementType::kBFloat16:
      for (std::int64_t i = 0; i < count; ++i) put16(bytes, i, bfloat16_from_float(values[i]));
      return;
    case ElementType::kFloat16:
      for (std::int64_t i = 0; i < count; ++i) put16(bytes, i, half_from_float(values[i]));
      return;
    default:
      refuse(type);
  }
}

Rows::Rows(std::int64_t rows, std::int64_t columns)
    : count(rows),
      width(columns),
      stride(padded(columns)),
      data(static_cast<std::size_t>((rows + 3) * stride), 0.0f) {}

void unpack_rows(const Tensor& matrix, std::int64_t first, Rows& rows) {
  const auto row_bytes = rows.width * static_cast<std::int64_t>(element_size(matrix.type()));
  for (std::int64_t i = 0; i < rows.count; ++i) {
    unpack(matrix.type(), matrix.data() + (first + i) * row_bytes, rows.width, rows.row(i));
  }
}

std::vector<float> unpack_vector(const Tensor& vector) {
  std::vector<float> values(static_cast<std::size_t>(vector.size()));
  unpack(vector.type(), vector.data(), vector.size(), values.data());
  return values;
}

}  // namespace attn::harness::cpu
