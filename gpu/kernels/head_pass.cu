#include <type_traits>

#include "gpu/device/check.h"
#include "gpu/kernels/batch.cuh"
#include "gpu/kernels/element.cuh"
#include "gpu/kernels/head_pass.h"

namespace attn::gpu {
namespace {

constexpr int kWarps = 4;

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
    const float inverse = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, a_.eps)));
    each([&](int d) {
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        const float y = __fmul_rn(__fmul_rn(x_[d + e], inverse), gamma[d + e]);
        x_[d + e] = to_float(from_float<T>(y));
      }
    });
  }

  /// Each lane makes its own channels from both ends of their pairs. The intrinsics keep the
  /// compiler from choosing another contraction in one of the instantiations.
  __device__ void rotate(const float* angles) {
    const int first = a_.rotate_last ? static_cast<int>(a_.head_dim - a_.rotary_dim) : 0;
    const int rotary = static_cast<int>(a_.rotary_dim);
    __syncwarp();  // other lanes' channels are read
    float turned[kMostSteps][kWidth];
    each_step([&](int step, int d) {
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        const int i = d + e - first;
        float y = x_[d + e];
        if (i >= 0 && i < rotary) {
          const int pair = a_.interleaved ? i / 2 : i % (rotary / 2);
          const bool is_first = a_.interleaved ? i % 2 == 0 : i < rotary / 2;
          const int distance = a_.interleaved ? 1 : rotary / 2;
          const float c = angles[2 * pair];
          const float s = angles[2 * pair + 1];
          y = is_first ? __fmaf_rn(y, c, -__fmul_rn(x_[d + e + distance], s))
                       : __fmaf_rn(x_[d + e - distance], s, __fmul_rn(y, c));
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

  /// The scale of a row of an fp8 cache: float32(amax / 448), 1 for zeros.
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
    return amax == 0.0f ? 1.0f : __fdiv_rn(amax, 448.0f);
  }

  /// e4m3(x / scale), quotients in float64: a code is rounded once. A scale that underflowed to 0
  /// makes every value 0.
  __device__ void divide(float scale, E4m3* target) const {
    each([&](int d) {
      Vector<E4m3, kWidth> out;
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        const double quotient =
            scale == 0.0f ? 0.0 : static_cast<double>(x_[d + e]) / static_cast<double>(scale);
        out.at[e].code =
            static_cast<std::uint8_t>(__nv_cvt_double_to_fp8(quotient, __NV_SATFINITE, __NV_E4M3));
      }
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

template <typename T, typename C, int kWidth>
__global__ void __launch_bounds__(32 * kWarps) head_pass_kernel(HeadPassArguments a) {
  extern __shared__ float channels[];
  const std::int64_t heads = a.num_heads + 2 * a.num_kv_heads;
  const std::int64_t job = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
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
  const bool is_padding = row >= end_of_rows(a.batch);
  x.load(static_cast<const T*>(source) + row * row_stride + h * a.head_dim);
  if (is_padding) {
    if (is_q && a.padding_zeros != nullptr) x.clear(static_cast<T*>(a.padding_zeros) + dense);
    return;
  }
  if (a.norm && !is_v) {
    x.normalise(is_q ? a.q_gamma : a.k_gamma);
    if (void* kept = is_q ? a.q_normed : a.k_normed) x.write(static_cast<T*>(kept) + dense);
  }
  std::int64_t b = 0;
  std::int64_t position = 0;
  if (a.rope || a.store) {
    b = sequence_of(a.batch, row);
    position = a.batch.cache_lengths[b] + row - a.batch.row_offsets[b];
  }
  if (a.rope && !is_v) {
    x.rotate(a.freqs_cis + position * a.rotary_dim);
    if (void* kept = is_q ? a.q_roped : a.k_roped) x.write(static_cast<T*>(kept) + dense);
  }
  if (a.store && !is_q) {
    C* const target = is_v ? static_cast<C*>(a.cache.v) + v_offset(a.cache, b, position) +
                                 h * a.cache.v_head_stride
                           : static_cast<C*>(a.cache.k) + k_offset(a.cache, b, position) +
                                 h * a.cache.k_head_stride;
    if constexpr (std::is_same_v<C, E4m3>) {
      float scale = 1.0f;
      if (a.cache.scales != CacheScales::kNone) {
        float* const at =
            (is_v ? a.cache.v_scale : a.cache.k_scale) + scale_offset(a.cache, b, position, h);
        scale = a.cache.scales == CacheScales::kTokenHead ? x.dynamic_scale() : *at;
        if (a.cache.scales == CacheScales::kTokenHead && threadIdx.x % 32 == 0) *at = scale;
      }
      x.divide(scale, target);
    } else {
      x.write(target);
    }
  }
}

template <typename T, typename C>
void launch(const HeadPassArguments& a, StreamHandle stream) {
  const std::int64_t jobs = a.batch.tokens * (a.num_heads + 2 * a.num_kv_heads);
  const auto blocks = static_cast<unsigned>((jobs + kWarps - 1) / kWarps);
  const std::size_t shared = static_cast<std::size_t>(kWarps * a.head_dim) * sizeof(float);
  if (a.head_dim % 4 == 0) {
    head_pass_kernel<T, C, 4><<<blocks, 32 * kWarps, shared, stream>>>(a);
  } else {
    head_pass_kernel<T, C, 1><<<blocks, 32 * kWarps, shared, stream>>>(a);
  }
  check_launch("head_pass");
}

template <typename T>
void launch(const HeadPassArguments& a, StreamHandle stream) {
  switch (a.store ? a.cache.type : a.type) {
    case Type::kFloat32:
      return launch<T, float>(a, stream);
    case Type::kBFloat16:
      return launch<T, Bf16>(a, stream);
    case Type::kFloat16:
      return launch<T, Half>(a, stream);
    case Type::kFloat8E4M3:
      return launch<T, E4m3>(a, stream);
  }
}

}  // namespace

void head_pass(const HeadPassArguments& a, StreamHandle stream) {
  if (a.batch.tokens == 0) return;
  switch (a.type) {
    case Type::kFloat32:
      return launch<float>(a, stream);
    case Type::kBFloat16:
      return launch<Bf16>(a, stream);
    default:
      return launch<Half>(a, stream);
  }
}

}  // namespace attn::gpu
