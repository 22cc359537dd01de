// Products of up to 16 rows of x with weights of 4 bits that are made in the type of x, scale and
// rounding included (gptq), by the same stream: codes to the registers that mma.sync reads.
#pragma once

#include "gpu/kernels/coded_decode.cuh"
#include "gpu/kernels/coded_stream.cuh"

namespace attn::gpu {

/// Stages [first, end) of x to shared memory, by a warp; zeros behind the last column.
__device__ __forceinline__ void bring_rows(const CodedGemmArguments& a, char* to, int first,
                                           int end, int lane) {
  constexpr int kPieces = WeightStage<true>::kChunks * 8;  // of 16 bytes, of a stage: one a lane
  static_assert(kPieces == 32);
  const int stride = weight_x_stride(a.w);
  for (int stage = first; stage < end; ++stage) {
    const int piece = kPieces * stage + lane;
    const char* const from = static_cast<const char*>(a.x) + 16 * static_cast<std::int64_t>(piece);
    const bool there = 8 * piece < a.k;
#pragma unroll 4
    for (int row = 0; row < static_cast<int>(a.m); ++row) {
      uint4 v = {0, 0, 0, 0};
      if (there) v = *reinterpret_cast<const uint4*>(from + 2 * row * a.x_stride);
      *reinterpret_cast<uint4*>(to + row * stride + 16 * piece) = v;
    }
  }
}

/// The sums of one tile that a warp makes, of its stages. kTiles: of eight rows of x.
template <typename T, bool kOneScale, int kTiles>
struct WeightStreamSums {
  using Stage = WeightStage<kOneScale>;
  const CodedGemmArguments& a;
  const int lane;
  const std::uint32_t zero;
  const std::uint32_t mask;  ///< in a register, so that it and the magic number are one instruction
  std::uint32_t x_at[kTiles];    ///< this lane's 16 bytes of chunk 0 for ldmatrix
  float sum[kTiles][2][4] = {};  ///< of even and odd steps
  struct Held {
    float sum[kTiles][4] = {};
  };

  __device__ WeightStreamSums(const CodedGemmArguments& arguments, const char* x, int own_lane)
      : a(arguments),
        lane(own_lane),
        zero(ChunkCodes<CodeKind::kU4>::template zero_of<T>(a.w)),
        mask(0x000f000fu | a.zero) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const int own = 8 * t + lane % 8;
      const int row = own < a.m ? own : static_cast<int>(a.m) - 1;  // too many: not stored
      x_at[t] = shared_address(x + row * weight_x_stride(a.w)) + 16 * (lane / 8);
    }
  }

  /// What multiplies the weights of a chunk's step.
  __device__ __forceinline__ const std::uint32_t* scales_of(const char* data, int chunk) const {
    const int record = kOneScale ? chunk >> a.w.inner.shift : chunk;
    return reinterpret_cast<const std::uint32_t*>(data + Stage::kInner + record * a.w.inner.bytes) +
           lane / 4;
  }
  __device__ __forceinline__ void load_x(std::uint32_t (&b)[kTiles][2][4], int chunk) const {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      load_matrix_x4(b[t][0], x_at[t] + 2 * kCodedChunk * chunk);
      load_matrix_x4(b[t][1], x_at[t] + 2 * kCodedChunk * chunk + 64);
    }
  }
  __device__ __forceinline__ void multiply(const std::uint32_t (&w)[4], int step,
                                           const std::uint32_t (&b)[kTiles][2][4]) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      mma_16x8x16<T>(sum[t][step % 2], w, b[t][step / 2][2 * (step % 2)],
                     b[t][step / 2][2 * (step % 2) + 1]);
    }
  }

  __device__ __forceinline__ void add_chunk(const char* data, int first, int c) {
    const int shift = step_shift(a.w);
    std::uint32_t b[kTiles][2][4];  // two steps each
    load_x(b, first + c);
    const uint4 codes = reinterpret_cast<const uint4*>(data + c * Stage::kCodeBytes)[lane];
    const std::uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
    const std::uint32_t* const scales = scales_of(data, c);
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      std::uint32_t w[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        w[i] = Pairs<T>::subtract((words[step] >> 4 * i & mask) | Pairs<T>::kMagic, zero);
      }
      scale_fragment<T>(scales[kOneScale ? 0 : (step >> shift) * 8], w);
      multiply(w, step, b);
    }
  }

  /// The same of small scales.
  __device__ __forceinline__ void add_small_chunk(const char* data, int first, int c) {
    std::uint32_t b[kTiles][2][4];
    load_x(b, first + c);
    const uint4 codes = reinterpret_cast<const uint4*>(data + c * Stage::kCodeBytes)[lane];
    const std::uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
    const SmallScales own(*scales_of(data, c));
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      std::uint32_t w[4];
      own.decode(words[step], w);
      multiply(w, step, b);
    }
  }

  __device__ __forceinline__ void add(const char* data, int stage) {
    const int first = stage * Stage::kChunks;
    const int chunks = static_cast<int>(a.w.chunks) - first;
    constexpr bool kMayBeSmall = kOneScale && TypeOf<T>::value == Type::kBFloat16;
    if (chunks >= Stage::kChunks && (!kMayBeSmall || a.w.small_scales)) {
#pragma unroll
      for (int c = 0; c < Stage::kChunks; ++c) {
        if constexpr (kMayBeSmall) {
          add_small_chunk(data, first, c);
        } else {
          add_chunk(data, first, c);
        }
      }
    } else {  // seldom: the last stage of widths that are no multiple of 256; or wide scales
#pragma unroll 1
      for (int c = 0; c < Stage::kChunks && c < chunks; ++c) add_chunk(data, first, c);
    }
  }

  /// Adds what there is to a tile's sums, and starts again.
  __device__ __forceinline__ void take(Held& to) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        to.sum[t][e] += sum[t][0][e] + sum[t][1][e];
        sum[t][0][e] = sum[t][1][e] = 0.0f;
      }
    }
  }
  /// To or, kAdd, added to [row of x][16 rows of W].
  template <bool kAdd = false>
  __device__ __forceinline__ void put(const Held& held, float* to) const {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = 8 * t + 2 * (lane % 4) + e % 2;
        if (row >= a.m) continue;
        float& own = to[kCodedTile * row + lane / 4 + (e < 2 ? 0 : 8)];
        own = kAdd ? own + held.sum[t][e] : held.sum[t][e];
      }
    }
  }
  __device__ __forceinline__ void flush(float* to) {
    Held held;
    take(held);
    put<true>(held, to);
  }
};

template <typename T, bool kOneScale, int kTiles>
__global__ void __launch_bounds__(kStreamThreads, kTiles == 1 ? 2 : 1)
    coded_stream_weights(const __grid_constant__ CodedGemmArguments a, int tiles_of_block) {
  const int rows = static_cast<int>(a.m);
  stream_product<WeightStage<kOneScale>, (kTiles > 1)>(
      a, rows, rows * weight_x_stride(a.w), tiles_of_block,
      [&](char* to, int first, int end) {
        bring_rows(a, to, first, end, static_cast<int>(threadIdx.x % 32));
      },
      [&](const char* x) {
        return WeightStreamSums<T, kOneScale, kTiles>(a, x, static_cast<int>(threadIdx.x % 32));
      });
}

}  // namespace attn::gpu
