// The softmax of a consuming warpgroup of the Hopper prefill kernels: included by
// attention_hopper_consumer.cuh, whose class it is of.
#pragma once

#include "gpu/kernels/attention_hopper_consumer.cuh"

namespace attn::gpu {

/// Soft-cap, and what the thread's rows do not see.
template <typename T, int kSlabs, int kWay>
__device__ __forceinline__ void HopperConsumer<T, kSlabs, kWay>::hide(float (&s)[kScores], int slot,
                                                                      int step_key) const {
  if (units_.transforms) {
    if constexpr (kCoded) {
      float scale[2] = {shared_.scales[slot].x, shared_.scales[slot].x};
      if constexpr (kFp8) {
        for (int h = 0; h < 2; ++h) scale[h] *= shared_.query_scale[slot][row_of(h)];
      }
#pragma unroll
      for (int i = 0; i < kScores; ++i) s[i] *= scale[i / 2 % 2];
    }
#pragma unroll
    for (int i = 0; i < kScores; ++i) s[i] = transform_score(call_.a, s[i], nullptr, 0);
  }
  const int thread = static_cast<int>(threadIdx.x);
  const int2 seen[2] = {shared_.seen[slot][row_of(0)], shared_.seen[slot][row_of(1)]};
  const int from[2] = {step_key - seen[0].x, step_key - seen[1].x};
#pragma unroll
  for (int i = 0; i < kScores; ++i) {
    const int h = i / 2 % 2;
    if (hopper_hidden(from[h], accumulator_column(thread, i), seen[h].y)) s[i] = -INFINITY;
  }
}

/// Where a row's maximum is above its shift, the shift becomes that. Whether one of the warp's did;
/// `correction` is what earlier sums and outputs are multiplied by.
template <typename T, int kSlabs, int kWay>
__device__ __forceinline__ bool HopperConsumer<T, kSlabs, kWay>::raise_shifts(
    const float (&s)[kScores], float (&correction)[2]) {
  constexpr int kParts = 4;  // so that no maximum waits for the one before
  float part[2][kParts];
#pragma unroll
  for (int i = 0; i < kScores / 2; ++i) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float& m = part[h][i % kParts];
      const float x = s[i / 2 * 4 + 2 * h + i % 2];
      m = i < kParts ? x : fmaxf(m, x);
    }
  }
  bool raised = false;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float m = fmaxf(fmaxf(part[h][0], part[h][1]), fmaxf(part[h][2], part[h][3]));
    m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 1));
    m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 2));
    const float shift = m == -INFINITY ? m : m * scale_log2(h);
    const bool above = shift > shift_[h];
    correction[h] = above && shift_[h] != -INFINITY ? exp2_approximate(shift_[h] - shift) : 1.0f;
    if (above) shift_[h] = shift;
    raised = raised || above;
  }
  return __any_sync(0xffffffffu, raised ? 1 : 0) != 0;
}

/// Probabilities, as the operand of add_values() (of codes, a word has four: fp8_key() says of
/// which keys), and this thread's sums of them unrounded. Whether some may be too large: a higher
/// shift is needed.
template <typename T, int kSlabs, int kWay>
__device__ __forceinline__ bool HopperConsumer<T, kSlabs, kWay>::to_probabilities(
    const float (&s)[kScores], const float (&shift)[2], std::uint32_t (&p)[kProbabilities],
    float (&total)[2]) const {
  std::uint32_t codes = 0;
  total[0] = total[1] = 0.0f;
#pragma unroll
  for (int i = 0; i < kProbabilities; ++i) {
    const int h = i % 2;
    const auto probability = [&](float x) {
      const float y = exp2_approximate(fmaf(x, scale_log2(h), -shift[h]));
      total[h] += y;
      return y;
    };
    const float* const x = kFp8 ? s + i / 2 * 8 + 2 * h : s + 2 * i;
    const float a = probability(x[0]);
    const float b = probability(x[1]);
    if constexpr (kFp8) {
      const float c = probability(x[4]);
      p[i] = pack_codes(a, b, c, probability(x[5]));
      codes |= p[i] + 0x02020202u;  // 448, the largest, carries into its highest bit
    } else {
      p[i] = pack2<V>(a, b);
    }
  }
  if constexpr (kFp8) return (codes & 0x80808080u) != 0;
  return !(total[0] <= kHopperMostSum && total[1] <= kHopperMostSum);
}

/// Scores become probabilities. Whether outputs so far must be multiplied by `correction`. Sums
/// stay per thread until the end.
///
/// A softmax may subtract any shift, not the maximum alone. So unless `exact` is asked for, that of
/// the steps before serves, and no maxima are taken: none of a thread's probabilities is larger
/// than their sum, which it has anyway, and codes say by themselves that they are at their end. If
/// they are too large (or no numbers, as those of a row that has seen no key), once more.
template <typename T, int kSlabs, int kWay>
__device__ __forceinline__ bool HopperConsumer<T, kSlabs, kWay>::online_softmax_of(
    const float (&s)[kScores], std::uint32_t (&p)[kProbabilities], float (&correction)[2],
    bool exact) {
  bool raised = false;
  float shift[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) shift[h] = kFp8 ? shift_[h] - kHopperFp8ProbabilityLog2 : shift_[h];
  float total[2];
  bool large = true;
  if (!exact) {
    large = to_probabilities(s, shift, p, total);
    large = __any_sync(0xffffffffu, large ? 1 : 0) != 0;
  }
  if (large) {
    raised = raise_shifts(s, correction);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      shift[h] = softmax_shift(shift_[h], INFINITY);
      if constexpr (kFp8) shift[h] -= kHopperFp8ProbabilityLog2;
    }
    to_probabilities(s, shift, p, total);
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    sum_[h] = raised ? fmaf(sum_[h], correction[h], total[h]) : sum_[h] + total[h];
  }
  return raised;
}

}  // namespace attn::gpu
