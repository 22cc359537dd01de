#pragma once

#include <cstdint>

#include "gpu/device/device.h"
#include "gpu/kernels/types.h"

namespace attn::gpu {

/// What shares a scale of the activations.
enum class Fp8ScaleOf : std::uint8_t {
  kTensor,  ///< given
  kRow,     ///< float32(min(amax, 1200) / 448) of the row
  kBlock,   ///< the same of each 128 columns
};

struct Fp8QuantiseArguments {
  const void* x = nullptr;  ///< [rows, width] of `type`, at a multiple of 16 bytes
  Type type = Type::kBFloat16;
  Fp8ScaleOf scale_of = Fp8ScaleOf::kTensor;
  float scale = 0.0f;       ///< kTensor
  void* codes = nullptr;    ///< [padded_rows, width] e4m3
  float* scales = nullptr;  ///< kRow: [rows]; kBlock: [width / 128, padded_rows]; kTensor: none
  std::int64_t rows = 0;
  /// Codes and scales of those behind `rows` are 0. kRow: `rows`.
  std::int64_t padded_rows = 0;
  std::int64_t width = 0;  ///< a multiple of 16, and of 128 for kBlock
};

/// Activations to codes and scales in one pass, which reads rows of up to 8192 columns once. A code
/// is e4m3(x * (1 / scale)), saturating, both steps rounded to float32; 0 where the scale is 0. A
/// scale whose reciprocal is no normal number divides instead.
void quantise_fp8(const Fp8QuantiseArguments& arguments, StreamHandle stream);

}  // namespace attn::gpu
