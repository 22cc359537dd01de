// Codes of 4 bits to the A fragments of wgmma, for products by clusters (coded_cluster.cuh).
#pragma once

#include "gpu/kernels/coded_decode.cuh"
#include "gpu/kernels/wgmma_narrow.cuh"

namespace attn::gpu {

/// How weights are made of codes.
enum class ClusterWay {
  kAny,
  kSmall,       ///< CodedMatrix::small_scales, and a chunk has one scale a row
  kSmallPairs,  ///< likewise, and a pair has
};

/// SmallScales for codes of which those of rows lane / 4 stay in the lowest four bits: that is the
/// code times 2^-133, and the weight a sixteenth of what it is, which the sums are multiplied by
/// 16 for. Five instructions take eight codes apart in place of seven.
struct LowScales : ScalePairs<0xc100bf00u> {  // -1/2, -8
  using ScalePairs::ScalePairs;
  static __device__ __forceinline__ void codes_of(std::uint32_t word, std::uint32_t (&a)[4]) {
    const std::uint32_t upper = word >> 8;
    a[0] = word & 0x000f000fu;
    a[1] = word & 0x00f000f0u;
    a[2] = upper & 0x000f000fu;
    a[3] = upper & 0x00f000f0u;
  }
};

/// The weights of a chunk of a warp: taken apart, and then made.
template <typename T, bool kSmall>
struct ClusterWeights {
  std::uint32_t w[4][4];

  __device__ __forceinline__ void take_apart(const uint4& codes, std::uint32_t mask,
                                             std::uint32_t zero) {
    const std::uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      if constexpr (kSmall) {
        LowScales::codes_of(words[s], w[s]);
      } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          w[s][i] = Pairs<T>::subtract((words[s] >> 4 * i & mask) | Pairs<T>::kMagic, zero);
        }
      }
      pin(w[s]);
    }
  }
  __device__ __forceinline__ void make(const LowScales& scales) {
#pragma unroll
    for (int s = 0; s < 4; ++s) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        w[s][i] = fma_bf16_pair(w[s][i], scales.scale[i % 2], scales.eight[i % 2]);
      }
      pin(w[s]);
    }
  }
  /// `scales`: of this lane's rows, for each `1 << shift` of the four steps.
  __device__ __forceinline__ void make(const std::uint32_t* scales, int shift) {
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      scale_fragment<T>(scales[(s >> shift) * 8], w[s]);
      pin(w[s]);
    }
  }
};

}  // namespace attn::gpu
