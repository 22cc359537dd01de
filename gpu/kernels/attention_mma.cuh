// What the tensor-core attention kernels share: a warp's fragments of scores and outputs, the
// online softmax on them, and their ends. Rows are packed: row r of a sequence's tile is query
// r / group, head r % group of the kv head's group, so that a group reads each key once and the
// causal edge of a tile is short.
#pragma once

#include <cmath>

#include "gpu/faults/fault_switch.h"
#include "gpu/kernels/attention.h"
#include "gpu/kernels/mma.cuh"
#include "gpu/kernels/visibility.cuh"

namespace attn::gpu {

inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kLn2 = 0.6931471805599453f;

/// Shared rows of kHeadDim elements of T: whole lines of 128 bytes, whose eight 16-byte chunks
/// change places with the row, so that the eight rows of an ldmatrix fall into eight different bank
/// groups. (Padding the rows would do that too, but a copy that crosses a line of shared memory is
/// two requests to the L2: a third more traffic there.)
template <int kHeadDim, typename T>
inline constexpr int kSharedStride = (kHeadDim * static_cast<int>(sizeof(T)) + 127) / 128 * 128 /
                                     static_cast<int>(sizeof(T));
/// Elements of a 16-byte chunk.
template <typename T>
inline constexpr int kChunk = 16 / static_cast<int>(sizeof(T));

/// Element of a row at which its 16-byte chunk `chunk` lies.
template <typename T>
__device__ __forceinline__ int place_of_chunk(int row, int chunk) {
  return kChunk<T> * ((chunk & ~7) | ((chunk ^ row) & 7));
}

/// Address of chunk `lane_chunk` (0 or 1) of a row; `at_chunks` then moves along the row.
template <typename T, int kStride>
__device__ __forceinline__ std::uint32_t row_address(const T (*rows)[kStride], int row,
                                                     int lane_chunk) {
  return shared_address(&rows[row][place_of_chunk<T>(row, lane_chunk)]);
}
/// `chunks` (even) chunks further along the row, for the lanes of row_address; rows are lines of
/// 128 bytes, so the place within a line changes by an exclusive or.
__device__ __forceinline__ std::uint32_t at_chunks(std::uint32_t address, int chunks) {
  return (address ^ ((chunks & 7) * 16)) + (chunks >> 3) * 128;
}

/// Where the online softmax of one call works: scores as they come out of the product, times
/// `scale_log2`, are exponents of two. Softcap, tensor masks and scales <= 0 change scores one by
/// one first, and leave them in that unit.
/// Softcap, tensor masks and scales <= 0.
__host__ __device__ __forceinline__ bool transforms_scores(const AttentionArguments& a) {
  return a.softcap > 0.0f || a.mask_tensor != nullptr || a.scale <= 0.0f;
}

struct ScoreUnits {
  bool transforms = false;
  float scale_log2 = 0.0f;
};

__device__ __forceinline__ ScoreUnits score_units(const AttentionArguments& a) {
  ScoreUnits u;
  u.transforms = transforms_scores(a);
  u.scale_log2 = u.transforms ? 1.0f : a.scale * kLog2E;
  return u;
}

/// Row r of a packed tile.
struct PackedRow {
  std::int64_t query = 0;  ///< of the sequence
  int head = 0;            ///< of the group
};

__device__ __forceinline__ PackedRow packed_row(int row, int group) {
  return {row / group, row % group};
}

/// One score: scale, soft-cap, mask tensor; -infinity hides the key.
__device__ __forceinline__ float transform_score(const AttentionArguments& a, float s,
                                                 const float* mask_row, std::int64_t key) {
  float t = s * a.scale;
  if (ATTN_FAULT(softcap_before_scale, a.softcap > 0.0f && a.scale != 1.0f)) {
    t = a.softcap * tanhf(s / a.softcap) * a.scale;
  } else if (a.softcap > 0.0f && !ATTN_FAULT(softcap_ignored)) {
    t = a.softcap * tanhf(t / a.softcap);
  }
  if (mask_row != nullptr) {
    const float added = mask_row[key];
    t = added == -INFINITY ? -INFINITY : t + added;
    if (ATTN_FAULT(softcap_after_mask, a.softcap > 0.0f && added != -INFINITY)) {
      t = a.softcap * tanhf((s * a.scale + added) / a.softcap);
    }
  }
  return t * kLog2E;
}

/// Sixteen rows of scores against kTiles * 8 keys, in the accumulator layout of mma.cuh; a thread
/// has rows lane / 4 and lane / 4 + 8.
template <int kTiles>
struct Scores {
  float at[kTiles][4];
};

/// Running maximum (in score units) and this thread's share of the sum, of its two rows.
struct SoftmaxState {
  float max[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0.0f, 0.0f};
};

/// Scores become probabilities; `correction` is what earlier outputs must be multiplied by. A row
/// that has seen no key keeps max -inf and sum 0. Sums stay per thread until the end.
template <int kTiles>
__device__ __forceinline__ void online_softmax(Scores<kTiles>& s, SoftmaxState& state,
                                               float (&correction)[2], float scale_log2) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float m = state.max[h];
#pragma unroll
    for (int j = 0; j < kTiles; ++j) m = fmaxf(m, fmaxf(s.at[j][2 * h], s.at[j][2 * h + 1]));
    m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 1));
    m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 2));
    if (ATTN_FAULT(finite_sentinel)) m = fmaxf(m, -5000.0f * kLog2E / scale_log2);
    if (ATTN_FAULT(maximum_not_subtracted, m != 0.0f)) m = 0.0f;
    if (ATTN_FAULT(maximum_of_first_block, state.max[h] != -INFINITY && m != state.max[h])) {
      m = state.max[h];
    }
    float shift = m == -INFINITY ? 0.0f : m * scale_log2;
    if (ATTN_FAULT(masked_block_first, m == -INFINITY)) shift = m;
    correction[h] = exp2_approximate(fmaf(state.max[h], scale_log2, -shift));
    if (ATTN_FAULT(rescale_is_one, state.max[h] != -INFINITY && m != state.max[h])) {
      correction[h] = 1.0f;
    }
    if (ATTN_FAULT(rescale_in_base_2, state.max[h] != -INFINITY && m != state.max[h])) {
      correction[h] = exp2f(log2f(correction[h]) * kLn2);
    }
    state.max[h] = m;
    float total = 0.0f;
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float& x = s.at[j][2 * h + c];
        x = exp2_approximate(fmaf(x, scale_log2, -shift));
        total += x;
      }
    }
    const bool keeps =
        ATTN_FAULT(denominator_not_rescaled, correction[h] != 1.0f && correction[h] != 0.0f);
    state.sum[h] = fmaf(state.sum[h], keeps ? 1.0f : correction[h], total);
  }
}

/// Sums over the four lanes that share a row.
__device__ __forceinline__ void finish_sums(SoftmaxState& state) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    state.sum[h] += __shfl_xor_sync(0xffffffffu, state.sum[h], 1);
    state.sum[h] += __shfl_xor_sync(0xffffffffu, state.sum[h], 2);
  }
}

/// End of a row: the factor of its unnormalised output, and its lse. `max_log2` and `sum` are
/// those of all keys, in exponents of two; the sink joins here, once.
struct RowEnd {
  float factor = 0.0f;
  float lse = -INFINITY;
};

__device__ __forceinline__ RowEnd end_row(float max_log2, float sum, const float* sink) {
  RowEnd end;
  const float lse_unit = ATTN_FAULT(lse_base_2) ? 1.0f : kLn2;
  if (sink == nullptr || ATTN_FAULT(sink_dropped)) {
    if (sum == 0.0f && !ATTN_FAULT(empty_row_divided)) return end;  // saw nothing
    end.factor = 1.0f / sum;
    end.lse = (max_log2 + log2f(sum)) * lse_unit;
    return end;
  }
  if (sum == 0.0f) {
    end.lse = *sink;
    return end;
  }
  const float sink_log2 = *sink * kLog2E;
  const float m = fmaxf(max_log2, sink_log2);
  const float rescale = exp2f(max_log2 - m);
  const float total = sum * rescale + exp2f(sink_log2 - m);
  end.factor = rescale / total;
  end.lse = (m + log2f(total)) * lse_unit;
  if (ATTN_FAULT(lse_without_sink)) end.lse = (max_log2 + log2f(sum)) * kLn2;
  return end;
}

/// Where the parts of a split row lie: [split][tokens * num_heads] rows, outputs unnormalised.
struct Partials {
  float* out = nullptr;  ///< [.., head_dim_v]
  float* max = nullptr;  ///< in exponents of two
  float* sum = nullptr;
  int splits = 1;
  /// Of the decode kernel: the splits of a row are the blocks of one cluster.
  bool cluster = false;
  int group = 1;  ///< heads of a kv head
  /// Of the longest sequence, as planned: where blocks expect their first keys to lie.
  int planned_rows = 0;
  std::int64_t planned_keys = 0;
  /// Zeros, one for each x of the grid, for the last block of a row's splits to combine them; null:
  /// another kernel does.
  unsigned* counters = nullptr;
  // Instead of those, of the lean decode kernel: words that are zero before and after each call,
  // [items][splits that read][splits that wrote][share] of both. `share`: units (four channels of a
  // row) that each split adds up; share_inverse: n / share is n * share_inverse >> 16.
  float4* mail_out = nullptr;
  float2* mail_end = nullptr;
  int share = 0;
  int share_inverse = 0;
};

/// One warp adds up the parts of one head of a row, in their order, and writes the row's end.
template <typename T>
__device__ __forceinline__ void combine_parts(const AttentionArguments& a, const Partials& partials,
                                              std::int64_t vector) {
  static_assert(kMostSplits == 64, "a lane has two splits");
  const std::int64_t vectors = a.batch.tokens * a.num_heads;
  const int lane = threadIdx.x % 32;
  float max[2];
  float part_sum[2];
  float weight[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int s = lane + 32 * i;
    max[i] = s < partials.splits ? __ldcg(partials.max + s * vectors + vector) : -INFINITY;
    part_sum[i] = s < partials.splits ? __ldcg(partials.sum + s * vectors + vector) : 0.0f;
  }
  float most = fmaxf(max[0], max[1]);
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
  }
  float shift = most == -INFINITY ? 0.0f : most;
  if (ATTN_FAULT(empty_split_merged, most == -INFINITY)) shift = most;
#pragma unroll
  for (int i = 0; i < 2; ++i) weight[i] = exp2_approximate(max[i] - shift);
  // In the order of the parts, like the decode kernel: the same bits.
  float sum = 0.0f;
  for (int s = 0; s < partials.splits; ++s) {
    sum = fmaf(__shfl_sync(0xffffffffu, s < 32 ? part_sum[0] : part_sum[1], s % 32),
               __shfl_sync(0xffffffffu, s < 32 ? weight[0] : weight[1], s % 32), sum);
  }
  const RowEnd end =
      end_row(most, sum, a.sinks != nullptr ? a.sinks + vector % a.num_heads : nullptr);
  if (lane == 0) a.lse[vector] = end.lse;
  for (int first = 0; first < a.head_dim_v; first += 128) {  // whole warps, for the shuffles
    const int d = first + 4 * lane;
    const bool inside = d < a.head_dim_v;
    const float* const parts = partials.out + vector * a.head_dim_v + (inside ? d : 0);
    float4 o = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 8
    for (int i = 0; i < partials.splits; ++i) {
      const bool backward = ATTN_FAULT(sum_order_by_call, a.call % 2 != 0);
      const int s = backward ? partials.splits - 1 - i : i;
      const float w = __shfl_sync(0xffffffffu, s < 32 ? weight[0] : weight[1], s % 32);
      const float4 x = __ldcg(reinterpret_cast<const float4*>(parts + s * vectors * a.head_dim_v));
      o.x = fmaf(x.x, w, o.x);
      o.y = fmaf(x.y, w, o.y);
      o.z = fmaf(x.z, w, o.z);
      o.w = fmaf(x.w, w, o.w);
    }
    if (!inside) continue;
    uint2 packed;
    packed.x = pack2<T>(o.x * end.factor, o.y * end.factor);
    packed.y = pack2<T>(o.z * end.factor, o.w * end.factor);
    *reinterpret_cast<uint2*>(static_cast<T*>(a.out) + vector * a.head_dim_v + d) = packed;
  }
}

}  // namespace attn::gpu
