#include <cmath>

#include "gpu/device/check.h"
#include "gpu/kernels/attention.h"
#include "gpu/kernels/element.cuh"
#include "gpu/kernels/visibility.cuh"

namespace attn::gpu {
namespace {

constexpr int kThreads = kPlainBlock;  // a thread has one key of a step
constexpr int kWarps = kThreads / 32;
// In place of the weight of a key that is hidden by a tensor mask: its value may be NaN.
constexpr float kHidden = -1.0f;

struct Max {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
};

/// The same result in every thread. `parts` holds a float per warp; a barrier on both sides.
template <typename Combine>
__device__ float reduce_block(float x, float* parts, const Combine& combine) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x = combine(x, __shfl_xor_sync(0xffffffffu, x, step));
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  x = parts[0];
  for (int w = 1; w < kWarps; ++w) x = combine(x, parts[w]);
  return x;
}

/// Scale of a key or value; 1 for caches without, which changes no bit.
__device__ float scale_of(const AttentionArguments& a, const float* scales, const Sequence& s,
                          std::int64_t key, std::int64_t kv_head) {
  if (a.cache.scales == CacheScales::kNone) return 1.0f;
  return scales[scale_offset(a.cache, s.index, key, kv_head)];
}

/// One head of one row.
__global__ void __launch_bounds__(kThreads) attention_plain_kernel(AttentionArguments a) {
  extern __shared__ float shared[];
  float* const q = shared;                 // [head_dim]
  float* const o = q + a.head_dim;         // [head_dim_v], each thread its own channels
  float* const scores = o + a.head_dim_v;  // [kThreads]
  __shared__ float parts[kWarps];

  const std::int64_t row = blockIdx.x / a.num_heads;
  if (row >= end_of_rows(a.batch)) return;  // padding: left as it is
  const std::int64_t head = blockIdx.x % a.num_heads;
  const std::int64_t kv_head = head / (a.num_heads / a.num_kv_heads);
  const std::int64_t vector = row * a.num_heads + head;
  const Sequence s = load_sequence(a.batch, sequence_of(a.batch, row));
  const KeyRange visible = visible_keys(a, s.keys, position_of(a, s, row - s.first_row));
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;

  for (int d = threadIdx.x; d < a.head_dim; d += kThreads) {
    q[d] = load_element(a.q, a.type, vector * a.head_dim + d);
  }
  for (int d = threadIdx.x; d < a.head_dim_v; d += kThreads) o[d] = 0.0f;
  float m = -INFINITY;
  float l = 0.0f;
  if (a.sinks != nullptr) {  // one more logit, with no value vector
    m = a.sinks[head];
    l = 1.0f;
  }
  // Steps start at multiples of the block whatever the row sees, so that its sums do not depend on
  // anything but the row.
  for (std::int64_t first = visible.begin / kThreads * kThreads; first < visible.end;
       first += kThreads) {
    __syncthreads();  // q is there; the last step's scores have been read
    for (int j = warp; j < kThreads; j += kWarps) {
      const std::int64_t key = first + j;
      if (key < visible.begin || key >= visible.end) continue;
      const std::int64_t at = k_offset(a.cache, s.index, key) + kv_head * a.cache.k_head_stride;
      float dot = 0.0f;
      for (int d = lane; d < a.head_dim; d += 32) {
        dot = fmaf(q[d], load_element(a.cache.k, a.cache.type, at + d), dot);
      }
#pragma unroll
      for (int step = 16; step > 0; step /= 2) dot += __shfl_xor_sync(0xffffffffu, dot, step);
      // Keys of a head share a scale, so it leaves the sum.
      if (lane == 0) scores[j] = dot * scale_of(a, a.cache.k_scale, s, key, kv_head);
    }
    __syncthreads();
    const std::int64_t key = first + threadIdx.x;
    const bool sees = key >= visible.begin && key < visible.end;
    float t = -INFINITY;
    bool hidden = !sees;
    if (sees) {
      t = scores[threadIdx.x] * a.scale;
      if (a.softcap > 0.0f) t = a.softcap * tanhf(t / a.softcap);
      if (a.mask_tensor != nullptr) {
        const float added = a.mask_tensor[row * a.mask_stride + key];
        hidden = added == -INFINITY;
        t = hidden ? -INFINITY : t + added;
      }
    }
    // fmaxf drops a NaN; the weight of that key keeps it.
    const float new_m = fmaxf(m, reduce_block(t, parts, Max{}));
    const float shift = new_m == -INFINITY ? 0.0f : new_m;
    const float weight = hidden ? 0.0f : expf(t - shift);
    const float rescale = expf(m - shift);
    scores[threadIdx.x] = hidden ? kHidden : weight;
    l = l * rescale + reduce_block(weight, parts, Sum{});  // its barriers publish the weights
    m = new_m;
    const int begin = static_cast<int>(visible.begin > first ? visible.begin - first : 0);
    const int end =
        static_cast<int>(visible.end - first < kThreads ? visible.end - first : kThreads);
    for (int d = threadIdx.x; d < a.head_dim_v; d += kThreads) {
      float sum = 0.0f;
      for (int j = begin; j < end; ++j) {
        const std::int64_t at =
            v_offset(a.cache, s.index, first + j) + kv_head * a.cache.v_head_stride;
        const float p = scores[j];
        if (p != kHidden) {
          const float v = load_element(a.cache.v, a.cache.type, at + d) *
                          scale_of(a, a.cache.v_scale, s, first + j, kv_head);
          sum = fmaf(p, v, sum);
        }
      }
      o[d] = o[d] * rescale + sum;
    }
  }
  const bool sees_nothing = l == 0.0f;
  for (int d = threadIdx.x; d < a.head_dim_v; d += kThreads) {
    store_element(a.out, a.type, vector * a.head_dim_v + d, sees_nothing ? 0.0f : o[d] / l);
  }
  if (threadIdx.x == 0) a.lse[vector] = sees_nothing ? -INFINITY : m + logf(l);
}

}  // namespace

void attention_plain(const AttentionArguments& a, StreamHandle stream) {
  if (a.batch.tokens == 0) return;
  const auto blocks = static_cast<unsigned>(a.batch.tokens * a.num_heads);
  const std::size_t shared =
      static_cast<std::size_t>(a.head_dim + a.head_dim_v + kThreads) * sizeof(float);
  attention_plain_kernel<<<blocks, kThreads, shared, stream>>>(a);
  check_launch("attention_plain");
}

}  // namespace attn::gpu
