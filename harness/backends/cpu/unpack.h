#pragma once

#include <cstdint>
#include <vector>

#include "reference/core/element.h"
#include "reference/core/tensor.h"

namespace attn::harness::cpu {

/// float32, bfloat16, float16.
bool is_plain_float(ElementType type);

/// float32 values of `count` stored elements of a plain float type, float8_e4m3fn, float8_e4m3fnuz
/// or float8_e8m0fnu, exact.
void unpack(ElementType type, const std::byte* bytes, std::int64_t count, float* values);

/// The inverse for plain float types, rounded to nearest even; overflow gives infinity.
void pack(ElementType type, const float* values, std::int64_t count, std::byte* bytes);

float float_from_half(std::uint16_t code);
std::uint16_t half_from_float(float value);
std::uint16_t bfloat16_from_float(float value);

/// Rows of float32, each padded with zeros to a multiple of kLanes; storage for three more zero
/// rows lets dot4 start at any of them.
struct Rows {
  std::int64_t count = 0;
  std::int64_t width = 0;
  std::int64_t stride = 0;
  std::vector<float> data;

  Rows(std::int64_t rows, std::int64_t columns);
  float* row(std::int64_t i) { return data.data() + i * stride; }
  const float* row(std::int64_t i) const { return data.data() + i * stride; }
};

/// Rows first .. first + rows.count - 1 of a matrix [.., rows.width] of a plain float type.
void unpack_rows(const Tensor& matrix, std::int64_t first, Rows& rows);

/// All elements of a vector.
std::vector<float> unpack_vector(const Tensor& vector);

}  // namespace attn::harness::cpu
