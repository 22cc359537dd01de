// Few rows of x, turned to int8 codes, with gguf's weights: bytes times bytes on the tensor cores,
// summed in 32 bits. W is the A operand: its codes of 4 bits are bytes after one mask each, with
// nothing subtracted, shifted or widened, and its bytes after a permutation.
#pragma once

#include "gpu/kernels/coded_stream.cuh"
#include "gpu/kernels/coded_stream_input.cuh"

namespace attn::gpu {

/// Bytes of A of 32 columns from a lane's words of packed weights: rows lane / 4 (a0, a2) and + 8.
/// What they are times their codes: kU4 of super blocks, rows + 8: 16; kU4 else: 16, and 8 less.
template <CodeKind kKind, bool kSuper>
__device__ __forceinline__ void stream_bytes(std::uint32_t first, std::uint32_t second,
                                             std::uint32_t (&a)[4]) {
  if constexpr (kKind == CodeKind::kI8) {
    // The words of 16 columns: two columns of both rows, then those 8 further.
    a[0] = __byte_perm(first, second, 0x5140) ^ 0x80808080u;
    a[1] = __byte_perm(first, second, 0x7362) ^ 0x80808080u;
  } else if constexpr (kSuper) {
    a[0] = first & 0x0f0f0f0fu;
    a[1] = first & 0xf0f0f0f0u;
    a[2] = second & 0x0f0f0f0fu;
    a[3] = second & 0xf0f0f0f0u;
  } else {
    a[0] = (first << 4 & 0xf0f0f0f0u) ^ 0x80808080u;
    a[1] = (first & 0xf0f0f0f0u) ^ 0x80808080u;
    a[2] = (second << 4 & 0xf0f0f0f0u) ^ 0x80808080u;
    a[3] = (second & 0xf0f0f0f0u) ^ 0x80808080u;
  }
}

/// The bits above the fourth of a lane's codes of 16 columns, as bytes of rows lane / 4 and + 8.
/// `word`: shifted so that those of these columns are the lowest of each half.
__device__ __forceinline__ void fifth_bits(std::uint32_t word, std::uint32_t& a0,
                                           std::uint32_t& a1) {
  a0 = (word & 0x00010001u) << 4 | (word & 0x00040004u) << 10;
  a1 = (word & 0x00020002u) << 3 | (word & 0x00080008u) << 9;
}
__device__ __forceinline__ void sixth_bits(std::uint32_t word, std::uint32_t& a0,
                                           std::uint32_t& a1) {
  a0 = (word & 0x00030003u) << 4 | (word & 0x00300030u) << 8;
  a1 = (word & 0x000c000cu) << 2 | (word & 0x00c000c0u) << 6;
}

__device__ __forceinline__ int signed_byte(std::uint32_t word, int i) {
  return static_cast<signed char>(word >> 8 * i);
}

/// The sums of one tile that a warp makes, of its stages. kRows: 1, or room for 8 or 16 rows of x.
template <CodeKind kKind, bool kSuper, int kRows>
struct StreamSums {
  using Stage = StreamStage<kKind, kSuper>;
  static constexpr int kTiles = kRows > 8 ? 2 : 1;   // of eight rows of x
  static constexpr int kEvery = kRows == 1 ? 2 : 1;  // of the four sums of a lane those that count
  const CodedGemmArguments& a;
  const StreamImage& image;
  const char* const x;  ///< the image
  const int lane;
  int x_row[kTiles];  ///< this lane's row of x
  float sum[kTiles][4] = {};

  __device__ StreamSums(const CodedGemmArguments& arguments, const StreamImage& shape,
                        const char* codes, int own_lane)
      : a(arguments), image(shape), x(codes), lane(own_lane) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const int row = 8 * t + lane / 4;
      const int last = image.rows - 1;  // what is too many is not stored
      x_row[t] = kRows == 1 ? 0 : row < last ? row : last;
    }
  }

  __device__ __forceinline__ uint4 x_words(int t, int chunk) const {
    return *reinterpret_cast<const uint4*>(x + x_row[t] * image.stride + kCodedChunk * chunk +
                                           16 * (lane % 4));
  }
  /// Of the rows of x that sum e of a lane belongs to, of scale number `block`.
  __device__ __forceinline__ float x_scale(int t, int e, int block) const {
    const auto* const scales = reinterpret_cast<const float*>(x + image.scales);
    if (kRows == 1) return scales[block];
    return scales[block * kRows + 8 * t + 2 * (lane % 4) + e % 2];
  }

  /// q4_0 and q8_0: sums of 32 columns, times both scales.
  __device__ __forceinline__ void add_small(const char* data, int first_chunk) {
    const int chunks = static_cast<int>(a.w.chunks) - first_chunk;
    if (chunks >= Stage::kChunks) {
#pragma unroll
      for (int c = 0; c < Stage::kChunks; ++c) add_chunk(data, first_chunk, c);
    } else {
#pragma unroll 1
      for (int c = 0; c < chunks; ++c) add_chunk(data, first_chunk, c);
    }
  }
  __device__ __forceinline__ void add_chunk(const char* data, int first_chunk, int c) {
    uint4 own[2];
    const char* const codes = data + c * Stage::kCodeBytes;
    if constexpr (Stage::kBytes) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        own[half] = *reinterpret_cast<const uint4*>(codes + byte_piece(lane, half));
      }
    } else {
      own[0] = reinterpret_cast<const uint4*>(codes)[lane];
    }
    uint4 b[kTiles];
#pragma unroll
    for (int t = 0; t < kTiles; ++t) b[t] = x_words(t, first_chunk + c);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      std::uint32_t w[4];
      if constexpr (Stage::kBytes) {
        // own[0]: words 0 to 3 of the lane's eight, steps 0 and 1; own[1]: steps 2 and 3.
        const uint4& words = own[half];
        std::uint32_t rest[4];
        stream_bytes<kKind, kSuper>(words.x, words.y, w);
        stream_bytes<kKind, kSuper>(words.z, words.w, rest);
        w[2] = rest[0];
        w[3] = rest[1];
      } else {
        stream_bytes<kKind, kSuper>(half == 0 ? own[0].x : own[0].z,
                                    half == 0 ? own[0].y : own[0].w, w);
      }
      const float2 scale = __half22float2(
          reinterpret_cast<const __half2*>(data + Stage::kInner)[8 * (2 * c + half) + lane / 4]);
      const int block = 2 * (first_chunk + c) + half;
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        int part[4] = {};
        mma_bytes_32<false>(part, w, half == 0 ? b[t].x : b[t].z, half == 0 ? b[t].y : b[t].w);
#pragma unroll
        for (int e = 0; e < 4; e += kEvery) {
          const int exact = Stage::kBytes ? part[e] : part[e] >> 4;
          const float y = __fmul_rn(static_cast<float>(exact), x_scale(t, e, block));
          sum[t][e] = __fmaf_rn(y, e < 2 ? scale.x : scale.y, sum[t][e]);
        }
      }
    }
  }

  /// Sums of a group times its scale, two bytes at `scales` for the lane's rows.
  __device__ __forceinline__ void add_scaled(const int (&part)[kTiles][4], std::uint32_t scales,
                                             int (&total)[kTiles][4]) const {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 4; e += kEvery) {
        total[t][e] += part[t][e] * signed_byte(scales, e < 2 ? 0 : 1);
      }
    }
  }
  __device__ __forceinline__ std::uint32_t scales_of(const char* record, int group) const {
    return *reinterpret_cast<const std::uint16_t*>(record + 16 * group + 2 * (lane / 4));
  }
  /// Scales of q6_k lie 128 higher where some are negative.
  __device__ __forceinline__ std::uint32_t flip() const {
    return a.w.inner_bias != 0.0f ? 0x8080u : 0;
  }

  __device__ __forceinline__ void multiply_groups(const char* data, int first_chunk,
                                                  int (&total)[kTiles][4]) const {
#pragma unroll
    for (int c = 0; c < Stage::kChunks; ++c) {
      const uint4 own = reinterpret_cast<const uint4*>(data + c * Stage::kCodeBytes)[lane];
      const std::uint32_t words[4] = {own.x, own.y, own.z, own.w};
      uint2 high = {0, 0};
      if (kKind == CodeKind::kU5) {
        high.x = reinterpret_cast<const std::uint32_t*>(data + Stage::kHigh + c * 128)[lane];
      }
      if (kKind == CodeKind::kU6) {
        high = reinterpret_cast<const uint2*>(data + Stage::kHigh + c * 256)[lane];
      }
      std::uint32_t b[kTiles][4];
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const uint4 v = x_words(t, first_chunk + c);
        b[t][0] = v.x;
        b[t][1] = v.y;
        b[t][2] = v.z;
        b[t][3] = v.w;
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        std::uint32_t w[4];
        if constexpr (kKind == CodeKind::kU4) {
          stream_bytes<kKind, kSuper>(words[2 * half], words[2 * half + 1], w);
        } else {
#pragma unroll
          for (int s = 0; s < 2; ++s) {
            const int step = 2 * half + s;
            std::uint32_t a0;
            std::uint32_t a1;
            if constexpr (kKind == CodeKind::kU5) {
              fifth_bits(high.x >> 4 * step, a0, a1);
            } else {
              sixth_bits((step < 2 ? high.x : high.y) >> 8 * (step % 2), a0, a1);
            }
            w[2 * s] = (words[step] & 0x0f0f0f0fu) | a0;
            w[2 * s + 1] = (words[step] >> 4 & 0x0f0f0f0fu) | a1;
          }
        }
        if constexpr (Stage::kGroup == 32) {
          int part[kTiles][4] = {};
#pragma unroll
          for (int t = 0; t < kTiles; ++t) {
            mma_bytes_32<true>(part[t], w, b[t][2 * half], b[t][2 * half + 1]);
          }
          add_scaled(part, scales_of(data + Stage::kInner, 2 * c + half), total);
        } else {
#pragma unroll
          for (int s = 0; s < 2; ++s) {
            int part[kTiles][4] = {};
#pragma unroll
            for (int t = 0; t < kTiles; ++t) {
              mma_bytes_16<true>(part[t], w[2 * s], w[2 * s + 1], b[t][2 * half + s]);
            }
            add_scaled(part, scales_of(data + Stage::kInner, 4 * c + 2 * half + s) ^ flip(), total);
          }
        }
      }
    }
  }

  /// What is subtracted: each group's sum of codes of x times its min (q6_k: its scale), as one
  /// product whose columns are the groups.
  __device__ __forceinline__ void multiply_sums(const char* record, int unit,
                                                int (&total)[kTiles][4]) const {
    // Of four groups the lane's two rows: bytes 0 and 1 of each.
    const int first = Stage::kGroup == 16 ? 4 * (lane % 4) : 4 * (lane % 2);
    std::uint32_t pairs[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      pairs[i] = scales_of(record, first + i);
      if (kKind == CodeKind::kU6) pairs[i] ^= flip();
    }
    const std::uint32_t low = __byte_perm(pairs[0], pairs[1], 0x5140);
    const std::uint32_t up = __byte_perm(pairs[2], pairs[3], 0x5140);
    const std::uint32_t a0 = __byte_perm(low, up, 0x5410);
    const std::uint32_t a1 = __byte_perm(low, up, 0x7632);
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const auto* const sums = reinterpret_cast<const std::uint32_t*>(
          x + image.sums + 32 * (unit * image.rows + x_row[t]));
      mma_bytes_16<false>(total[t], a0, a1, sums[4 + lane % 4]);
#pragma unroll
      for (int e = 0; e < 4; ++e) total[t][e] *= 128;
      mma_bytes_16<false>(total[t], a0, a1, sums[lane % 4]);
    }
  }

  /// The k-quants: whole numbers of 256 columns, then the scales of both.
  __device__ __forceinline__ void add_super(const char* data, int unit) {
    int total[kTiles][4] = {};
    int less[kTiles][4] = {};
    multiply_groups(data, unit * Stage::kChunks, total);
    multiply_sums(data + (Stage::kHasMin ? Stage::kInnerMin : Stage::kInner), unit, less);
    const float2 outer = reinterpret_cast<const float2*>(data + Stage::kOuter)[lane / 4];
    float2 outer_min = {0.0f, 0.0f};
    if (Stage::kHasMin) {
      outer_min = reinterpret_cast<const float2*>(data + Stage::kOuterMin)[lane / 4];
    }
    const float second = kKind == CodeKind::kU4 ? outer.y * 0.0625f : outer.y;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 4; e += kEvery) {
        const float d = e < 2 ? outer.x : second;
        float y;
        if constexpr (Stage::kHasMin) {
          y = __fadd_rn(
              __fmul_rn(static_cast<float>(total[t][e]), d),
              -__fmul_rn(static_cast<float>(less[t][e]), e < 2 ? outer_min.x : outer_min.y));
        } else {
          y = __fmul_rn(static_cast<float>(total[t][e] - 32 * less[t][e]), d);
        }
        sum[t][e] = __fadd_rn(sum[t][e], __fmul_rn(y, x_scale(t, e, unit)));
      }
    }
  }

  __device__ __forceinline__ void add(const char* data, int stage) {
    if constexpr (kSuper) {
      add_super(data, stage);
    } else {
      add_small(data, stage * Stage::kChunks);
    }
  }

  /// Added to [row of x][16 rows of W], and starts again.
  __device__ __forceinline__ void flush(float* to) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 4; e += kEvery) {
        const int row = kRows == 1 ? 0 : 8 * t + 2 * (lane % 4) + e % 2;
        if (row < image.rows && (kRows > 1 || lane % 4 == 0)) {
          to[kCodedTile * row + lane / 4 + (e < 2 ? 0 : 8)] += sum[t][e];
        }
        sum[t][e] = 0.0f;
      }
    }
  }
};

/// Units [first, end) of the image of x in shared memory, by a warp: made here (image_from null) or
/// fetched. Two warps that share a unit write the same there.
__device__ __forceinline__ void bring_units(const CodedGemmArguments& a, const StreamImage& image,
                                            const void* image_from, char* to, int first, int end,
                                            int lane) {
  if (image_from == nullptr) {
    const int parts = image.rows * (end - first);
    StreamValues next;
    next.load(a, 0, first, lane);
    int row = 0;
    int unit = first;
    for (int i = 0; i < parts; ++i) {
      const StreamValues values = next;
      const int own_row = row;
      const int own_unit = unit;
      if (++row == image.rows) {
        row = 0;
        ++unit;
      }
      if (i + 1 < parts) next.load(a, row, unit, lane);
      store_stream_codes(image, to, own_row, own_unit, lane, values);
    }
    return;
  }
  // Not by cp.async: its groups end in order, and those of the weights are long under way.
  const auto* const from = static_cast<const char*>(image_from);
  const int scales = image.room * 4 * (kStreamUnit / image.block);
  const int sums = image.group > 0 ? 32 * image.rows : 0;
  const auto fetch = [&](int offset) {
    *reinterpret_cast<uint4*>(to + offset) = *reinterpret_cast<const uint4*>(from + offset);
  };
  for (int unit = first; unit < end; ++unit) {
    constexpr int kPieces = kStreamUnit / 16;  // of a row
#pragma unroll 4
    for (int i = lane; i < kPieces * image.rows; i += 32) {
      fetch(i / kPieces * image.stride + kStreamUnit * unit + 16 * (i % kPieces));
    }
    for (int i = 16 * lane; i < scales; i += 512) fetch(image.scales + scales * unit + i);
    for (int i = 16 * lane; i < sums; i += 512) fetch(image.sums + sums * unit + i);
  }
}

/// `image_from`: the codes of x, made by stream_codes; null: made here. a.x are the activations.
template <CodeKind kKind, bool kSuper, int kRows>
__global__ void __launch_bounds__(kStreamThreads, kRows > 8 ? 1 : 2)
    coded_stream(const __grid_constant__ CodedGemmArguments a,
                 const __grid_constant__ StreamImage image, const void* image_from,
                 int tiles_of_block) {
  using Stage = StreamStage<kKind, kSuper>;
  const auto unit_of = [](int stage) { return stage * Stage::kChunks * kCodedChunk / kStreamUnit; };
  StreamImage own = image;  // what the compiler can know
  own.block = kSuper ? kStreamUnit : 32;
  own.group = kSuper ? Stage::kGroup : 0;
  if (kRows == 1) own.rows = own.room = 1;
  stream_product<Stage, false>(
      a, own.rows, image.bytes, tiles_of_block,
      [&](char* to, int first, int end) {
        bring_units(a, own, kRows == 1 ? nullptr : image_from, to, unit_of(first),
                    unit_of(end - 1) + 1, static_cast<int>(threadIdx.x % 32));
      },
      [&](const char* x) {
        return StreamSums<kKind, kSuper, kRows>(a, own, x, static_cast<int>(threadIdx.x % 32));
      });
}

/// The image of x for products of more rows than their blocks turn to codes themselves.
template <int kWarps>
__global__ void __launch_bounds__(32 * kWarps)
    stream_codes(const __grid_constant__ CodedGemmArguments a,
                 const __grid_constant__ StreamImage image, char* to) {
  allow_dependent_launch();
  wait_for_previous_grid();
  const int part = static_cast<int>(blockIdx.x * kWarps + threadIdx.x / 32);
  if (part >= image.rows * image.units) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  StreamValues values;
  values.load(a, part / image.units, part % image.units, lane);
  store_stream_codes(image, to, part / image.units, part % image.units, lane, values);
}

}  // namespace attn::gpu
