// One row of x with weights of 4 bits that are made in the type of x (gptq, groups of 128 columns
// and more). x lies in shared memory, of each warp by itself.
#pragma once

#include <type_traits>

#include "gpu/kernels/coded_stream_one.cuh"
#include "gpu/kernels/coded_stream_weights.cuh"

namespace attn::gpu {

/// kSmall: SmallScales.
template <typename T, bool kSmall>
struct OneRowOfWeights {
  static constexpr int kJobBytes = kOneRowWeightsJob;
  const CodedGemmArguments& a;
  const int lane;
  const std::uint32_t zero;
  const std::uint32_t mask;  ///< as in WeightStreamSums
  char* const x;             ///< a stage's columns
  const char* codes = nullptr;
  const char* scales = nullptr;
  uint4 v = {0, 0, 0, 0};  ///< this lane's of a stage

  __device__ __forceinline__ OneRowOfWeights(const CodedGemmArguments& arguments, char* own_x,
                                             int own_lane)
      : a(arguments),
        lane(own_lane),
        zero(ChunkCodes<CodeKind::kU4>::template zero_of<T>(a.w)),
        mask(0x000f000fu | a.zero),
        x(own_x) {}

  __device__ __forceinline__ void start(int tile) {
    codes = tile_of(a.w.codes, tile) + 16 * lane;
    scales = tile_of(a.w.inner, tile) + 4 * (lane / 4);
  }

  /// Words: of each two chunks the scales of rows lane / 4 and + 8.
  __device__ __forceinline__ void copy(std::uint32_t slot, int tile, int stage) const {
    const int chunk = 4 * stage;
    const char* const from =
        codes + 512 * static_cast<std::uint32_t>(tile * static_cast<int>(a.w.chunks) + chunk);
    const char* const own = scales + static_cast<std::uint32_t>(tile) *
                                         static_cast<std::uint32_t>(a.w.inner.tile_bytes);
#pragma unroll
    for (int c = 0; c < 4; ++c) copy_job_codes(slot, lane, from + 512 * c, c);
#pragma unroll
    for (int c = 0; c < 4; c += 2) {
      copy_job_word(slot, lane, c / 2, own + ((chunk + c) >> a.w.inner.shift) * a.w.inner.bytes);
    }
  }

  __device__ __forceinline__ void fetch(int stage) {
    v = static_cast<const uint4*>(a.x)[32 * stage + lane];
  }
  __device__ __forceinline__ void bring() {
    __syncwarp();  // nobody reads what was there
    reinterpret_cast<uint4*>(x)[lane] = v;
    __syncwarp();
  }

  /// What multiplies the weights of rows lane / 4 and + 8.
  using Scale = std::conditional_t<kSmall, SmallScales, std::uint32_t>;
  __device__ __forceinline__ void decode(std::uint32_t word, const Scale& scale,
                                         std::uint32_t (&w)[4]) const {
    if constexpr (kSmall) {
      scale.decode(word, w);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        w[i] = Pairs<T>::subtract((word >> 4 * i & mask) | Pairs<T>::kMagic, zero);
      }
      scale_fragment<T>(scale, w);
    }
  }

  __device__ __forceinline__ void add_chunk(const uint4& four, int chunk, const Scale& scale,
                                            float (&sum)[2][4]) const {
    const std::uint32_t words[4] = {four.x, four.y, four.z, four.w};
    // All rows of a matrix are x.
    const std::uint32_t at = shared_address(x) + 16 * (lane / 8) + 2 * kCodedChunk * chunk;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      std::uint32_t b[4];  // of two steps
      load_matrix_x4(b, at + 64 * half);
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        std::uint32_t w[4];
        decode(words[2 * half + s], scale, w);
        mma_16x8x16<T>(sum[s], w, b[2 * s], b[2 * s + 1]);
      }
    }
  }

  __device__ __forceinline__ void add(const char* slot, float* to) const {
    float sum[2][4] = {};  // of even and odd steps
#pragma unroll
    for (int c = 0; c < 4; c += 2) {
      const Scale scale(job_word(slot, lane, c / 2));
      add_chunk(job_codes(slot, lane, c), c, scale, sum);
      add_chunk(job_codes(slot, lane, c + 1), c + 1, scale, sum);
    }
    if (lane % 4 != 0) return;
    to[lane / 4] += sum[0][0] + sum[1][0];
    to[lane / 4 + 8] += sum[0][2] + sum[1][2];
  }
};

template <typename T, bool kSmall>
__global__ void __launch_bounds__(kStreamThreads, 2)
    coded_stream_one_weights(const __grid_constant__ CodedGemmArguments a, int tiles_of_block,
                             int early) {
  extern __shared__ unsigned char memory[];
  constexpr int kBytesOfX = 2 * 4 * kCodedChunk;  // of a stage
  char* const codes = reinterpret_cast<char*>(memory);
  char* const x = codes + kStreamWarps * kOneRowDepth * kOneRowWeightsJob;
  const int thread = kept_thread(a);
  OneRowOfWeights<T, kSmall> product(a, x + kBytesOfX * (thread / 32), thread % 32);
  one_row_product(a, product, thread, codes, reinterpret_cast<float*>(x + kBytesOfX * kStreamWarps),
                  tiles_of_block, early);
}

}  // namespace attn::gpu
