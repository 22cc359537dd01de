#pragma once

#include <cstdint>

#include "gpu/device/device.h"
#include "gpu/kernels/types.h"

namespace attn::gpu {

/// What activations are rounded to before a quantised product.
enum class ActivationFormat : std::uint8_t {
  kNone,       ///< the values themselves
  kFp8Static,  ///< e4m3(x / scale)
  kFp8,        ///< the same, scale = float32(min(amax, 1200) / 448) of the block
  kInt8,       ///< round(x * (127 / amax)) of the block
  kNvfp4,      ///< e2m1 in steps of e4m3(amax / 6 / scale) * scale of the block
  kMxfp4,      ///< e2m1 in steps of the power of two that holds the block's amax
  kMxfp8,      ///< e4m3, likewise
};

struct QuantiseArguments {
  const void* x = nullptr;  ///< [rows, width] of `type`
  Type type = Type::kFloat32;
  float* y = nullptr;       ///< [rows, width]: values of the codes times their scales; or apart:
  void* codes = nullptr;    ///< [rows, code_width] float16, exact
  float* scales = nullptr;  ///< [rows, code_width / 16]; first_column and block are multiples of 16
  float* sums = nullptr;    ///< likewise, or none: of each 16 columns the sum of codes times scale
  std::int64_t rows = 0;
  std::int64_t width = 0;
  /// A multiple of 16. Behind the last column are codes of 0 with its scale, where the columns go
  /// up to `width`.
  std::int64_t code_width = 0;
  /// The columns that are quantised; their blocks start at the first one.
  std::int64_t first_column = 0;
  std::int64_t columns = 0;
  std::int64_t block = 0;  ///< columns that share a scale
  ActivationFormat format = ActivationFormat::kNone;
  float scale = 0.0f;  ///< static scale (fp8), input_scale (nvfp4)
};

/// Quotients and scales in float32, each rounded once.
void quantise(const QuantiseArguments& arguments, StreamHandle stream);

/// y[m][j] = x[m][order[j]]: [rows, columns] of elements of 2 or 4 bytes, columns a multiple of 8.
void gather_columns(const void* x, int element_bytes, const std::uint32_t* order, void* y,
                    std::int64_t rows, std::int64_t columns, StreamHandle stream);

}  // namespace attn::gpu
