// Any subset of the pass's steps for any types and head sizes, a warp a head of a row: what
// head_pass_rows does not take.
#pragma once

#include <type_traits>

#include "gpu/faults/fault_switch.h"
#include "gpu/kernels/batch.cuh"
#include "gpu/kernels/element.cuh"
#include "gpu/kernels/head_pass.h"
#include "gpu/kernels/head_pass_codes.cuh"
#include "gpu/kernels/mma.cuh"

namespace attn::gpu {

inline constexpr int kHeadPassWarps = 4;

template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Vector {
  T at[kWidth];
};

/// One warp a head of a row. A lane owns kWidth neighbouring channels of every 32 * kWidth; the
/// whole head lies in shared memory as float, because a pair of half-split rotation is far apart.
template <typename T, typename C, int kWidth>
class HeadOfRow {
 public:
  __device__ HeadOfRow(const HeadPassArguments& a, float* channels)
      : a_(a), x_(channels), lane_(threadIdx.x % 32) {}

  __device__ void load(const T* source) {
    each([&](int d) {
      const auto in = *reinterpret_cast<const Vector<T, kWidth>*>(source + d);
#pragma unroll
      for (int e = 0; e < kWidth; ++e) x_[d + e] = to_float(in.at[e]);
    });
  }

  /// x / sqrt(mean(x^2) + eps) * gamma, rounded to T.
  __device__ void normalise(const float* gamma) {
    float sum = 0.0f;
    each([&](int d) {
#pragma unroll
      for (int e = 0; e < kWidth; ++e) sum = __fmaf_rn(x_[d + e], x_[d + e], sum);
    });
#pragma unroll
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    const float mean = __fdiv_rn(sum, static_cast<float>(a_.head_dim));
    const float eps = ATTN_FAULT(norm_eps_ignored) ? 0.0f : a_.eps;
    float inverse = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, eps)));
    if (ATTN_FAULT(norm_eps_outside_root)) inverse = 1.0f / (sqrtf(mean) + eps);
    each([&](int d) {
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        float weight = gamma[d + e];
        if (ATTN_FAULT(norm_weight_plus_one)) weight += 1.0f;
        if (ATTN_FAULT(norm_weight_ignored)) weight = 1.0f;
        const float y = __fmul_rn(__fmul_rn(x_[d + e], inverse), weight);
        x_[d + e] = to_float(from_float<T>(y));
      }
    });
  }

  /// Each lane makes its own channels from both ends of their pairs. The intrinsics keep the
  /// compiler from choosing another contraction in one of the instantiations.
  __device__ void rotate(const float* angles) {
    int first = a_.rotate_last ? static_cast<int>(a_.head_dim - a_.rotary_dim) : 0;
    if (ATTN_FAULT(rope_side_ignored, first != 0)) first = 0;
    const int rotary = static_cast<int>(a_.rotary_dim);
    const bool interleaved =
        ATTN_FAULT(rope_interleave_swapped, rotary > 2) ? !a_.interleaved : a_.interleaved;
    __syncwarp();  // other lanes' channels are read
    float turned[kMostSteps][kWidth];
    each_step([&](int step, int d) {
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        const int i = d + e - first;
        float y = x_[d + e];
        if (i >= 0 && i < rotary) {
          const int pair = interleaved ? i / 2 : i % (rotary / 2);
          const bool is_first = interleaved ? i % 2 == 0 : i < rotary / 2;
          const int distance = interleaved ? 1 : rotary / 2;
          const float c = angles[2 * pair];
          const float s =
              ATTN_FAULT(rope_turns_backward) ? -angles[2 * pair + 1] : angles[2 * pair + 1];
          y = is_first ? __fmaf_rn(y, c, -__fmul_rn(x_[d + e + distance], s))
                       : __fmaf_rn(x_[d + e - distance], s, __fmul_rn(y, c));
        } else if (ATTN_FAULT(rope_still_channels_cleared)) {
          y = 0.0f;
        }
        turned[step][e] = to_float(from_float<T>(y));
      }
    });
    __syncwarp();
    each_step([&](int step, int d) {
#pragma unroll
      for (int e = 0; e < kWidth; ++e) x_[d + e] = turned[step][e];
    });
  }

  template <typename U>
  __device__ void write(U* target) const {
    each([&](int d) {
      Vector<U, kWidth> out;
#pragma unroll
      for (int e = 0; e < kWidth; ++e) out.at[e] = from_float<U>(x_[d + e]);
      *reinterpret_cast<Vector<U, kWidth>*>(target + d) = out;
    });
  }

  __device__ void clear(T* target) const {
    each([&](int d) { *reinterpret_cast<Vector<T, kWidth>*>(target + d) = {}; });
  }

  /// Of a row of an fp8 cache.
  __device__ float dynamic_scale() const {
    float amax = 0.0f;
    each([&](int d) {
#pragma unroll
      for (int e = 0; e < kWidth; ++e) amax = fmaxf(amax, fabsf(x_[d + e]));
    });
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, step));
    }
    return scale_of_head(amax);
  }

  __device__ void divide(float scale, E4m3* target) const {
    each([&](int d) {
      Vector<E4m3, kWidth> out;
#pragma unroll
      for (int e = 0; e < kWidth; ++e) out.at[e] = cache_code(x_[d + e], scale);
      *reinterpret_cast<Vector<E4m3, kWidth>*>(target + d) = out;
    });
  }

 private:
  // head_dim <= 1024: 8 steps of 128 channels, or 32 of 32.
  static constexpr int kMostSteps = 1024 / (32 * kWidth);

  /// body(step, d) for the lane's channels; unrolled, so that `step` may index registers.
  template <typename Body>
  __device__ void each_step(const Body& body) const {
#pragma unroll
    for (int step = 0; step < kMostSteps; ++step) {
      const int d = (step * 32 + lane_) * kWidth;
      if (d < static_cast<int>(a_.head_dim)) body(step, d);
    }
  }
  template <typename Body>
  __device__ void each(const Body& body) const {
    each_step([&](int, int d) { body(d); });
  }

  const HeadPassArguments& a_;
  float* x_;
  int lane_;
};

/// Position that the rotation of a row turns by.
__device__ __forceinline__ std::int64_t rotary_position(const BatchView& batch, std::int64_t b,
                                                        std::int64_t i) {
  const std::int64_t cached = batch.cache_lengths[b];
  const std::int64_t position = cached + i;
  if (ATTN_FAULT(rope_offset_reset, cached > 0)) return i;
  if (ATTN_FAULT(rope_offset_of_first, batch.cache_lengths[0] < cached)) {
    return batch.cache_lengths[0] + i;
  }
  if (ATTN_FAULT(rope_offset_after_empty_row,
                 b > 0 && batch.row_offsets[b - 1] == batch.row_offsets[b] &&
                     batch.cache_lengths[b - 1] < cached)) {
    return batch.cache_lengths[b - 1] + i;
  }
  if (ATTN_FAULT(rope_position_in_bfloat16, position > 256 && position % 2 != 0)) {
    return position - 1;
  }
  return position;
}

template <typename T, typename C, int kWidth>
__global__ void __launch_bounds__(32 * kHeadPassWarps) head_pass_kernel(HeadPassArguments a) {
  extern __shared__ __align__(16) unsigned char memory[];
  auto* const channels = reinterpret_cast<float*>(memory);
#ifdef ATTN_FAULTY
  if (ATTN_FAULT(dependent_launch_not_waited)) {
    allow_dependent_launch();
    for (int i = 0; i < 100; ++i) __nanosleep(1000);  // what comes next does not wait for it
  }
#endif
  const std::int64_t heads = a.num_heads + 2 * a.num_kv_heads;
  const std::int64_t job =
      static_cast<std::int64_t>(blockIdx.x) * kHeadPassWarps + threadIdx.x / 32;
  if (job >= a.batch.tokens * heads) return;  // whole warps leave together
  const std::int64_t row = job / heads;
  const std::int64_t head = job % heads;
  const bool is_q = head < a.num_heads;
  const bool is_v = head >= a.num_heads + a.num_kv_heads;
  const std::int64_t h = is_q ? head : (head - a.num_heads) % a.num_kv_heads;
  const void* source = is_q ? a.q : is_v ? a.v : a.k;
  if (source == nullptr) return;
  const std::int64_t row_stride = is_q ? a.q_row_stride : is_v ? a.v_row_stride : a.k_row_stride;
  const std::int64_t dense = (row * (is_q ? a.num_heads : a.num_kv_heads) + h) * a.head_dim;

  HeadOfRow<T, C, kWidth> x(a, channels + threadIdx.x / 32 * a.head_dim);
  const bool is_padding = row >= end_of_rows(a.batch) && !ATTN_FAULT(padding_rows_stored);
  x.load(static_cast<const T*>(source) + row * row_stride + h * a.head_dim);
  if (is_padding) {
    if (is_q && a.padding_zeros != nullptr && !ATTN_FAULT(padding_rows_not_cleared))
      x.clear(static_cast<T*>(a.padding_zeros) + dense);
    return;
  }
  if (a.norm && !is_v) {
    const bool q_weights = is_q || ATTN_FAULT(norm_weight_of_q, a.q_gamma != nullptr);
    x.normalise(q_weights ? a.q_gamma : a.k_gamma);
    if (void* kept = is_q ? a.q_normed : a.k_normed) x.write(static_cast<T*>(kept) + dense);
    if (ATTN_FAULT(norm_result_unused)) {
      x.load(static_cast<const T*>(source) + row * row_stride + h * a.head_dim);
    }
  }
  std::int64_t b = 0;
  std::int64_t i = 0;  // of the sequence
  std::int64_t position = 0;
  if (a.rope || a.store) {
    b = sequence_of(a.batch, row);
    i = row - a.batch.row_offsets[b];
    if (ATTN_FAULT(padding_rows_stored, row >= end_of_rows(a.batch))) i = 0;
    position = a.batch.cache_lengths[b] + i;
  }
  if (a.rope && !is_v) {
    x.rotate(a.freqs_cis + rotary_position(a.batch, b, i) * a.rotary_dim);
    if (void* kept = is_q ? a.q_roped : a.k_roped) x.write(static_cast<T*>(kept) + dense);
  }
  if (ATTN_FAULT(keys_stored_before_rope, a.store && a.rope && !is_q && !is_v)) {
    x.load(static_cast<const T*>(source) + row * row_stride + h * a.head_dim);
    if (a.norm) x.normalise(a.k_gamma);
  }
  if (ATTN_FAULT(last_row_not_stored,
                 a.store && i > 0 && position > i && row + 1 == a.batch.row_offsets[b + 1])) {
    return;
  }
  if (a.store && !is_q) {
    C* const target = is_v ? static_cast<C*>(a.cache.v) + v_offset(a.cache, b, position) +
                                 h * a.cache.v_head_stride
                           : static_cast<C*>(a.cache.k) + k_offset(a.cache, b, position) +
                                 h * a.cache.k_head_stride;
    if constexpr (std::is_same_v<C, E4m3>) {
      float scale = 1.0f;
      if (a.cache.scales != CacheScales::kNone) {
        const bool of_values = is_v && !ATTN_FAULT(value_scale_of_keys);
        float* const at =
            (of_values ? a.cache.v_scale : a.cache.k_scale) + scale_offset(a.cache, b, position, h);
        scale = a.cache.scales == CacheScales::kTokenHead ? x.dynamic_scale() : *at;
        if (a.cache.scales == CacheScales::kTokenHead && threadIdx.x % 32 == 0) *at = scale;
        if (ATTN_FAULT(key_scale_dropped, !is_v)) scale = 1.0f;
        if (ATTN_FAULT(value_scale_dropped, is_v)) scale = 1.0f;
      }
      x.divide(scale, target);
    } else {
      x.write(target);
    }
  }
}

}  // namespace attn::gpu
