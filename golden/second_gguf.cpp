#include "golden/second_gguf.h"

#include <bit>
#include <string>

#include "reference/core/error.h"

namespace attn::golden {
namespace {

using Byte = std::uint8_t;

// The encodings are defined by float32 formulas, evaluated from left to right: a weight of a block
// with minima, or of q6_k, may have more bits than float32 holds.

float half_at(const Byte* bytes) {
  return static_cast<float>(
      decode(ElementType::kFloat16, static_cast<std::uint64_t>(bytes[0] | (bytes[1] << 8))));
}

float signed_byte(Byte b) { return std::bit_cast<std::int8_t>(b); }

/// Value of column i of one block.
float q4_0(const Byte* block, int i) {
  const Byte pair = block[2 + i % 16];
  return half_at(block) * static_cast<float>((i < 16 ? pair & 15 : pair >> 4) - 8);
}

float q8_0(const Byte* block, int i) { return half_at(block) * signed_byte(block[2 + i]); }

/// The 6-bit scale (or minimum) of group j of 8, packed into 12 bytes: the first four of each lie
/// whole in the low six bits of bytes j and j+4; of the others, the low four bits are in byte j+4
/// and the high two on top of the first four.
int packed_scale(const Byte* packed, int j) {
  return j < 4 ? packed[j] & 63 : (packed[j + 4] & 15) | ((packed[j - 4] >> 6) << 4);
}

int packed_minimum(const Byte* packed, int j) {
  return j < 4 ? packed[j + 4] & 63 : (packed[j + 4] >> 4) | ((packed[j] >> 6) << 4);
}

/// d * scale * code - dmin * minimum; the four low bits of the codes start at byte `low`.
float k_quant(const Byte* block, int i, int low, int high_bit) {
  const int group = i / 32;
  const Byte pair = block[low + i / 64 * 32 + i % 32];
  const int code = (group % 2 == 0 ? pair & 15 : pair >> 4) + 16 * high_bit;
  const Byte* packed = block + 4;
  return half_at(block) * static_cast<float>(packed_scale(packed, group)) *
             static_cast<float>(code) -
         half_at(block + 2) * static_cast<float>(packed_minimum(packed, group));
}

float q4_k(const Byte* block, int i) { return k_quant(block, i, 16, 0); }

float q5_k(const Byte* block, int i) {
  return k_quant(block, i, 48, (block[16 + i % 32] >> (i / 32)) & 1);
}

float q6_k(const Byte* block, int i) {
  const int half = i / 128;
  const int quarter = i % 128 / 32;
  const int l = i % 32;
  const Byte pair = block[64 * half + l + 32 * (quarter % 2)];
  const int low = quarter < 2 ? pair & 15 : pair >> 4;
  const int high = (block[128 + 32 * half + l] >> (2 * quarter)) & 3;
  const float scale = signed_byte(block[192 + 8 * half + 2 * quarter + l / 16]);
  return half_at(block + 208) * scale * static_cast<float>((low | (high << 4)) - 32);
}

float value_in_block(QuantEncoding encoding, const Byte* block, int i) {
  switch (encoding) {
    case QuantEncoding::kQ4_0:
      return q4_0(block, i);
    case QuantEncoding::kQ8_0:
      return q8_0(block, i);
    case QuantEncoding::kQ4_K:
      return q4_k(block, i);
    case QuantEncoding::kQ5_K:
      return q5_k(block, i);
    default:
      return q6_k(block, i);
  }
}

}  // namespace

BlockSize second_block_size(QuantEncoding encoding) {
  switch (encoding) {
    case QuantEncoding::kQ4_0:
      return {32, 2 + 16};
    case QuantEncoding::kQ8_0:
      return {32, 2 + 32};
    case QuantEncoding::kQ4_K:
      return {256, 2 + 2 + 12 + 128};
    case QuantEncoding::kQ5_K:
      return {256, 2 + 2 + 12 + 32 + 128};
    case QuantEncoding::kQ6_K:
      return {256, 128 + 64 + 16 + 2};
    default:
      return {};
  }
}

Matrix second_gguf(const Tensor& stored, QuantEncoding encoding) {
  const BlockSize size = second_block_size(encoding);
  if (size.bytes == 0) {
    throw Error(ErrorKind::kInternal, std::string(name_of(encoding)) + " is not stored in blocks");
  }
  const std::int64_t row_bytes = stored.dim(1);
  Matrix out(stored.dim(0), row_bytes / size.bytes * size.columns);
  const Byte* bytes = stored.as<Byte>();
  for (std::int64_t n = 0; n < out.rows; ++n) {
    for (std::int64_t k = 0; k < out.cols; ++k) {
      const Byte* block = bytes + n * row_bytes + k / size.columns * size.bytes;
      out.at(n, k) = value_in_block(encoding, block, static_cast<int>(k % size.columns));
    }
  }
  return out;
}

}  // namespace attn::golden
