#include <cmath>

#include "gpu/device/check.h"
#include "gpu/faults/fault_switch.h"
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
  if (ATTN_FAULT(key_scale_dropped, scales == a.cache.k_scale)) return 1.0f;
  if (ATTN_FAULT(value_scale_dropped, scales == a.cache.v_scale)) return 1.0f;
  if (ATTN_FAULT(value_scale_of_keys, scales == a.cache.v_scale)) scales = a.cache.k_scale;
  return scales[scale_offset(a.cache, s.index, key, kv_head)];
}

/// Where the lse of head `vector` % num_heads of row `vector` / num_heads goes.
__device__ __forceinline__ std::int64_t lse_index(const AttentionArguments& a,
                                                  std::int64_t vector) {
  if (ATTN_FAULT(lse_head_major, a.num_heads > 1 && a.batch.tokens > 1)) {
    return vector % a.num_heads * a.batch.tokens + vector / a.num_heads;
  }
  return vector;
}

/// The kv head of a query head.
__device__ __forceinline__ std::int64_t kv_head_of(const AttentionArguments& a, std::int64_t head) {
  const std::int64_t group = a.num_heads / a.num_kv_heads;
  if (ATTN_FAULT(kv_head_modulo, group > 1 && a.num_kv_heads > 1)) return head % a.num_kv_heads;
  if (ATTN_FAULT(kv_head_wrong_divisor, a.num_kv_heads > 1 && group != a.num_kv_heads)) {
    const std::int64_t wrong = head / a.num_kv_heads;
    return wrong < a.num_kv_heads ? wrong : a.num_kv_heads - 1;
  }
  return head / group;
}

/// One head of one row.
__global__ void __launch_bounds__(kThreads) attention_plain_kernel(AttentionArguments a) {
  extern __shared__ float shared[];
  float* const q = shared;                 // [head_dim]
  float* const o = q + a.head_dim;         // [head_dim_v], each thread its own channels
  float* const scores = o + a.head_dim_v;  // [kThreads]
  __shared__ float parts[kWarps];

  const std::int64_t row = blockIdx.x / a.num_heads;
  // Padding: left as it is.
  if (row >= end_of_rows(a.batch) && !ATTN_FAULT(padding_rows_attended)) return;
  const std::int64_t head = blockIdx.x % a.num_heads;
  const std::int64_t kv_head = kv_head_of(a, head);
  const std::int64_t head_dim =
      ATTN_FAULT(head_dim_tail_ignored, a.head_dim % 8 != 0) ? a.head_dim / 8 * 8 : a.head_dim;
  const std::int64_t vector = row * a.num_heads + head;
  const Sequence s = load_sequence(a.batch, sequence_of(a.batch, row));
  const KeyRange visible = visible_keys(a, s.keys, position_of(a, s, row - s.first_row));
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;

  for (int d = threadIdx.x; d < a.head_dim; d += kThreads) {
    q[d] = load_element(a.q, a.type, vector * a.head_dim + d);
  }
  for (int d = threadIdx.x; d < a.head_dim_v; d += kThreads) {
    if (!ATTN_FAULT(scratch_accumulator, a.sinks == nullptr)) o[d] = 0.0f;
  }
  float m = -INFINITY;
  float l = 0.0f;
  if (a.sinks != nullptr && !ATTN_FAULT(sink_dropped)) {  // one more logit, with no value vector
    m = a.sinks[ATTN_FAULT(sink_of_kv_head, kv_head != head) ? kv_head : head];
    if (ATTN_FAULT(sink_scaled, a.scale != 1.0f)) m *= a.scale;
    l = 1.0f;
  }
  if (ATTN_FAULT(finite_sentinel)) m = fmaxf(m, -5000.0f);
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
      for (int d = lane; d < head_dim; d += 32) {
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
      if (ATTN_FAULT(softcap_before_scale, a.softcap > 0.0f && a.scale != 1.0f)) {
        t = a.softcap * tanhf(scores[threadIdx.x] / a.softcap) * a.scale;
      } else if (a.softcap > 0.0f && !ATTN_FAULT(softcap_ignored)) {
        t = a.softcap * tanhf(t / a.softcap);
      }
      if (a.mask_tensor != nullptr) {
        const float added = mask_row_of(a, s, row - s.first_row)[key];
        hidden = added == -INFINITY;
        t = hidden ? -INFINITY : t + added;
        if (ATTN_FAULT(softcap_after_mask, a.softcap > 0.0f && !hidden)) {
          t = a.softcap * tanhf((scores[threadIdx.x] * a.scale + added) / a.softcap);
        }
      }
    }
    // fmaxf drops a NaN; the weight of that key keeps it.
    float new_m = fmaxf(m, reduce_block(t, parts, Max{}));
    if (ATTN_FAULT(maximum_not_subtracted, new_m != 0.0f)) new_m = 0.0f;
    if (ATTN_FAULT(maximum_of_first_block, m != -INFINITY && new_m != m)) new_m = m;
    float shift = new_m == -INFINITY ? 0.0f : new_m;
    if (ATTN_FAULT(masked_block_first, new_m == -INFINITY)) shift = new_m;
    float weight = hidden ? 0.0f : expf(t - shift);
    if (ATTN_FAULT(probabilities_in_half)) weight = __half2float(__float2half_rn(weight));
    float rescale = expf(m - shift);
    if (ATTN_FAULT(rescale_is_one, m != -INFINITY && m != new_m)) rescale = 1.0f;
    if (ATTN_FAULT(rescale_in_base_2, m != -INFINITY && m != new_m)) rescale = exp2f(m - shift);
    if (ATTN_FAULT(denominator_not_rescaled, m != -INFINITY && m != new_m)) l /= rescale;
    if (ATTN_FAULT(sink_per_block, a.sinks != nullptr && first > visible.begin)) {
      l += expf(a.sinks[head] - shift) / rescale;
    }
    scores[threadIdx.x] = hidden ? kHidden : weight;
    l = l * rescale + reduce_block(weight, parts, Sum{});  // its barriers publish the weights
    m = new_m;
    const int begin = static_cast<int>(visible.begin > first ? visible.begin - first : 0);
    const int end =
        static_cast<int>(visible.end - first < kThreads ? visible.end - first : kThreads);
    for (int d = threadIdx.x; d < a.head_dim_v; d += kThreads) {
      float sum = 0.0f;
      const bool backward = ATTN_FAULT(sum_order_by_call, a.call % 2 != 0);
      for (int i = begin; i < end; ++i) {
        const int j = backward ? begin + end - 1 - i : i;
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
      if (ATTN_FAULT(normalised_each_block, first + kThreads < visible.end)) o[d] /= l;
    }
  }
  const bool sees_nothing = l == 0.0f;
  for (int d = threadIdx.x; d < a.head_dim_v; d += kThreads) {
    std::int64_t at = vector * a.head_dim_v + d;
    if (ATTN_FAULT(output_heads_innermost, a.num_heads > 1)) {
      at = (row * a.head_dim_v + d) * a.num_heads + head;
    }
    if (ATTN_FAULT(output_stride_of_keys, a.head_dim < a.head_dim_v)) {
      at = row * a.num_heads * a.head_dim_v + head * a.head_dim + d;
    }
    const bool divides = !sees_nothing || ATTN_FAULT(empty_row_divided);
    store_element(a.out, a.type, at, divides ? o[d] / l : 0.0f);
  }
  if (threadIdx.x != 0) return;
  if (ATTN_FAULT(empty_row_unwritten, sees_nothing)) return;
  float lse = sees_nothing ? -INFINITY : m + logf(l);
  if (ATTN_FAULT(lse_base_2)) lse *= 1.4426950408889634f;
  if (ATTN_FAULT(lse_without_sink, a.sinks != nullptr)) lse = m + logf(l - expf(a.sinks[head] - m));
  a.lse[lse_index(a, vector)] = lse;
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
