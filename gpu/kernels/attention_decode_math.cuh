// The products of one warp of the decode kernel, and its online softmax: runs of 16 keys that lie
// in slots of shared memory.
//
// Keys and channels are the rows of the products, the packed queries their 8 (or 16) columns:
//   S^T [keys, rows] = K Q^T        O^T [channels, rows] += V^T P^T
// so that a group of up to 8 heads wastes nothing, and outputs take head_dim / 4 registers. P^T
// leaves the first product with pairs along rows and enters the second with pairs along keys: an
// 8x8 transpose in registers.
#pragma once

#include "gpu/kernels/attention_cache.cuh"
#include "gpu/kernels/attention_decode_shape.cuh"

namespace attn::gpu {

template <typename T, typename C, typename Shape>
class DecodeMath {
 public:
  using Shared = DecodeShared<C, Shape>;
  static constexpr bool kScaled = Shared::kScaled;
  static constexpr int kHeadDim = Shape::kHeadDim;
  static constexpr int kRowTiles = Shape::kRowTiles;
  static constexpr int kTiles = kHeadDim / 16;  // of channels
  static constexpr int kChunks = kHeadDim / kChunk<C>;
  static constexpr int kSlots = Shape::kSlots;
  /// Runs whose keys are on their way before the first is needed.
  static constexpr int kAhead = (kSlots + 1) / 2;
  static_assert(kSlots >= 2);
  static_assert(!kScaled || kChunks % 2 == 0);

  /// What this warp brings to the end of the rows, after finish().
  __device__ __forceinline__ void leave(typename Shared::Part& part) const;

 protected:
  __device__ __forceinline__ DecodeMath(Shared& shared, float scale_log2, bool token_scales)
      : ring_(shared.ring[threadIdx.x / 32]),
        scales_(shared.scales[kScaled ? threadIdx.x / 32 : 0]),
        lane_(threadIdx.x % 32),
        token_scales_(token_scales),
        scale_log2_(scale_log2) {}

  __device__ __forceinline__ void compute_scores(int slot, float (&s)[kRowTiles][4]) const;
  __device__ __forceinline__ void online_softmax(float (&s)[kRowTiles][4]);
  __device__ __forceinline__ void add_values(int slot, const float (&p)[kRowTiles][4]);
  __device__ __forceinline__ void narrow_queries();
  __device__ __forceinline__ void finish();

  typename Shared::Slot (&ring_)[kSlots];
  float (&scales_)[kSlots][Shape::kKeys];
  int lane_;
  int rows_ = 0;
  bool token_scales_;
  /// Queries lie in q_ as float16: it holds them exactly.
  bool half_queries_ = std::is_same_v<T, Half>;
  float k_scale_ = 1.0f;
  float v_scale_ = 1.0f;
  float scale_log2_;
  std::uint32_t q_[kTiles][kRowTiles][2];
  float o_[kTiles][kRowTiles][4] = {};
  // Of rows 2 (lane % 4) and + 1 of each tile; sums are this lane's share.
  float max_[kRowTiles][2];
  float sum_[kRowTiles][2];

 private:
  template <typename P>
  __device__ __forceinline__ void add_values_in(int slot, const float (&p)[kRowTiles][4]);
  template <typename E>
  __device__ __forceinline__ void multiply_codes(int slot, float (&sums)[2][kRowTiles][4]) const;
};

/// bfloat16 queries as float16, which codes are widened to four times as fast, where that changes
/// none of them (it rarely does: it has more bits, and the range of most queries).
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeMath<T, C, Shape>::narrow_queries() {
  const auto narrow = [](std::uint32_t x, bool& exact) {
    const float low = __uint_as_float(x << 16);
    const float high = __uint_as_float(x & 0xffff0000u);
    const std::uint32_t y = pack2<Half>(low, high);
    const float2 back = __half22float2(*reinterpret_cast<const __half2*>(&y));
    exact = exact && back.x == low && back.y == high;
    return y;
  };
  bool exact = true;
#pragma unroll
  for (int i = 0; i < kTiles * kRowTiles * 2; ++i) narrow((&q_[0][0][0])[i], exact);
  half_queries_ = __all_sync(0xffffffffu, exact);
  if (!half_queries_) return;
#pragma unroll
  for (int i = 0; i < kTiles * kRowTiles * 2; ++i) {
    (&q_[0][0][0])[i] = narrow((&q_[0][0][0])[i], exact);
  }
}

/// The products of codes, widened to E, with queries of that type.
template <typename T, typename C, typename Shape>
template <typename E>
__device__ __forceinline__ void DecodeMath<T, C, Shape>::multiply_codes(
    int slot, float (&sums)[2][kRowTiles][4]) const {
  const std::uint32_t k = row_address(ring_[slot], lane_ % 16, lane_ / 16);
#pragma unroll
  for (int i = 0; i < kTiles; i += 2) {
    std::uint32_t codes[4];
    load_matrix_x4(codes, at_chunks(k, i));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::uint32_t low = codes[2 * half];
      const std::uint32_t high = codes[2 * half + 1];
      const uint2 first = widen_codes<E>(low);
      const uint2 second = widen_codes<E>(high);
      const std::uint32_t keys[4] = {first.x, second.x, first.y, second.y};
#pragma unroll
      for (int t = 0; t < kRowTiles; ++t) {
        mma_16x8x16<E>(sums[half][t], keys, q_[i + half][t][0], q_[i + half][t][1]);
      }
    }
  }
}

/// A thread gets keys lane / 4 and + 8 of the run, rows 2 (lane % 4) and + 1 of each tile.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeMath<T, C, Shape>::compute_scores(
    int slot, float (&s)[kRowTiles][4]) const {
  // Two sums of every other step: half as long a chain of products.
  float sums[2][kRowTiles][4] = {};
  if constexpr (kScaled) {
    if (half_queries_) {
      multiply_codes<Half>(slot, sums);
    } else {
      multiply_codes<Bf16>(slot, sums);
    }
  } else {
    const std::uint32_t k = row_address(ring_[slot], lane_ % 16, lane_ / 16);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      std::uint32_t keys[4];
      load_matrix_x4(keys, at_chunks(k, 2 * i));
#pragma unroll
      for (int t = 0; t < kRowTiles; ++t) {
        mma_16x8x16<T>(sums[i % 2][t], keys, q_[i][t][0], q_[i][t][1]);
      }
    }
  }
  const float low = kScaled && token_scales_ ? scales_[slot][lane_ / 4] : k_scale_;
  const float high = kScaled && token_scales_ ? scales_[slot][lane_ / 4 + 8] : k_scale_;
#pragma unroll
  for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      s[t][e] = sums[0][t][e] + sums[1][t][e];
      if (kScaled) s[t][e] *= e < 2 ? low : high;
    }
  }
}

/// Scores become probabilities, and earlier outputs follow the maxima.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeMath<T, C, Shape>::online_softmax(float (&s)[kRowTiles][4]) {
  float correction[kRowTiles][2];
  bool moved = false;
#pragma unroll
  for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      float m = fmaxf(max_[t][c], fmaxf(s[t][c], s[t][2 + c]));
#pragma unroll
      for (int step = 4; step < 32; step *= 2) m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, step));
      if (ATTN_FAULT(finite_sentinel)) m = fmaxf(m, -5000.0f * kLog2E / scale_log2_);
      if (ATTN_FAULT(maximum_not_subtracted, m != 0.0f)) m = 0.0f;
      [[maybe_unused]] const bool moves = max_[t][c] != -INFINITY && m != max_[t][c];
      if (ATTN_FAULT(maximum_of_first_block, moves)) m = max_[t][c];
      float shift = m == -INFINITY ? 0.0f : m * scale_log2_;
      if (ATTN_FAULT(masked_block_first, m == -INFINITY)) shift = m;
      correction[t][c] = exp2_approximate(fmaf(max_[t][c], scale_log2_, -shift));
      if (ATTN_FAULT(rescale_is_one, moves)) correction[t][c] = 1.0f;
      if (ATTN_FAULT(rescale_in_base_2, moves)) {
        correction[t][c] = exp2f(log2f(correction[t][c]) * kLn2);
      }
      moved = moved || correction[t][c] != 1.0f;
      max_[t][c] = m;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        s[t][2 * h + c] = exp2_approximate(fmaf(s[t][2 * h + c], scale_log2_, -shift));
      }
      const bool keeps = ATTN_FAULT(denominator_not_rescaled,
                                    correction[t][c] != 1.0f && correction[t][c] != 0.0f);
      sum_[t][c] = fmaf(sum_[t][c], keeps ? 1.0f : correction[t][c], s[t][c] + s[t][2 + c]);
    }
  }
  // The maximum of a row settles early; most steps have nothing to rescale.
  if (!__any_sync(0xffffffffu, moved)) return;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) o_[n][t][e] *= correction[t][e % 2];
    }
  }
}

/// Probabilities that carry the scales of tokens need the range of bfloat16; others of coded caches
/// take float16, which codes are widened to faster.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeMath<T, C, Shape>::add_values(
    int slot, const float (&p)[kRowTiles][4]) {
  if constexpr (!kScaled) {
    add_values_in<T>(slot, p);
  } else if (token_scales_) {
    float scaled[kRowTiles][4];
    const float low = scales_[slot][lane_ / 4];
    const float high = scales_[slot][lane_ / 4 + 8];
#pragma unroll
    for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) scaled[t][e] = p[t][e] * (e < 2 ? low : high);
    }
    add_values_in<Bf16>(slot, scaled);
  } else {
    add_values_in<Half>(slot, p);
  }
}

template <typename T, typename C, typename Shape>
template <typename P>
__device__ __forceinline__ void DecodeMath<T, C, Shape>::add_values_in(
    int slot, const float (&p)[kRowTiles][4]) {
  std::uint32_t weights[kRowTiles][2];
#pragma unroll
  for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      weights[t][h] = transpose_matrix(pack2<P>(p[t][2 * h], p[t][2 * h + 1]));
    }
  }
  const auto multiply = [&](int n, const std::uint32_t(&v)[4]) {
#pragma unroll
    for (int t = 0; t < kRowTiles; ++t) {
      mma_16x8x16<P>(o_[n][t], v, weights[t][0], weights[t][1]);
    }
  };
  if constexpr (kScaled) {
    // Even channels of a chunk are the first eight rows of the product, odd ones the others.
    const std::uint32_t v = row_address(ring_[slot], lane_ % 16, lane_ / 16);
#pragma unroll
    for (int n = 0; n < kTiles; n += 2) {
      std::uint32_t codes[4];
      load_matrix_x4_transposed(codes, at_chunks(v, n));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const std::uint32_t low = pair_columns(codes[2 * half]);
        const std::uint32_t high = pair_columns(codes[2 * half + 1]);
        const uint2 first = widen_codes<P>(low);
        const uint2 second = widen_codes<P>(high);
        const std::uint32_t values[4] = {first.x, first.y, second.x, second.y};
        multiply(n + half, values);
      }
    }
  } else {
    const std::uint32_t v = row_address(ring_[slot], lane_ % 8 + 8 * (lane_ / 16), lane_ / 8 % 2);
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      std::uint32_t values[4];
      load_matrix_x4_transposed(values, at_chunks(v, 2 * n));
      multiply(n, values);
    }
  }
}

/// After the last run: sums of all lanes, maxima in exponents of two.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeMath<T, C, Shape>::finish() {
#pragma unroll
  for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
#pragma unroll
      for (int step = 4; step < 32; step *= 2) {
        sum_[t][c] += __shfl_xor_sync(0xffffffffu, sum_[t][c], step);
      }
      if (max_[t][c] != -INFINITY) max_[t][c] *= scale_log2_;
    }
  }
}

template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeMath<T, C, Shape>::leave(typename Shared::Part& part) const {
#pragma unroll
  for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const int row = 8 * t + 2 * (lane_ % 4) + c;
      if (row >= rows_) continue;
      if (lane_ < 4) part.end[row] = {max_[t][c], sum_[t][c]};
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int d = 16 * n + (kScaled ? 2 * (lane_ / 4) + h : lane_ / 4 + 8 * h);
          const float x = o_[n][t][2 * h + c];
          part.out[row][d] = kScaled ? x * v_scale_ : x;
        }
      }
    }
  }
}

}  // namespace attn::gpu
