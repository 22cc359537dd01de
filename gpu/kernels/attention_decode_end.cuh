// The end of a decode block: the sums of its warps, and how the splits of a row meet.
//   - Blocks of a row's splits that are one cluster push their parts into each other's shared
//     memory: no counter, no way through the L2.
//   - Others leave them in the workspace, and the last one adds them up, in their order.
//   - Or each of them adds up its share of the outputs, and waits for what the others leave there
//     (mail_duty()).
#pragma once

#include "gpu/kernels/attention_decode_shape.cuh"

namespace attn::gpu {

/// What a block has of one row, or all of its splits together.
struct RowTotal {
  float max = -INFINITY;  ///< in exponents of two
  float shift = 0.0f;     ///< max, or 0 where no key was seen
  float sum = 0.0f;
};

/// Adds up `parts` ends (maximum, sum) in their order.
template <int kUnroll, typename EndOf>
__device__ __forceinline__ RowTotal total_of(int parts, const EndOf& end_of) {
  RowTotal total;
#pragma unroll kUnroll
  for (int i = 0; i < parts; ++i) total.max = fmaxf(total.max, end_of(i).x);
  total.shift = total.max == -INFINITY ? 0.0f : total.max;
#pragma unroll kUnroll
  for (int i = 0; i < parts; ++i) {
    const float2 end = end_of(i);
    total.sum = fmaf(end.y, exp2_approximate(end.x - total.shift), total.sum);
  }
  return total;
}

__device__ __forceinline__ void add_part(float4& o, float4 x, float weight) {
  o.x = fmaf(x.x, weight, o.x);
  o.y = fmaf(x.y, weight, o.y);
  o.z = fmaf(x.z, weight, o.z);
  o.w = fmaf(x.w, weight, o.w);
}

/// One unit of all parts, in their order: maximum and sum to the bit as total_of() makes them, and
/// the outputs times their weights into `o`. Two passes over the parts, where total_of() and the
/// outputs after it are three, and eight parts at once.
template <typename EndOf, typename OutOf>
__device__ __forceinline__ RowTotal gather_parts(int parts, float4& o, const EndOf& end_of,
                                                 const OutOf& out_of) {
  RowTotal total;
#pragma unroll 8
  for (int i = 0; i < parts; ++i) total.max = fmaxf(total.max, end_of(i).x);
  total.shift = total.max == -INFINITY ? 0.0f : total.max;
  o = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 8
  for (int i = 0; i < parts; ++i) {
    const float2 end = end_of(i);
    const float weight = exp2_approximate(end.x - total.shift);
    total.sum = fmaf(end.y, weight, total.sum);
    add_part(o, out_of(i), weight);
  }
  return total;
}

/// The end of a decode block. Outputs are cut into units of four channels of one row.
template <typename T, typename C, typename Shape>
class DecodeEnd {
 public:
  using Shared = DecodeShared<C, Shape>;

  __device__ __forceinline__ DecodeEnd(const AttentionArguments& a, const Partials& partials,
                                       Shared& shared, const Sequence& sequence, int kv_head,
                                       unsigned item)
      : a_(a),
        partials_(partials),
        shared_(shared),
        first_row_(sequence.first_row),
        kv_head_(kv_head),
        item_(item),
        rows_(static_cast<int>(sequence.rows) * partials.group),
        units_of_row_(Shape::kLean ? Shape::kHeadDim / 4 : static_cast<unsigned>(a.head_dim_v) / 4),
        units_(rows_ * static_cast<int>(units_of_row_)) {}

  /// After a barrier that follows the warps' leave().
  __device__ __forceinline__ void run();

 private:
  struct Unit {
    int row;
    int d;
  };
  struct Vector {
    int head;            ///< of all heads
    std::int64_t index;  ///< of [tokens * num_heads]
  };
  __device__ __forceinline__ Unit unit(int i) const {
    const auto row = static_cast<unsigned>(i) / units_of_row_;
    return {static_cast<int>(row), 4 * (i - static_cast<int>(row * units_of_row_))};
  }
  __device__ __forceinline__ Vector vector_of(int row) const {
    if constexpr (Shape::kLean) {  // one query
      const int lean_head = kv_head_ * partials_.group + row;
      return {lean_head, first_row_ * a_.num_heads + lean_head};
    }
    const unsigned group = static_cast<unsigned>(partials_.group);
    const unsigned query = static_cast<unsigned>(row) / group;
    const int head = kv_head_ * partials_.group + row - static_cast<int>(query * group);
    return {head, (first_row_ + query) * a_.num_heads + head};
  }
  __device__ __forceinline__ RowTotal warps_total(int row) const {
    return total_of<Shape::kWarps>(Shape::kWarps, [&](int w) { return shared_.part(w).end[row]; });
  }
  __device__ __forceinline__ float4 warps_out(Unit u, const RowTotal& total) const;
  __device__ __forceinline__ void write(Unit u, const RowTotal& total, float4 o) const;
  __device__ __forceinline__ void finish() const;
  __device__ __forceinline__ void combine_cluster();
  __device__ __forceinline__ void leave_part() const;
  __device__ __forceinline__ bool is_last() const;
  __device__ __forceinline__ void combine_workspace();
  __device__ __forceinline__ void leave_shares() const;
  __device__ __forceinline__ void combine_share();
  __device__ __forceinline__ void combine_left() const;

  const AttentionArguments& a_;
  const Partials& partials_;
  Shared& shared_;
  std::int64_t first_row_;
  int kv_head_;
  unsigned item_;  ///< sequence and kv head: which of the splits' rows
  int rows_;
  unsigned units_of_row_;
  int units_;
};

template <typename T, typename C, typename Shape>
__device__ __forceinline__ float4 DecodeEnd<T, C, Shape>::warps_out(Unit u,
                                                                    const RowTotal& total) const {
  float4 o = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
  for (int w = 0; w < Shape::kWarps; ++w) {
    const auto& part = shared_.part(w);
    add_part(o, *reinterpret_cast<const float4*>(&part.out[u.row][u.d]),
             exp2_approximate(part.end[u.row].x - total.shift));
  }
  return o;
}

/// The end of a row: one unit of its output, and from the first unit its lse.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeEnd<T, C, Shape>::write(Unit u, const RowTotal& total,
                                                              float4 o) const {
  const Vector vector = vector_of(u.row);
  const RowEnd end =
      end_row(total.max, total.sum, a_.sinks != nullptr ? a_.sinks + vector.head : nullptr);
  if (u.d == 0) a_.lse[vector.index] = end.lse;
  uint2 packed;
  packed.x = pack2<T>(o.x * end.factor, o.y * end.factor);
  packed.y = pack2<T>(o.z * end.factor, o.w * end.factor);
  *reinterpret_cast<uint2*>(static_cast<T*>(a_.out) + vector.index * a_.head_dim_v + u.d) = packed;
}

/// The only split.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeEnd<T, C, Shape>::finish() const {
  for (int i = threadIdx.x; i < units_; i += Shape::kThreads) {
    const Unit u = unit(i);
    const RowTotal total = warps_total(u.row);
    write(u, total, warps_out(u, total));
  }
}

/// Each block of the cluster sends every other its share of the units, and finishes its own.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeEnd<T, C, Shape>::combine_cluster() {
  const int blocks = partials_.splits;
  const auto rank = static_cast<int>(blockIdx.z);
  const int share = (units_ + blocks - 1) / blocks;
  cluster_wait();  // they have all started
  for (int i = threadIdx.x; i < units_; i += Shape::kThreads) {
    const Unit u = unit(i);
    const float4 o = warps_out(u, warps_total(u.row));
    const auto to = static_cast<unsigned>(i) / static_cast<unsigned>(share);
    const int at = rank * share + i - static_cast<int>(to) * share;
    cluster_store(cluster_address(shared_address(&shared_.received.out[at]), to), o);
  }
  for (int i = threadIdx.x; i < rows_ * blocks; i += Shape::kThreads) {
    const int to = i / rows_;
    const int row = i - to * rows_;
    const RowTotal total = warps_total(row);
    cluster_store(cluster_address(shared_address(&shared_.received.end[rank][row]),
                                  static_cast<unsigned>(to)),
                  float2{total.max, total.sum});
  }
  cluster_arrive();
  cluster_wait();
  for (int i = threadIdx.x; i < share && rank * share + i < units_; i += Shape::kThreads) {
    const Unit u = unit(rank * share + i);
    float4 o;
    const RowTotal total = gather_parts(
        blocks, o, [&](int s) { return shared_.received.end[s][u.row]; },
        [&](int s) { return shared_.received.out[s * share + i]; });
    write(u, total, o);
  }
}

template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeEnd<T, C, Shape>::leave_part() const {
  const std::int64_t first = blockIdx.z * a_.batch.tokens * a_.num_heads;
  for (int i = threadIdx.x; i < units_; i += Shape::kThreads) {
    const Unit u = unit(i);
    const RowTotal total = warps_total(u.row);
    const std::int64_t part = first + vector_of(u.row).index;
    *reinterpret_cast<float4*>(partials_.out + part * a_.head_dim_v + u.d) = warps_out(u, total);
    if (u.d == 0) {
      partials_.max[part] = total.max;
      partials_.sum[part] = total.sum;
    }
  }
}

/// True in the block that comes last of a sequence's and head's splits; it sees what the others
/// wrote. The counter is zero again then, for the next call.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ bool DecodeEnd<T, C, Shape>::is_last() const {
  __syncthreads();  // what all threads wrote is before the first one's arrival
  if (threadIdx.x == 0) {
    unsigned* const counter = partials_.counters + item_;
    bool last = count_arrival(counter) + 1 == static_cast<unsigned>(partials_.splits);
    if (ATTN_FAULT(split_combined_early)) last = atomicAdd(counter, 0u) == 1;
    shared_.last = last;
    if (last && !ATTN_FAULT(counters_not_reset)) *counter = 0;
  }
  __syncthreads();
  return shared_.last;
}

/// A row's warp makes the weights of its parts, while the parts themselves are on their way. Sums
/// and outputs are added in the order of the parts, as combine_parts() does: the same bits.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeEnd<T, C, Shape>::combine_workspace() {
  static_assert(kMostSplits == 64, "a lane has two splits");
  auto& weights = shared_.weights;
  const std::int64_t vectors = a_.batch.tokens * a_.num_heads;
  const int splits = partials_.splits;
  const auto lane = static_cast<int>(threadIdx.x % 32);
  constexpr int kAtOnce = Shape::kBlocksPerSm > 1 || Shape::kRows > 8 ? 4 : 16;  // registers
  float4 x[kAtOnce];
  const auto load = [&](const Unit& u, int begin) {
    const float* const parts = partials_.out + vector_of(u.row).index * a_.head_dim_v + u.d;
#pragma unroll
    for (int s = 0; s < kAtOnce; ++s) {
      if (begin + s < splits) {
        x[s] =
            __ldcg(reinterpret_cast<const float4*>(parts + (begin + s) * vectors * a_.head_dim_v));
      }
    }
  };
  const auto unit_of_thread = [&](int first) {
    return unit(min(first + static_cast<int>(threadIdx.x), units_ - 1));
  };
  load(unit_of_thread(0), 0);
  for (int row = threadIdx.x / 32; row < rows_; row += Shape::kWarps) {
    const std::int64_t vector = vector_of(row).index;
    float max[2];
    float sum[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int s = lane + 32 * i;
      max[i] = s < splits ? __ldcg(partials_.max + s * vectors + vector) : -INFINITY;
      sum[i] = s < splits ? __ldcg(partials_.sum + s * vectors + vector) : 0.0f;
    }
    float most = fmaxf(max[0], max[1]);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
    }
    float shift = most == -INFINITY ? 0.0f : most;
    if (ATTN_FAULT(empty_split_merged, most == -INFINITY)) shift = most;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      weights.of[lane + 32 * i][row] = {exp2_approximate(max[i] - shift), sum[i]};
    }
    if (lane == 0) weights.max[row] = most;
  }
  __syncthreads();
  for (int first = 0; first < units_; first += Shape::kThreads) {
    const Unit u = unit_of_thread(first);
    if (first > 0) load(u, 0);
    RowTotal total;
    total.max = weights.max[u.row];
    float4 o = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int begin = 0; begin < splits; begin += kAtOnce) {
      if (begin > 0) load(u, begin);
#pragma unroll
      for (int s = 0; s < kAtOnce; ++s) {
        if (begin + s < splits) {
          const float2 weight = weights.of[begin + s][u.row];
          total.sum = fmaf(weight.y, weight.x, total.sum);
          add_part(o, x[s], weight.x);
        }
      }
    }
    if (first + static_cast<int>(threadIdx.x) < units_) write(u, total, o);
  }
}

/// Each block leaves every other its share of the units, maximum and sum beside each of them. What
/// is written is not zero, and what is zero is not written yet: each word says for itself that it
/// has come, without a fence and without a counter.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeEnd<T, C, Shape>::leave_shares() const {
  const int share = partials_.share;
  const auto split = static_cast<int>(blockIdx.z);
  for (int i = threadIdx.x; i < units_; i += Shape::kThreads) {
    const Unit u = unit(i);
    const RowTotal total = warps_total(u.row);
    const int to = i * partials_.share_inverse >> 16;
    const std::int64_t at =
        static_cast<std::int64_t>(item_) * partials_.splits * share * partials_.splits +
        (to * partials_.splits + split) * share + i - to * share;
    store_mail(partials_.mail_out + at, warps_out(u, total));
    store_mail(partials_.mail_end + at, float2{total.max, total.sum});
  }
}

/// This block's share of all splits, added in their order, as combine_workspace() does. The mail is
/// zero again then, for the next call.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeEnd<T, C, Shape>::combine_share() {
  auto& gathered = shared_.gathered;
  const int splits = partials_.splits;
  const int share = partials_.share;
  const int first = static_cast<int>(blockIdx.z) * share;
  const int own = min(share, units_ - first);  // units
  const std::int64_t mail =
      (static_cast<std::int64_t>(item_) * splits + blockIdx.z) * share * splits;
  for (int i = threadIdx.x; i < share * splits; i += Shape::kThreads) {
    const int from = i * partials_.share_inverse >> 16;
    if (i - from * share >= own) continue;
    float2 end;
    float4 out;
    while (!take_mail(partials_.mail_out + mail + i, partials_.mail_end + mail + i, out, end)) {
    }
    gathered.end[i] = end;
    gathered.out[i] = out;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < own; i += Shape::kThreads) {
    float4 o;
    const RowTotal total = gather_parts(
        splits, o, [&](int s) { return gathered.end[s * share + i]; },
        [&](int s) { return gathered.out[s * share + i]; });
    write(unit(first + i), total, o);
  }
}

/// The shares of blocks that ended before this one started: rare, and of some calls only.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeEnd<T, C, Shape>::combine_left() const {
  const int splits = partials_.splits;
  const int share = partials_.share;
  for (int i = threadIdx.x; i < units_; i += Shape::kThreads) {
    const int of = i * partials_.share_inverse >> 16;
    if ((shared_.duty.left >> of & 1) == 0) continue;
    const std::int64_t mail =
        (static_cast<std::int64_t>(item_) * splits + of) * share * splits + i - of * share;
    RowTotal total;
    for (int s = 0; s < splits; ++s) {
      float2 end;
      while (!see_mail(partials_.mail_end + mail + s * share, end)) {
      }
      total.max = fmaxf(total.max, end.x);
    }
    total.shift = total.max == -INFINITY ? 0.0f : total.max;
    float4 o = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int s = 0; s < splits; ++s) {
      float2 end;
      float4 out;
      while (!take_mail(partials_.mail_out + mail + s * share,
                        partials_.mail_end + mail + s * share, out, end)) {
      }
      const float weight = exp2_approximate(end.x - total.shift);
      total.sum = fmaf(end.y, weight, total.sum);
      add_part(o, out, weight);
    }
    write(unit(i), total, o);
  }
}

template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeEnd<T, C, Shape>::run() {
  if (partials_.splits == 1) return finish();
  if constexpr (Shape::kLean) {
    if (partials_.mail_out != nullptr) {
      leave_shares();
      if (shared_.duty.own) combine_share();
      if (shared_.duty.left != 0) combine_left();
      return;
    }
  }
  if (partials_.cluster) return combine_cluster();
  leave_part();
  if (partials_.counters != nullptr && is_last()) combine_workspace();
}

}  // namespace attn::gpu
