#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "reference/core/config.h"
#include "reference/formats/block_scale.h"
#include "reference/stages/rounding.h"

namespace attn::reference {

/// One GGUF block, unpacked to the numbers it stores. Every encoding is the same formula over them,
/// evaluated in float32 from left to right:
///   w[i] = (d * scale[g]) * code[i] - (dmin * min[g]),    g = i / group.
/// Q4_0 and Q8_0 have one group and scale 1; only Q4_K and Q5_K have minima.
struct GgufFields {
  std::int64_t columns = 0;  ///< 32 or 256
  std::int64_t group = 0;    ///< columns that share a scale: 16 or 32
  float d = 0.0F;
  float dmin = 0.0F;
  std::array<int, 16> scale{};  ///< 1, 0 .. 63, or -128 .. 127 (Q6_K)
  std::array<int, 16> min{};    ///< 0 .. 63
  std::array<int, 256>
      code{};  ///< offset removed: -8 .. 7, -128 .. 127, 0 .. 15, 0 .. 31, -32 .. 31

  float weight(std::int64_t i) const;
};

/// Layouts: ggml's block_q4_0, block_q8_0, block_q4_K, block_q5_K, block_q6_K. `bytes` is one
/// block.
GgufFields unpack_gguf(QuantEncoding encoding, std::span<const std::byte> bytes);

/// stored [out, in / columns * bytes] uint8 to [out, in].
Matrix decode_gguf(QuantEncoding encoding, const Tensor& stored);

/// x as whole numbers -127 .. 127, a = max|x|:  code = x * (127 / a) to the nearest, ties to even;
/// scale = a / 127. Zeros give 0. The layer as it runs rounds 127 / a, the product with it and a /
/// 127 to float32.
QuantisedBlock quantise_int8(const RowView& x, Rounding r);

/// x W^T as the layer runs it on int8 activations, [rows, out]: in each block sums of products of
/// whole numbers, exact, and float32 from there on, one block after the other:
///   t = (sum_g scale_g sum code_w code_x) * d - (sum_g min_g sum code_x) * dmin    y += t *
///   scale_x
/// and for Q4_0 and Q8_0, whose block has one scale, y += (sum code_w code_x) * scale_x * d.
/// x_code and x_scale [rows, in] are what quantise_int8 gives, block by block.
Matrix multiply_int8(QuantEncoding encoding, const Tensor& stored, const MatrixView& x_code,
                     const MatrixView& x_scale);

}  // namespace attn::reference
