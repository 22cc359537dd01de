#include "reference/formats/gguf.h"

#include <cmath>
#include <utility>

#include "reference/core/error.h"
#include "reference/core/quant_internal.h"

namespace attn::reference {
namespace {

using Bytes = std::span<const std::byte>;

int at(Bytes bytes, std::size_t i) { return std::to_integer<int>(bytes[i]); }

int signed_at(Bytes bytes, std::size_t i) { return static_cast<std::int8_t>(at(bytes, i)); }

/// The little-endian float16 at byte i.
float half_at(Bytes bytes, std::size_t i) {
  const auto code = static_cast<std::uint64_t>(at(bytes, i) | at(bytes, i + 1) << 8);
  return static_cast<float>(decode(ElementType::kFloat16, code));
}

/// f16 d; u8 qs[16]: the low nibbles are columns 0 .. 15, the high ones 16 .. 31.
GgufFields unpack_q4_0(Bytes bytes) {
  GgufFields block{.columns = 32, .group = 32, .d = half_at(bytes, 0)};
  block.scale[0] = 1;
  for (std::size_t j = 0; j < 16; ++j) {
    block.code[j] = (at(bytes, 2 + j) & 15) - 8;
    block.code[j + 16] = (at(bytes, 2 + j) >> 4) - 8;
  }
  return block;
}

/// f16 d; i8 qs[32].
GgufFields unpack_q8_0(Bytes bytes) {
  GgufFields block{.columns = 32, .group = 32, .d = half_at(bytes, 0)};
  block.scale[0] = 1;
  for (std::size_t j = 0; j < 32; ++j) {
    block.code[j] = signed_at(bytes, 2 + j);
  }
  return block;
}

/// f16 d; f16 dmin; u8 sc[12]: the head that Q4_K and Q5_K share. Eight scales and eight minima of
/// 6 bits: the first four of each in the low bits of sc[0..3] and sc[4..7]; the last four have
/// their low nibbles in sc[8..11] and their upper two bits on top of the first four.
GgufFields unpack_k_head(Bytes bytes) {
  GgufFields block{.columns = 256, .group = 32, .d = half_at(bytes, 0), .dmin = half_at(bytes, 2)};
  const Bytes sc = bytes.subspan(4, 12);
  for (std::size_t j = 0; j < 4; ++j) {
    block.scale[j] = at(sc, j) & 63;
    block.min[j] = at(sc, j + 4) & 63;
    block.scale[j + 4] = (at(sc, j + 8) & 15) | at(sc, j) >> 6 << 4;
    block.min[j + 4] = at(sc, j + 8) >> 4 | at(sc, j + 4) >> 6 << 4;
  }
  return block;
}

/// Column i of 256 whose nibbles lie in pairs of groups of 32: bytes 32 (i/64) .. +31, the even
/// group in the low halves.
int paired_nibble(Bytes qs, std::size_t i) {
  const int pair = at(qs, i / 64 * 32 + i % 32);
  return i / 32 % 2 == 0 ? pair & 15 : pair >> 4;
}

/// head; u8 qs[128].
GgufFields unpack_q4_k(Bytes bytes) {
  GgufFields block = unpack_k_head(bytes);
  for (std::size_t i = 0; i < 256; ++i) {
    block.code[i] = paired_nibble(bytes.subspan(16), i);
  }
  return block;
}

/// head; u8 qh[32]; u8 qs[128]: bit j of qh[l] is the fifth bit of column l of group j.
GgufFields unpack_q5_k(Bytes bytes) {
  GgufFields block = unpack_k_head(bytes);
  for (std::size_t i = 0; i < 256; ++i) {
    const int fifth = at(bytes, 16 + i % 32) >> (i / 32) & 1;
    block.code[i] = paired_nibble(bytes.subspan(48), i) | fifth << 4;
  }
  return block;
}

/// u8 ql[128]; u8 qh[64]; i8 sc[16]; f16 d. Each half of 128 columns has 64 bytes of ql and 32 of
/// qh. Its quarter u takes the low (u < 2) or high halves of 32 bytes of ql, and bits 2u, 2u+1 of
/// qh.
GgufFields unpack_q6_k(Bytes bytes) {
  GgufFields block{.columns = 256, .group = 16, .d = half_at(bytes, 208)};
  for (std::size_t g = 0; g < 16; ++g) {
    block.scale[g] = signed_at(bytes, 192 + g);
  }
  for (std::size_t i = 0; i < 256; ++i) {
    const std::size_t half = i / 128;
    const std::size_t u = i % 128 / 32;
    const std::size_t l = i % 32;
    const int pair = at(bytes, 64 * half + 32 * (u % 2) + l);
    const int low = u < 2 ? pair & 15 : pair >> 4;
    const int high = at(bytes, 128 + 32 * half + l) >> (2 * u) & 3;
    block.code[i] = (low | high << 4) - 32;
  }
  return block;
}

[[noreturn]] void throw_not_gguf(QuantEncoding encoding) {
  throw Error(ErrorKind::kInternal, std::string(name_of(encoding)) + " is no GGUF encoding");
}

/// Columns and bytes of a block.
GgufBlock size_of_block(QuantEncoding encoding) {
  const GgufBlock size = gguf_block(encoding);
  if (size.bytes == 0) {
    throw_not_gguf(encoding);
  }
  return size;
}

/// Block `i` of row n of a stored weight.
GgufFields block_of(QuantEncoding encoding, const Tensor& stored, std::int64_t n, std::int64_t i) {
  const std::int64_t bytes = size_of_block(encoding).bytes;
  const auto first = static_cast<std::size_t>(n * stored.dim(1) + i * bytes);
  return unpack_gguf(encoding, stored.bytes().subspan(first, static_cast<std::size_t>(bytes)));
}

/// What one block adds to an output: y + its part of the dot product, in float32. The sums of whole
/// numbers are exact in double, and a NaN code passes through them.
float add_block(const GgufFields& block, const RowView& x_code, float x_scale, float y) {
  double products = 0.0;
  double minima = 0.0;
  for (std::int64_t i = 0; i < block.columns; ++i) {
    const auto g = static_cast<std::size_t>(i / block.group);
    products += block.scale[g] * block.code[static_cast<std::size_t>(i)] * x_code[i];
    minima += block.min[g] * x_code[i];
  }
  const auto sum = static_cast<float>(products);
  if (block.columns == 32) {
    return y + sum * x_scale * block.d;
  }
  const float t = sum * block.d - static_cast<float>(minima) * block.dmin;
  return y + t * x_scale;
}

}  // namespace

float GgufFields::weight(std::int64_t i) const {
  const auto g = static_cast<std::size_t>(i / group);
  const float step = d * static_cast<float>(scale[g]);
  return step * static_cast<float>(code[static_cast<std::size_t>(i)]) -
         dmin * static_cast<float>(min[g]);
}

GgufFields unpack_gguf(QuantEncoding encoding, std::span<const std::byte> bytes) {
  switch (encoding) {
    case QuantEncoding::kQ4_0:
      return unpack_q4_0(bytes);
    case QuantEncoding::kQ8_0:
      return unpack_q8_0(bytes);
    case QuantEncoding::kQ4_K:
      return unpack_q4_k(bytes);
    case QuantEncoding::kQ5_K:
      return unpack_q5_k(bytes);
    case QuantEncoding::kQ6_K:
      return unpack_q6_k(bytes);
    default:
      throw_not_gguf(encoding);
  }
}

Matrix decode_gguf(QuantEncoding encoding, const Tensor& stored) {
  const GgufBlock size = size_of_block(encoding);
  const std::int64_t blocks = stored.dim(1) / size.bytes;
  Matrix w(stored.dim(0), blocks * size.elements);
  for (std::int64_t n = 0; n < w.rows(); ++n) {
    for (std::int64_t b = 0; b < blocks; ++b) {
      const GgufFields block = block_of(encoding, stored, n, b);
      for (std::int64_t i = 0; i < size.elements; ++i) {
        w(n, b * size.elements + i) = block.weight(i);
      }
    }
  }
  return w;
}

QuantisedBlock quantise_int8(const RowView& x, Rounding r) {
  constexpr ElementType kF32 = ElementType::kFloat32;
  constexpr double kTop = 127.0;
  const double a = largest_magnitude(x);
  const double multiplier = r.to(kF32, kTop / a);
  if (std::isinf(multiplier)) {
    return {Eigen::RowVectorXd::Zero(x.size()), 0.0};
  }
  return {x.unaryExpr([&](double v) { return std::nearbyint(r.to(kF32, v * multiplier)); }),
          r.to(kF32, a / kTop)};
}

Matrix multiply_int8(QuantEncoding encoding, const Tensor& stored, const MatrixView& x_code,
                     const MatrixView& x_scale) {
  const GgufBlock size = size_of_block(encoding);
  Matrix y = Matrix::Zero(x_code.rows(), stored.dim(0));
  for (std::int64_t n = 0; n < y.cols(); ++n) {
    for (std::int64_t k = 0; k < x_code.cols(); k += size.elements) {
      const GgufFields block = block_of(encoding, stored, n, k / size.elements);
      for (std::int64_t t = 0; t < y.rows(); ++t) {
        y(t, n) = add_block(block, x_code.row(t).segment(k, size.elements),
                            static_cast<float>(x_scale(t, k)), static_cast<float>(y(t, n)));
      }
    }
  }
  return y;
}

}  // namespace attn::reference
