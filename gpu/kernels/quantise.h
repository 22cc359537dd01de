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
  void* codes = nullptr;    ///< [rows, width] float16, exact
  float* scales = nullptr;  ///< [rows, width / 16]; first_column and block are multiples of 16
  std::int64_t rows = 0;
  std::int64_t width = 0;
  /// The columns that are quantised; their blocks start at the first one.
  std::int64_t first_column = 0;
  std::int64_t columns = 0;
  std::int64_t block = 0;  ///< columns that share a scale
  ActivationFormat format = ActivationFormat::kNone;
  float scale = 0.0f;  ///< static scale (fp8), input_scale (nvfp4)
};

/// Codes are chosen by quotients in float64, the value of a code is rounded to float32 once.
void quantise(const QuantiseArguments& arguments, StreamHandle stream);

}  // namespace attn::gpu
