// All steps of the pass over the heads of 16-bit activations, 16 bytes an access: a block has a
// row, a warp a group of its heads at a time. A lane owns 16 channels of a head, two vectors of 8:
// one in each half of the head, so that a rotation in halves has both ends of its pairs in the lane
// as one of neighbours has. What depends on the row alone, its place in the cache and the lane's
// angles, is found once, while the loads of the first groups are under way.
#pragma once

#include <type_traits>

#include "gpu/kernels/batch.cuh"
#include "gpu/kernels/element.cuh"
#include "gpu/kernels/head_pass.h"
#include "gpu/kernels/head_pass_codes.cuh"
#include "gpu/kernels/head_pass_plan.h"
#include "gpu/kernels/mma.cuh"

namespace attn::gpu {

/// Two channels of a word, the first in its lower half.
template <typename T>
__device__ __forceinline__ float2 unpack2(std::uint32_t word) {
  if constexpr (std::is_same_v<T, Bf16>) {
    return make_float2(__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000u));
  } else {
    return make_float2(__half2float(__ushort_as_half(static_cast<unsigned short>(word & 0xffffu))),
                       __half2float(__ushort_as_half(static_cast<unsigned short>(word >> 16))));
  }
}

/// A lane's channels of a head: 8 of its first half, 8 of its second.
struct LaneChannels {
  float x[2][8];
};
struct LaneWords {
  uint4 of[2];
};

template <typename T>
__device__ __forceinline__ LaneChannels widen(const LaneWords& from) {
  LaneChannels c;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const std::uint32_t words[4] = {from.of[i].x, from.of[i].y, from.of[i].z, from.of[i].w};
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const float2 pair = unpack2<T>(words[w]);
      c.x[i][2 * w] = pair.x;
      c.x[i][2 * w + 1] = pair.y;
    }
  }
  return c;
}

/// Rounded once.
template <typename T>
__device__ __forceinline__ LaneWords narrow(const LaneChannels& c) {
  LaneWords words;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    words.of[i] = make_uint4(pack2<T>(c.x[i][0], c.x[i][1]), pack2<T>(c.x[i][2], c.x[i][3]),
                             pack2<T>(c.x[i][4], c.x[i][5]), pack2<T>(c.x[i][6], c.x[i][7]));
  }
  return words;
}

/// What a row's heads share: where they go, and the cosines and sines of the lane's channels.
template <typename C>
struct HeadRowPlace {
  C* k = nullptr;  ///< head 0 of the row's slot
  C* v = nullptr;
  std::int64_t scale = 0;           ///< index of its scales
  float turns[16];                  ///< (cos, sin) of the lane's pairs, by its vectors
  bool turned[2] = {false, false};  ///< which of the vectors the rotation takes
};

template <typename T, typename C, int kHeadDim>
class HeadRow {
 public:
  static constexpr int kLanes = kHeadDim / 16;  ///< of a head
  static constexpr int kHeads = 32 / kLanes;    ///< of a warp at a time
  static constexpr bool kCodes = std::is_same_v<C, E4m3>;
  using Place = HeadRowPlace<C>;

  __device__ HeadRow(const HeadPassArguments& a, int row)
      : a_(a),
        row_(row),
        lane_(static_cast<int>(threadIdx.x) % kLanes),
        first_head_(static_cast<int>(threadIdx.x) % 32 / kLanes),
        heads_of_q_(static_cast<int>(a.num_heads)),
        heads_of_kv_(static_cast<int>(a.num_kv_heads)) {
    const void* const rows = heads_of_q_ > 0 ? a.q : a.k;
    source_ = static_cast<const T*>(rows) + std::int64_t{row} * static_cast<int>(a.k_row_stride) +
              channel(0);
  }

  __device__ __forceinline__ int groups() const {
    return (heads_of_q_ + 2 * heads_of_kv_ + kHeads - 1) / kHeads;
  }

  /// The lane's channels of its head of a group, zeros behind the last head.
  __device__ __forceinline__ LaneWords load(int group) const {
    LaneWords words;
    words.of[0] = words.of[1] = make_uint4(0, 0, 0, 0);
    const int head = group * kHeads + first_head_;
    if (head >= heads_of_q_ + 2 * heads_of_kv_) return words;
    const T* const from = source_ + std::int64_t{head} * kHeadDim;
    words.of[0] = *reinterpret_cast<const uint4*>(from);
    words.of[1] = *reinterpret_cast<const uint4*>(from + kHeadDim / 2);
    return words;
  }

  /// Of a row that some sequence owns.
  __device__ __forceinline__ void find(Place& place) const {
    const std::int64_t b = sequence_of(a_.batch, row_);
    const unsigned position =
        a_.batch.cache_lengths[b] + (static_cast<unsigned>(row_) - a_.batch.row_offsets[b]);
    find_turns(a_.freqs_cis + std::int64_t{position} * static_cast<int>(a_.rotary_dim), place);
    const CacheView& cache = a_.cache;
    const auto page_size = static_cast<unsigned>(cache.page_size);
    const unsigned column = position / page_size;
    const std::int64_t slot = position - column * page_size;
    const std::int64_t page = cache.page_table[b * cache.table_stride + column];
    place.k = static_cast<C*>(cache.k) + page * cache.k_page_stride + slot * cache.k_token_stride;
    place.v = static_cast<C*>(cache.v) + page * cache.v_page_stride + slot * cache.v_token_stride;
    if (cache.scales == CacheScales::kTokenHead) {
      place.scale = page * cache.scale_page_stride + slot * cache.scale_token_stride;
    }
  }

  /// All steps of the lane's head of a group. All lanes of the warp come here together.
  __device__ __forceinline__ void finish(int group, LaneWords words, const Place& place) const {
    const int head = group * kHeads + first_head_;
    const bool is_q = head < heads_of_q_;
    const bool is_v = head >= heads_of_q_ + heads_of_kv_;
    const int of_kind = is_q ? head : head - heads_of_q_ - (is_v ? heads_of_kv_ : 0);
    const bool none = is_v && of_kind >= heads_of_kv_;
    LaneChannels c = widen<T>(words);
    if (a_.norm) {
      const float inverse = inverse_root(c);
      if (!is_v) {
        words = normalise(c, inverse, is_q ? a_.q_gamma : a_.k_gamma);
        c = widen<T>(words);
        keep(is_q ? a_.q_normed : a_.k_normed, is_q, of_kind, words);
      }
    }
    if (!is_v) {
      turn(c, place);
      words = narrow<T>(c);
      keep(is_q ? a_.q_roped : a_.k_roped, is_q, of_kind, words);
      if constexpr (kCodes) c = widen<T>(words);
    } else if constexpr (!kCodes) {
      words = narrow<T>(c);  // one NaN for all, as the general kernel has it
    }
    float amax = 0.0f;
    if constexpr (kCodes) {
      if (a_.cache.scales == CacheScales::kTokenHead) amax = largest(c);
    }
    if (is_q || none) return;
    const auto stride = static_cast<int>(is_v ? a_.cache.v_head_stride : a_.cache.k_head_stride);
    C* const to = (is_v ? place.v : place.k) + std::int64_t{of_kind} * stride;
    if constexpr (kCodes) {
      store_codes(to, c, scale_of(is_v, of_kind, place, amax));
    } else {
      write(to, words);
    }
  }

  /// Zeros for the heads of q of a row that no sequence owns.
  __device__ __forceinline__ void clear(int group) const {
    const int head = group * kHeads + first_head_;
    const uint4 zeros = make_uint4(0, 0, 0, 0);
    if (head < heads_of_q_) keep(a_.padding_zeros, true, head, LaneWords{{zeros, zeros}});
  }

 private:
  /// First channel of the lane's vector `i`.
  __device__ __forceinline__ int channel(int i) const { return i * (kHeadDim / 2) + 8 * lane_; }

  __device__ __forceinline__ void find_turns(const float* angles, Place& place) const {
    const auto rotary = static_cast<int>(a_.rotary_dim);
    const int first = a_.rotate_last ? kHeadDim - rotary : 0;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      // Neighbours: channels d, d + 1 have the pair of floats at d. Halves: channels 8 lane_ + e
      // have the one at twice that, of which a vector of turns is half.
      const int at = a_.interleaved ? channel(i) - first : 16 * lane_ + 8 * i;
      place.turned[i] = at >= 0 && at < rotary;
#pragma unroll
      for (int q = 0; q < 2; ++q) {
        float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (place.turned[i]) x = *reinterpret_cast<const float4*>(angles + at + 4 * q);
        float* const to = place.turns + 8 * i + 4 * q;
        to[0] = x.x;
        to[1] = x.y;
        to[2] = x.z;
        to[3] = x.w;
      }
    }
  }

  /// 1 / sqrt(mean(x^2) + eps), of sums in the order of head_pass_general: its lanes have 4
  /// channels of every 128, and add to each other over 16, 8, 4, 2 and 1 lanes.
  __device__ __forceinline__ float inverse_root(const LaneChannels& c) const {
    float sums[2] = {0.0f, 0.0f};  // of the two of its lanes that have this one's channels
#pragma unroll
    for (int of = 0; of < 2; ++of) {
#pragma unroll
      for (int e = 4 * of; e < 4 * of + 4; ++e) {
        sums[of] = __fmaf_rn(c.x[0][e], c.x[0][e], sums[of]);
      }
      float second = kHeadDim > 128 ? sums[of] : 0.0f;  // there the same lanes go on
#pragma unroll
      for (int e = 4 * of; e < 4 * of + 4; ++e) {
        second = __fmaf_rn(c.x[1][e], c.x[1][e], second);
      }
      sums[of] = kHeadDim > 128 ? second : __fadd_rn(sums[of], second);
#pragma unroll
      for (int step = kLanes / 2; step > 0; step /= 2) {
        sums[of] = __fadd_rn(sums[of], __shfl_xor_sync(0xffffffffu, sums[of], step));
      }
    }
    // A division by a power of two.
    const float mean = __fmul_rn(__fadd_rn(sums[0], sums[1]), 1.0f / kHeadDim);
    return __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, a_.eps)));
  }

  __device__ __forceinline__ LaneWords normalise(LaneChannels c, float inverse,
                                                 const float* gamma) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int q = 0; q < 2; ++q) {
        const float4 g = *reinterpret_cast<const float4*>(gamma + channel(i) + 4 * q);
        const float weights[4] = {g.x, g.y, g.z, g.w};
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float& x = c.x[i][4 * q + e];
          x = __fmul_rn(__fmul_rn(x, inverse), weights[e]);
        }
      }
    }
    return narrow<T>(c);
  }

  __device__ __forceinline__ void turn(LaneChannels& c, const Place& place) const {
    if (!a_.interleaved) {
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        turn_pair(c.x[0][e], c.x[1][e], place.turns[2 * e], place.turns[2 * e + 1]);
      }
      return;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (!place.turned[i]) continue;
#pragma unroll
      for (int e = 0; e < 8; e += 2) {
        turn_pair(c.x[i][e], c.x[i][e + 1], place.turns[8 * i + e], place.turns[8 * i + e + 1]);
      }
    }
  }
  static __device__ __forceinline__ void turn_pair(float& x, float& y, float cosine, float sine) {
    const float first = __fmaf_rn(x, cosine, -__fmul_rn(y, sine));
    y = __fmaf_rn(x, sine, __fmul_rn(y, cosine));
    x = first;
  }

  /// The head's channels in an array [tokens, heads, kHeadDim], where there is one.
  __device__ __forceinline__ void keep(void* kept, bool is_q, int of_kind,
                                       const LaneWords& words) const {
    if (kept == nullptr) return;
    const std::int64_t head = std::int64_t{row_} * (is_q ? heads_of_q_ : heads_of_kv_) + of_kind;
    write(static_cast<T*>(kept) + head * kHeadDim, words);
  }
  __device__ __forceinline__ void write(T* head, const LaneWords& words) const {
    *reinterpret_cast<uint4*>(head + channel(0)) = words.of[0];
    *reinterpret_cast<uint4*>(head + channel(1)) = words.of[1];
  }

  /// |x| of the head, in all its lanes.
  __device__ __forceinline__ float largest(const LaneChannels& c) const {
    float amax = 0.0f;
#pragma unroll
    for (int e = 0; e < 16; ++e) amax = fmaxf(amax, fabsf(c.x[e / 8][e % 8]));
#pragma unroll
    for (int step = kLanes / 2; step > 0; step /= 2) {
      amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, step));
    }
    return amax;
  }

  __device__ __forceinline__ float scale_of(bool is_v, int of_kind, const Place& place,
                                            float amax) const {
    const CacheView& cache = a_.cache;
    if (cache.scales == CacheScales::kNone) return 1.0f;
    float* const scales = is_v ? cache.v_scale : cache.k_scale;
    if (cache.scales == CacheScales::kTensor) return scales[0];
    if (cache.scales == CacheScales::kHead) return scales[of_kind];
    const float scale = scale_of_head(amax);
    if (lane_ == 0) scales[place.scale + of_kind * cache.scale_head_stride] = scale;
    return scale;
  }

  __device__ __forceinline__ void store_codes(E4m3* head, const LaneChannels& c,
                                              float scale) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      std::uint32_t words[2] = {0, 0};
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        words[e / 4] |= std::uint32_t{quick_cache_code(c.x[i][e], scale).code} << 8 * (e % 4);
      }
      *reinterpret_cast<uint2*>(head + channel(i)) = make_uint2(words[0], words[1]);
    }
  }

  const HeadPassArguments& a_;
  int row_;
  int lane_;        ///< of those of a head
  int first_head_;  ///< of group 0
  int heads_of_q_, heads_of_kv_;
  const T* source_;  ///< the lane's first channel of head 0
};

/// Grid: a block a row. Its warps share out the groups in turns; the loads of two of a warp's are
/// under way at once.
template <typename T, typename C, int kHeadDim>
__global__ void __launch_bounds__(32 * kMostHeadRowWarps, 2)
    head_rows_kernel(HeadPassArguments a, int warps) {
  const HeadRow<T, C, kHeadDim> row(a, static_cast<int>(blockIdx.x));
  const int groups = row.groups();
  int group = static_cast<int>(threadIdx.x) / 32;
  if (group >= groups) return;
  LaneWords now = row.load(group);
  LaneWords next = row.load(group + warps);
  if (blockIdx.x >= end_of_rows(a.batch)) {
    for (; group < groups; group += warps) row.clear(group);
    return;
  }
  HeadRowPlace<C> place;
  row.find(place);
#pragma unroll 1
  for (; group < groups; group += warps) {
    row.finish(group, now, place);
    now = next;
    next = row.load(group + 2 * warps);
  }
}

}  // namespace attn::gpu
