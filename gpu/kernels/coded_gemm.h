#pragma once

#include <cstddef>
#include <cstdint>

#include "gpu/device/device.h"
#include "gpu/kernels/bound.h"
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

/// Where the scales of a product's weights enter.
enum class CodeScaling : std::uint8_t {
  kWeight,  ///< each weight is (code - offset) * scale, rounded to the type of x
  kGroup,   ///< sums of exact products of codes, over the columns that share scales
  kRow,     ///< the same, over all columns: a scale for each row, one for each row of x
};

/// Columns of one packed chunk, rows of one packed tile, columns that may have a scale of their
/// own.
inline constexpr int kCodedChunk = 64;
inline constexpr int kCodedTile = 16;
inline constexpr int kCodedStep = 16;
/// Columns of one outer scale.
inline constexpr int kCodedOuter = 256;
/// Logarithm of columns or chunks that no row has.
inline constexpr int kWholeRow = 31;

/// One kind of data of a packed weight: a record of `bytes`, a multiple of 16, for each tile and
/// every 2^shift chunks. Scales lie in it by group, then row r and row r + 8 beside each other, so
/// that a lane of an mma fragment finds its two with one load.
struct CodedPlane {
  const void* data = nullptr;
  int bytes = 0;  ///< 0: there is none
  int shift = 0;  ///< kWholeRow: one record for the whole row
  std::int64_t tile_bytes = 0;
};

enum class ScaleType : std::uint8_t { kFloat32, kFloat16, kBFloat16, kByte };

/// A weight [n, k] as it was stored, repacked once so that a lane of a warp reads the codes of its
/// mma fragments with 16-byte loads: value = (code - offset) * scale - min, where
///   scale = (inner - inner_bias) * global      without outer scales
///   scale = (inner - inner_bias) * outer       with them, one for 256 columns
///   min = inner_min * outer_min
/// each product rounded to float32. Planes have `rows` rows: n rounded up to whole tiles. Device
/// pointers.
struct CodedMatrix {
  CodeKind kind = CodeKind::kU4;
  CodeScaling scaling = CodeScaling::kGroup;
  int offset = 0;                              ///< of unsigned codes
  CodedPlane codes;                            ///< [tile][chunk][lane]: 16 bytes, or 32 for bytes
  CodedPlane high;                             ///< kU5: 4 bytes, kU6: 8 bytes, likewise
  CodedPlane inner;                            ///< kWeight: of the type of x; kRow: float32
  CodedPlane inner_min;                        ///< or none
  CodedPlane outer;                            ///< float32, or none
  CodedPlane outer_min;                        ///< float32, with inner_min
  ScaleType inner_type = ScaleType::kFloat32;  ///< of inner and inner_min
  float inner_bias = 0.0f;
  float global = 1.0f;
  /// kWeight, codes of 4 bits less 8, bfloat16: the inner scales lie below a half in magnitude.
  bool small_scales = false;
  std::int64_t rows = 0;
  std::int64_t chunks = 0;
  int group_shift =
      0;  ///< 2^group_shift columns share an inner scale, 16 or more; kWholeRow: all do
};

/// y = clip(x w^T + bias), rounded once: x [m, k] of float16 or bfloat16, times x_scale [m, chunks
/// * 4] where that is given (kWeight: never; kRow: the first of each row); y [m, n] with rows
/// y_stride apart. Codes are exact in both types, so their products are; the tensor cores sum them
/// in float32.
struct CodedGemmArguments {
  CodedMatrix w;
  const void* x = nullptr;  ///< rows x_stride apart, each at a multiple of 16 bytes
  Type x_type = Type::kFloat16;
  std::int64_t x_stride = 0;
  const float* x_scale = nullptr;
  /// [m, chunks * 4], where the weight has mins: of each 16 columns the sum of x times x_scale.
  const float* x_sum = nullptr;
  int x_group = kCodedChunk;  ///< fewest columns with one scale: 16, 32 or 64
  const float* bias = nullptr;
  float clip = kNoBound;  ///< bound of |y|
  void* y = nullptr;
  Type out_type = Type::kFloat32;
  std::int64_t y_stride = 0;
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::uint32_t zero = 0;  ///< as the compiler cannot know
  std::int64_t k = 0;      ///< a multiple of 8; columns up to whole chunks are codes of 0
};

/// How a product is shared out; decided on the host.
struct CodedGemmPlan {
  /// Rows of x in a tile of the wgmma kernel; 0: the mma.sync kernels.
  int tile = 0;
  int blocks = 0;                 ///< of the wgmma kernel; they share out all tiles' chunks
  std::size_t partial_bytes = 0;  ///< of workspace for sums of tiles that several blocks share
};

/// Counters that a product may use: unsigned zeros, which it leaves zero.
inline constexpr int kCodedCounters = 1024;

/// `tile`: 0, or the tile that is wanted where the wgmma kernel serves: 32, 64 or 128.
CodedGemmPlan plan_coded_gemm(CodeScaling scaling, std::int64_t m, std::int64_t rows,
                              std::int64_t chunks, int multiprocessors, int tile = 0);

/// Up to 16 rows of x by warps that share out k; more by wgmma on compute capability 9.0, elsewhere
/// by 128 x 64 tiles of mma.sync. `partials` and `counters` as the plan asks.
void coded_gemm(const CodedGemmArguments& arguments, const CodedGemmPlan& plan, float* partials,
                unsigned* counters, StreamHandle stream);

/// The weight's values, row after row of `k` columns, in `type`: rounded where it is kWeight (whose
/// x type that must be), else float32, rounded at each step of CodedMatrix's formula.
void decode_codes(const CodedMatrix& w, std::int64_t n, std::int64_t k, Type type, void* values,
                  StreamHandle stream);

}  // namespace attn::gpu
