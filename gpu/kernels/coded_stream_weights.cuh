// Products of up to 8 rows of x with weights of 4 bits that are made in the type of x, scale and
// rounding included (gptq), by the same stream: codes to the registers that mma.sync reads.
#pragma once

#include "gpu/kernels/coded_decode.cuh"
#include "gpu/kernels/coded_stream.cuh"

namespace attn::gpu {

/// x to shared memory, rows of whole chunks, zeros behind the last column.
__device__ __forceinline__ void bring_rows(const CodedGemmArguments& a, char* to) {
  const int pieces = static_cast<int>(a.w.chunks) * 8;  // of 16 bytes, of a row
  const int stride = weight_x_stride(a.w);
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x); i < pieces * static_cast<int>(a.m);
       i += kStreamThreads) {
    const int row = i / pieces;
    const int piece = i % pieces;
    uint4 v = {0, 0, 0, 0};
    if (8 * piece < a.k) {
      v = reinterpret_cast<const uint4*>(static_cast<const char*>(a.x) +
                                         2 * row * a.x_stride)[piece];
    }
    *reinterpret_cast<uint4*>(to + row * stride + 16 * piece) = v;
  }
}

/// The sums of one tile that a warp makes, of its stages.
template <typename T, bool kOneScale>
struct WeightStreamSums {
  using Stage = WeightStage<kOneScale>;
  const CodedGemmArguments& a;
  const int lane;
  const std::uint32_t zero;
  const std::uint32_t mask;  ///< in a register, so that it and the magic number are one instruction
  std::uint32_t x_at;        ///< this lane's 16 bytes of chunk 0 for ldmatrix
  float sum[4] = {};

  __device__ WeightStreamSums(const CodedGemmArguments& arguments, const char* x, int own_lane)
      : a(arguments),
        lane(own_lane),
        zero(ChunkCodes<CodeKind::kU4>::template zero_of<T>(a.w)),
        mask(0x000f000fu | a.zero) {
    const int row = lane % 8 < a.m ? lane % 8 : static_cast<int>(a.m) - 1;  // too many: not stored
    x_at = shared_address(x + row * weight_x_stride(a.w)) + 16 * (lane / 8);
  }

  __device__ __forceinline__ void add(const char* data, int stage) {
    const int first = stage * Stage::kChunks;
    const int shift = kOneScale ? a.w.inner.shift : step_shift(a.w);
#pragma unroll
    for (int c = 0; c < Stage::kChunks; ++c) {
      if (first + c >= static_cast<int>(a.w.chunks)) break;
      std::uint32_t b[2][4];  // two steps each
      load_matrix_x4(b[0], x_at + 128 * (first + c));
      load_matrix_x4(b[1], x_at + 128 * (first + c) + 64);
      const uint4 codes = reinterpret_cast<const uint4*>(data + c * Stage::kCodeBytes)[lane];
      const std::uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
      const char* const record =
          data + Stage::kInner + (kOneScale ? c >> shift : c) * a.w.inner.bytes;
      const auto* const scales = reinterpret_cast<const std::uint32_t*>(record) + lane / 4;
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        std::uint32_t w[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          w[i] = Pairs<T>::subtract((words[step] >> 4 * i & mask) | Pairs<T>::kMagic, zero);
        }
        scale_fragment<T>(scales[kOneScale ? 0 : (step >> shift) * 8], w);
        mma_16x8x16<T>(sum, w, b[step / 2][2 * (step % 2)], b[step / 2][2 * (step % 2) + 1]);
      }
    }
  }

  /// To [row of x][16 rows of W], and starts again.
  __device__ __forceinline__ void flush(float* to) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int row = 2 * (lane % 4) + e % 2;
      if (row < a.m) to[kCodedTile * row + lane / 4 + (e < 2 ? 0 : 8)] = sum[e];
      sum[e] = 0.0f;
    }
  }
};

template <typename T, bool kOneScale>
__global__ void __launch_bounds__(kStreamThreads, 2)
    coded_stream_weights(const __grid_constant__ CodedGemmArguments a, int tiles_of_block) {
  const int rows = static_cast<int>(a.m);
  stream_product<WeightStage<kOneScale>>(
      a, rows, rows * weight_x_stride(a.w), tiles_of_block, [&](char* to) { bring_rows(a, to); },
      [&](const char* x) {
        return WeightStreamSums<T, kOneScale>(a, x, static_cast<int>(threadIdx.x % 32));
      });
}

}  // namespace attn::gpu
