// Codes of a packed weight to the A fragments of mma.sync and wgmma, and what scales them.
#pragma once

#include "gpu/device/check.h"
#include "gpu/kernels/coded_gemm.h"
#include "gpu/kernels/coded_store.cuh"
#include "gpu/kernels/mma.cuh"
#include "gpu/kernels/pair_fma.cuh"

namespace attn::gpu {

template <typename T>
struct Pairs;  // two 16-bit floats in a register
template <>
struct Pairs<Half> {
  static constexpr std::uint32_t kMagic = 0x64006400;  // 1024 + the low bits of each half
  static constexpr float kMagicValue = 1024.0f;
  static constexpr std::uint32_t kOne = 0x3c003c00;
  static __device__ __forceinline__ std::uint32_t both(float x) {
    const __half2 y = __float2half2_rn(x);
    return *reinterpret_cast<const std::uint32_t*>(&y);
  }
  static __device__ __forceinline__ std::uint32_t subtract(std::uint32_t a, std::uint32_t b) {
    const __half2 y =
        __hsub2(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b));
    return *reinterpret_cast<const std::uint32_t*>(&y);
  }
  /// e2m1 codes in the low bits of each half. The bits are those of a float16 with the exponent
  /// 14 too small, subnormal ones too.
  static __device__ __forceinline__ std::uint32_t from_e2m1(std::uint32_t v) {
    const std::uint32_t bits = (v & 0x00080008u) << 12 | (v & 0x00070007u) << 9;
    const __half2 y = __hmul2(*reinterpret_cast<const __half2*>(&bits), __float2half2_rn(0x1p14f));
    return *reinterpret_cast<const std::uint32_t*>(&y);
  }
  static __device__ __forceinline__ std::uint32_t from_half(std::uint32_t v) { return v; }
  static __device__ __forceinline__ std::uint32_t multiply(std::uint32_t a, std::uint32_t b) {
    const __half2 y =
        __hmul2(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b));
    return *reinterpret_cast<const std::uint32_t*>(&y);
  }
};
template <>
struct Pairs<Bf16> {
  static constexpr std::uint32_t kMagic = 0x43004300;  // 128 + the low bits: up to 7 of them
  static constexpr float kMagicValue = 128.0f;
  static constexpr std::uint32_t kOne = 0x3f803f80;
  static __device__ __forceinline__ std::uint32_t both(float x) {
    const __nv_bfloat162 y = __float2bfloat162_rn(x);
    return *reinterpret_cast<const std::uint32_t*>(&y);
  }
  static __device__ __forceinline__ std::uint32_t subtract(std::uint32_t a, std::uint32_t b) {
    const __nv_bfloat162 y = __hsub2(*reinterpret_cast<const __nv_bfloat162*>(&a),
                                     *reinterpret_cast<const __nv_bfloat162*>(&b));
    return *reinterpret_cast<const std::uint32_t*>(&y);
  }
  static __device__ __forceinline__ std::uint32_t from_e2m1(std::uint32_t v) {
    return from_half(Pairs<Half>::from_e2m1(v));
  }
  static __device__ __forceinline__ std::uint32_t from_half(std::uint32_t v) {
    const float2 f = __half22float2(*reinterpret_cast<const __half2*>(&v));
    return pack2<Bf16>(f.x, f.y);
  }
  static __device__ __forceinline__ std::uint32_t multiply(std::uint32_t a, std::uint32_t b) {
    const __nv_bfloat162 y = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&a),
                                     *reinterpret_cast<const __nv_bfloat162*>(&b));
    return *reinterpret_cast<const std::uint32_t*>(&y);
  }
};

/// One lane's codes of a chunk: rows lane / 4 and + 8, of each 16 columns those of its fragment.
template <CodeKind kKind>
struct ChunkCodes {
  static constexpr bool kBytes = kKind == CodeKind::kI8 || kKind == CodeKind::kE4m3;
  static constexpr int kCodeBytes = kBytes ? 1024 : 512;  // of a tile's chunk
  uint4 low;
  uint4 more;  // kBytes: steps 2 and 3
  uint2 high;

  /// From a chunk's records, in shared or global memory.
  __device__ __forceinline__ void load(const char* codes, const char* high_bits, int lane) {
    if (kBytes) {
      low = reinterpret_cast<const uint4*>(codes)[2 * lane];
      more = reinterpret_cast<const uint4*>(codes)[2 * lane + 1];
    } else {
      low = reinterpret_cast<const uint4*>(codes)[lane];
    }
    if (kKind == CodeKind::kU5) high.x = reinterpret_cast<const std::uint32_t*>(high_bits)[lane];
    if (kKind == CodeKind::kU6) high = reinterpret_cast<const uint2*>(high_bits)[lane];
  }

  /// What decode() subtracts.
  template <typename T>
  static __device__ __forceinline__ std::uint32_t zero_of(const CodedMatrix& w) {
    return Pairs<T>::both(Pairs<T>::kMagicValue + static_cast<float>(w.offset));
  }
  /// The A fragment of step `s` (a constant), codes minus the offset.
  template <typename T>
  __device__ __forceinline__ void decode(int s, std::uint32_t zero, std::uint32_t (&a)[4]) const {
    if (kBytes) {
      const uint4& half = s < 2 ? low : more;
      const std::uint32_t words[2] = {s % 2 == 0 ? half.x : half.z, s % 2 == 0 ? half.y : half.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const std::uint32_t word = words[i / 2];
        if (kKind == CodeKind::kI8) {
          const std::uint32_t biased = __byte_perm(word, 0x64646464u, i % 2 == 0 ? 0x4140 : 0x4342);
          a[i] = Pairs<T>::from_half(Pairs<Half>::subtract(biased, 0x64806480u));
        } else {
          const std::uint32_t pair = word >> 16 * (i % 2) & 0xffffu;
          const __half2_raw raw =
              __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(pair), __NV_E4M3);
          a[i] = Pairs<T>::from_half(static_cast<std::uint32_t>(raw.x) |
                                     static_cast<std::uint32_t>(raw.y) << 16);
        }
      }
      return;
    }
    const std::uint32_t word = s == 0 ? low.x : s == 1 ? low.y : s == 2 ? low.z : low.w;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      std::uint32_t v = word >> 4 * i & 0x000f000fu;
      if (kKind == CodeKind::kE2m1) {
        a[i] = Pairs<T>::from_e2m1(v);
        continue;
      }
      if (kKind == CodeKind::kU5) v |= (high.x >> (4 * s + i) & 0x00010001u) << 4;
      if (kKind == CodeKind::kU6) {
        v |= ((s < 2 ? high.x : high.y) >> (8 * (s % 2) + 2 * i) & 0x00030003u) << 4;
      }
      a[i] = Pairs<T>::subtract(v | Pairs<T>::kMagic, zero);
    }
  }
};

/// Rows lane / 4 and + 8 of an A fragment times their scales, `pair` in the type of x.
template <typename T>
__device__ __forceinline__ void scale_fragment(std::uint32_t pair, std::uint32_t (&a)[4]) {
  const std::uint32_t first = __byte_perm(pair, pair, 0x1010);
  const std::uint32_t second = __byte_perm(pair, pair, 0x3232);
#pragma unroll
  for (int i = 0; i < 4; ++i) a[i] = Pairs<T>::multiply(a[i], i % 2 == 0 ? first : second);
}

/// Of a pair of scales, of rows lane / 4 and + 8, each twice: 2^129 times the scale, and what takes
/// 8 times it off again, the pair times the two bfloat16 of kBack.
template <std::uint32_t kBack>
struct ScalePairs {
  std::uint32_t scale[2];
  std::uint32_t eight[2];
  __device__ __forceinline__ explicit ScalePairs(std::uint32_t pair) {
    const std::uint32_t up = Pairs<Bf16>::multiply(Pairs<Bf16>::multiply(pair, 0x7f007f00u),
                                                   0x40804080u);  // 2^127, 4
    const std::uint32_t back = Pairs<Bf16>::multiply(pair, kBack);
    scale[0] = __byte_perm(up, up, 0x1010);
    scale[1] = __byte_perm(up, up, 0x3232);
    eight[0] = __byte_perm(back, back, 0x1010);
    eight[1] = __byte_perm(back, back, 0x3232);
  }
};

/// Scales below a half in magnitude (CodedMatrix::small_scales) of rows lane / 4 and + 8, as they
/// multiply codes of 4 bits that are left where they are: from the fourth bit of a bfloat16 on
/// these are the code times 2^-129, below the normal numbers and in the first of their powers
/// alike. One fused multiply-add is (code - 8) times the scale then, rounded once, as it is
/// declared: 8 times a bfloat16 is one.
struct SmallScales : ScalePairs<0xc100c100u> {  // -8
  using ScalePairs::ScalePairs;
  /// The codes of a step, in their places.
  static __device__ __forceinline__ void codes_of(std::uint32_t word, std::uint32_t (&a)[4]) {
    const std::uint32_t upper = word >> 8;
    a[0] = word << 4 & 0x00f000f0u;
    a[1] = word & 0x00f000f0u;
    a[2] = upper << 4 & 0x00f000f0u;
    a[3] = upper & 0x00f000f0u;
  }
  __device__ __forceinline__ void decode(std::uint32_t word, std::uint32_t (&a)[4]) const {
    codes_of(word, a);
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = fma_bf16_pair(a[i], scale[i % 2], eight[i % 2]);
  }
};

/// The steps of 16 columns, of the four in a chunk, that share an inner scale: as a shift.
__device__ __forceinline__ int step_shift(const CodedMatrix& w) {
  return w.group_shift < 6 ? w.group_shift - 4 : 2;
}

/// Number `i` of a record's pairs.
__device__ __forceinline__ float2 pair_of(const char* record, ScaleType type, int i) {
  if (type == ScaleType::kFloat32) return reinterpret_cast<const float2*>(record)[i];
  if (type == ScaleType::kByte) {
    const uchar2 v = reinterpret_cast<const uchar2*>(record)[i];
    return {static_cast<float>(v.x), static_cast<float>(v.y)};
  }
  const std::uint32_t v = reinterpret_cast<const std::uint32_t*>(record)[i];
  if (type == ScaleType::kBFloat16) {
    return {__uint_as_float(v << 16), __uint_as_float(v & 0xffff0000u)};
  }
  return __half22float2(*reinterpret_cast<const __half2*>(&v));
}

/// Where the records of a chunk lie.
struct ChunkRecords {
  const char* inner = nullptr;
  const char* inner_min = nullptr;
  const char* outer = nullptr;
  const char* outer_min = nullptr;
};

/// Scales and mins of rows lane / 4 and + 8 at step `s` of a chunk.
struct RowScales {
  float2 scale = {0.0f, 0.0f};
  float2 min = {0.0f, 0.0f};
};
__device__ __forceinline__ RowScales row_scales(const CodedMatrix& w, const ChunkRecords& records,
                                                int s, int lane) {
  const int i = (s >> step_shift(w)) * 8 + lane / 4;
  RowScales r;
  r.scale = pair_of(records.inner, w.inner_type, i);
  float2 factor = {w.global, w.global};
  if (w.outer.bytes > 0) factor = reinterpret_cast<const float2*>(records.outer)[lane / 4];
  r.scale.x = __fmul_rn(r.scale.x - w.inner_bias, factor.x);
  r.scale.y = __fmul_rn(r.scale.y - w.inner_bias, factor.y);
  if (w.inner_min.bytes > 0) {
    const float2 min = pair_of(records.inner_min, w.inner_type, i);
    factor = reinterpret_cast<const float2*>(records.outer_min)[lane / 4];
    r.min = {__fmul_rn(min.x, factor.x), __fmul_rn(min.y, factor.y)};
  }
  return r;
}

/// total + part * scale * x_scale - min * x_sum, of row lane / 4 (0) or + 8 (1).
__device__ __forceinline__ float add_group(float total, float part, float x_sum, float x_scale,
                                           const RowScales& own, int second) {
  const float y = part * (second == 0 ? own.scale.x : own.scale.y);
  total = fmaf(-(second == 0 ? own.min.x : own.min.y), x_sum, total);
  return fmaf(y, x_scale, total);
}

/// Of `every` steps, the last of which is at `sums`. Mins belong to 32 columns, so they are 1 or 2.
__device__ __forceinline__ float sum_of_group(const float* sums, int every) {
  return every == 1 ? sums[0] : sums[-1] + sums[0];
}

/// Columns, 16 to 64, whose products are added before they are scaled.
__device__ __forceinline__ int columns_together(const CodedGemmArguments& a) {
  const int columns = kCodedStep << step_shift(a.w);
  return a.x_scale != nullptr && a.x_group < columns ? a.x_group : columns;
}

template <CodeKind kKind>
constexpr bool kMayHaveMin = kKind == CodeKind::kU4 || kKind == CodeKind::kU5;

__device__ __forceinline__ const char* record_of(const CodedPlane& plane, std::int64_t tile,
                                                 std::int64_t chunk) {
  return static_cast<const char*>(plane.data) + tile * plane.tile_bytes +
         (chunk >> plane.shift) * plane.bytes;
}

/// A lane's part of the copies of a chunk's records other than its codes: 16 bytes or none. They
/// are at most 512 bytes (check_planes), and follow the codes in the order of the planes.
struct RecordPiece {
  const char* from = nullptr;  ///< of tile 0, chunk 0
  std::int64_t tile_bytes = 0;
  int bytes = 0;
  int shift = 0;
};
struct RecordOffsets {
  int high = 0, inner = 0, inner_min = 0, outer = 0, outer_min = 0, end = 0;
};
__host__ __device__ __forceinline__ RecordOffsets record_offsets(const CodedMatrix& w,
                                                                 bool scales) {
  RecordOffsets o;
  o.high = w.codes.bytes;
  o.inner = o.high + w.high.bytes;
  o.inner_min = o.inner + (scales ? w.inner.bytes : 0);
  o.outer = o.inner_min + (scales ? w.inner_min.bytes : 0);
  o.outer_min = o.outer + (scales ? w.outer.bytes : 0);
  o.end = o.outer_min + (scales ? w.outer_min.bytes : 0);
  return o;
}
__device__ __forceinline__ RecordPiece record_piece(const CodedMatrix& w, bool scales, int lane) {
  RecordPiece piece;
  int at = 16 * lane;
  const auto take = [&](const CodedPlane& plane) {
    if (piece.from == nullptr && at >= 0 && at < plane.bytes) {
      piece = {static_cast<const char*>(plane.data) + at, plane.tile_bytes, plane.bytes,
               plane.shift};
    }
    at -= plane.bytes;
  };
  take(w.high);
  if (scales) {
    take(w.inner);
    take(w.inner_min);
    take(w.outer);
    take(w.outer_min);
  }
  return piece;
}

/// 16 bytes from global to shared memory.
__device__ __forceinline__ void copy_16(std::uint32_t shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(global) : "memory");
}

/// A lane's part of a tile's records, and the copies of a chunk of them to `to` in shared memory:
/// codes, then the others.
template <CodeKind kKind>
struct TileCopy {
  static constexpr int kBytes = ChunkCodes<kKind>::kCodeBytes;
  const char* codes = nullptr;
  const char* others = nullptr;

  TileCopy() = default;
  __device__ __forceinline__ TileCopy(const CodedMatrix& w, const RecordPiece& piece,
                                      std::int64_t tile, int lane)
      : codes(static_cast<const char*>(w.codes.data) + tile * w.codes.tile_bytes + 16 * lane),
        others(piece.from == nullptr ? nullptr : piece.from + tile * piece.tile_bytes) {}

  /// `to`: with 16 * lane added already.
  __device__ __forceinline__ void operator()(const RecordPiece& piece, int chunk,
                                             std::uint32_t to) const {
    const char* const from = codes + static_cast<std::int64_t>(chunk) * kBytes;
    copy_16(to, from);
    if (kBytes > 512) copy_16(to + 512, from + 512);
    if (others != nullptr) {
      copy_16(to + kBytes, others + static_cast<std::int64_t>(chunk >> piece.shift) * piece.bytes);
    }
  }
};

}  // namespace attn::gpu
