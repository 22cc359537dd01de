#pragma once

#include <cstdint>

#include "gpu/device/device.h"
#include "gpu/kernels/types.h"

namespace attn::gpu {

/// How a weight's codes are stored.
enum class CodeKind : std::uint8_t {
  kU4,    ///< unsigned, 4 bits
  kU5,    ///< 4 bits and a plane of fifth bits
  kU6,    ///< 4 bits and a plane of two more
  kE2m1,  ///< float4
  kI8,    ///< signed byte, stored with its sign bit flipped
  kE4m3,  ///< float8
};

/// Columns of one packed chunk, rows of one packed tile, columns that may have a scale of their
/// own.
inline constexpr int kCodedChunk = 64;
inline constexpr int kCodedTile = 16;
inline constexpr int kCodedStep = 16;
/// Columns of one outer scale.
inline constexpr int kCodedOuter = 256;

/// A weight [n, k] as it was stored, repacked once so that a lane of a warp reads the codes of its
/// mma fragments with 16-byte loads: value = (code - offset) * scale - min, where
///   scale = global * inner[k >> group_shift][n]          without outer scales
///   scale = outer[k / 256][n] * inner[k >> group_shift][n]   with them
/// and min likewise. Planes have `rows` columns: n rounded up to whole tiles. Device pointers.
struct CodedMatrix {
  CodeKind kind = CodeKind::kU4;
  int offset = 0;               ///< of unsigned codes
  const void* codes = nullptr;  ///< [tile][chunk][lane]: 16 bytes, or 32 for bytes
  const void* high = nullptr;   ///< kU5: 4 bytes, kU6: 8 bytes, likewise
  const void* inner = nullptr;
  const void* inner_min = nullptr;   ///< or none
  Type inner_type = Type::kFloat32;  ///< of both
  const float* outer = nullptr;      ///< or none
  const float* outer_min = nullptr;
  float global = 1.0f;
  std::int64_t rows = 0;
  int group_shift = 0;  ///< 2^group_shift columns share an inner scale, 16 or more
};

/// y = clip(x w^T + bias), rounded once: x [m, k] of float16 or bfloat16, times x_scale [m, k / 16]
/// where that is given; y [m, n] with rows y_stride apart. Codes are exact in both types, so the
/// products are; the tensor cores sum a group in float32, and its sum is scaled in float32.
struct CodedGemmArguments {
  CodedMatrix w;
  const void* x = nullptr;
  Type x_type = Type::kFloat16;
  const float* x_scale = nullptr;
  int x_group = kCodedChunk;  ///< fewest columns with one scale: 16, 32 or 64
  const float* bias = nullptr;
  float clip = 0.0f;
  void* y = nullptr;
  Type out_type = Type::kFloat32;
  std::int64_t y_stride = 0;
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;  ///< a multiple of 64
};

/// Up to 128 rows of x by blocks that share out k, more by tiles of 128 x 64.
void coded_gemm(const CodedGemmArguments& arguments, StreamHandle stream);

}  // namespace attn::gpu
