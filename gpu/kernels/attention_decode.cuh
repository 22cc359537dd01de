// Attention of at most 16 packed rows of a sequence against part of its keys: decoding. Time goes
// into reading the cache and into waits for memory that follow each other: lengths, pages, keys,
// and the parts of the other blocks at the end.
//   - Each warp walks over its own keys with its own ring of cp.async slots and no barrier but
//     __syncwarp (attention_decode_warp.cuh); all meet once at the end.
//   - Pages are looked up at the same time as the lengths, for the lengths that were planned.
//   - How the splits of a row meet: attention_decode_end.cuh.
#pragma once

#include "gpu/kernels/attention_decode_end.cuh"
#include "gpu/kernels/attention_decode_warp.cuh"

namespace attn::gpu {

/// Three waits for memory, one after the other, precede the first key: lengths, pages, keys. This
/// brings what the first two read to the L2 while the grid before still runs; it reads nothing, so
/// that grid may still be writing there.
__device__ __forceinline__ void prefetch_lengths(const AttentionArguments& a, std::int64_t b) {
  constexpr int kEntries = 32;  // of a line
  const std::int64_t first = static_cast<std::int64_t>(threadIdx.x) * kEntries;
  if (first < a.cache.table_stride) {
    prefetch_to_l2(a.cache.page_table + b * a.cache.table_stride + first);
  }
  if (threadIdx.x == 0) prefetch_to_l2(a.batch.row_offsets + b);
  if (threadIdx.x == 1) prefetch_to_l2(a.batch.cache_lengths + b);
}

/// grid: x kv heads of sequences, z splits.
template <typename T, typename C, typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocksPerSm)
    attention_decode_kernel(const __grid_constant__ AttentionArguments a,
                            const __grid_constant__ Partials partials) {
  extern __shared__ __align__(128) unsigned char memory[];
  auto& shared = *reinterpret_cast<DecodeShared<C, Shape>*>(memory);
  allow_dependent_launch();
  if (partials.cluster) cluster_arrive_relaxed();
  const auto split = static_cast<int>(blockIdx.z);
  const auto heads = static_cast<unsigned>(a.num_kv_heads);
  const std::int64_t b = blockIdx.x / heads;
  const auto kv_head = static_cast<int>(blockIdx.x % heads);
  prefetch_lengths(a, b);
  DecodeWarp<T, C, Shape> work(a, shared, partials, b, kv_head);
  Sequence sequence;
  sequence.rows = partials.planned_rows;
  sequence.keys = partials.planned_keys;
  Share share = share_of<Shape>(a, sequence, split, partials.splits);
  work.aim(share.begin);
  if (!a.old_keys_ready) wait_for_previous_grid();
  work.look_up();
  sequence = load_sequence(a.batch, b);
  if (sequence.rows == 0) {
    wait_for_previous_grid();  // what follows takes this grid's end for that of the one before, too
    return;
  }
  if (sequence.rows != partials.planned_rows || sequence.keys != partials.planned_keys) {
    share = share_of<Shape>(a, sequence, split, partials.splits);
    work.aim(share.begin);
    work.look_up();
  }
  const std::int64_t end = static_cast<std::int64_t>(share.end) * Shape::kKeys;
  if (a.old_keys_ready && end > sequence.keys - sequence.rows) wait_for_previous_grid();
  work.start(sequence, share);
  if (a.old_keys_ready) wait_for_previous_grid();
  work.take_queries();
  work.run();
  work.leave(shared.part(static_cast<int>(threadIdx.x / 32)));
  __syncthreads();
  DecodeEnd<T, C, Shape>(a, partials, shared, sequence, kv_head, blockIdx.x).run();
}

}  // namespace attn::gpu
