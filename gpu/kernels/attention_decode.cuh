// Attention of at most 16 packed rows of a sequence against part of its keys: decoding. Time goes
// into reading the cache, so the block is built to keep loads in flight: each of its warps walks
// over its own keys (every fourth run of 16, or eighth), with its own ring of cp.async stages and
// no barrier but __syncwarp, and all meet once at the end. The rows are the group's heads (and a
// few queries), so each key is read once for all of them.
//
// Budget for head_dim 128: a stage is 16 keys of K and V, 8 KB; 3 stages x 4 warps = 96 KB, two
// blocks an SM: all of it in flight, which is several times what an H200 needs to cover its
// latency. Registers: 64 of outputs, 32 of Q, 8 of scores. Two stages and three blocks an SM
// measured up to 20 % slower; two or four kv heads a block, for longer runs of memory, 2 to 7 %
// slower.
#pragma once

#include "gpu/kernels/attention_mma.cuh"
#include "gpu/kernels/prefill_shape.h"

namespace attn::gpu {

template <int kHeadDim_, int kWarps_>
struct DecodeShape {
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kWarps = kWarps_;
  static constexpr int kKeys = 16;  // of a warp's step
  static constexpr int kStages = 3;
  static constexpr int kBlocksPerSm = kWarps > kDecodeWarps ? 1 : decode_blocks_per_sm(kHeadDim);
};

template <typename T, typename Shape>
struct DecodeShared {
  static constexpr int kStride = kSharedStride<Shape::kHeadDim>;
  struct Ring {
    T k[Shape::kStages][Shape::kKeys][kStride];
    T v[Shape::kStages][Shape::kKeys][kStride];
  };
  // What a warp brings to the end of the block; over its ring, which is then empty.
  struct Part {
    float out[kDecodeRows][Shape::kHeadDim];
    float max[kDecodeRows];  // in exponents of two
    float sum[kDecodeRows];
  };
  static_assert(sizeof(Part) <= sizeof(Ring), "the parts must fit over the rings");
  union PerWarp {
    Ring ring;
    Part part;
  };
  PerWarp warps[Shape::kWarps];
};

template <typename T, typename Shape>
class DecodeWarp {
 public:
  using Shared = DecodeShared<T, Shape>;
  static constexpr int kHeadDim = Shape::kHeadDim;
  static constexpr int kNTiles = kHeadDim / 8;
  static constexpr int kKSteps = kHeadDim / 16;
  static constexpr int kChunks = kHeadDim / 8;

  __device__ __forceinline__ DecodeWarp(const AttentionArguments& a, typename Shared::Ring& ring,
                                        const Sequence& sequence, int kv_head, int group)
      : a_(a),
        ring_(ring),
        sequence_(sequence),
        kv_head_(kv_head),
        group_(group),
        rows_(static_cast<int>(sequence.rows) * group),
        lane_(threadIdx.x % 32),
        whole_pages_(a.cache.page_size % Shape::kKeys == 0) {}

  __device__ __forceinline__ void load_queries();
  /// Runs of 16 keys: first, first + Shape::kWarps, ... below last.
  __device__ __forceinline__ void run(int first, int last);
  __device__ __forceinline__ void leave(typename Shared::Part& part);

 private:
  __device__ __forceinline__ std::uint32_t page_of_lane(int run) const;
  __device__ __forceinline__ void load_page(int run, int stage, std::uint32_t page);
  __device__ __forceinline__ void load_keys(int run, int stage, std::uint32_t page);
  __device__ __forceinline__ void compute_scores(int stage, Scores<2>& s) const;
  __device__ __forceinline__ void hide_and_transform(int run, Scores<2>& s) const;
  __device__ __forceinline__ void add_values(int stage, const Scores<2>& p);

  const AttentionArguments& a_;
  typename Shared::Ring& ring_;
  const Sequence& sequence_;
  int kv_head_;
  int group_;
  int rows_;
  int lane_;
  /// A run lies in one page: its rows are a stride apart.
  bool whole_pages_;
  std::uint32_t q_[kKSteps][4];
  float o_[kNTiles][4] = {};
  SoftmaxState state_;
};

/// Q fragments straight from memory: row lane / 4 (+ 8), channels 2 (lane % 4) and + 8 of each 16.
template <typename T, typename Shape>
__device__ __forceinline__ void DecodeWarp<T, Shape>::load_queries() {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = lane_ / 4 + 8 * h;
    const PackedRow p = packed_row(row, group_);
    const T* const q =
        static_cast<const T*>(a_.q) + ((sequence_.first_row + p.query) * a_.num_heads +
                                       static_cast<std::int64_t>(kv_head_) * group_ + p.head) *
                                          a_.head_dim;
#pragma unroll
    for (int i = 0; i < kKSteps; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int d = 16 * i + 8 * half + 2 * (lane_ % 4);
        q_[i][h + 2 * half] =
            row < rows_ && d < a_.head_dim ? *reinterpret_cast<const std::uint32_t*>(q + d) : 0u;
      }
    }
  }
}

/// Lanes 0 .. 15 read the page of their key of the run, or all lanes that of the first key.
template <typename T, typename Shape>
__device__ __forceinline__ std::uint32_t DecodeWarp<T, Shape>::page_of_lane(int run) const {
  const std::int64_t key =
      static_cast<std::int64_t>(run) * Shape::kKeys + (whole_pages_ ? 0 : lane_);
  if ((!whole_pages_ && lane_ >= Shape::kKeys) || key >= sequence_.keys) return 0;
  return a_.cache
      .page_table[sequence_.index * a_.cache.table_stride +
                  static_cast<unsigned>(key) / static_cast<unsigned>(a_.cache.page_size)];
}

/// A whole run in one page, head sizes those of the kernel: nothing to leave out.
template <typename T, typename Shape>
__device__ __forceinline__ void DecodeWarp<T, Shape>::load_page(int run, int stage,
                                                                std::uint32_t page) {
  constexpr int kRowsApart = 32 / kChunks;
  const int r = lane_ / kChunks;
  const int c = lane_ % kChunks;
  const auto slot = static_cast<std::int64_t>(static_cast<unsigned>(run) * Shape::kKeys %
                                              static_cast<unsigned>(a_.cache.page_size)) +
                    r;
  const T* k = static_cast<const T*>(a_.cache.k) + page * a_.cache.k_page_stride +
               slot * a_.cache.k_token_stride + kv_head_ * a_.cache.k_head_stride + 8 * c;
  const T* v = static_cast<const T*>(a_.cache.v) + page * a_.cache.v_page_stride +
               slot * a_.cache.v_token_stride + kv_head_ * a_.cache.v_head_stride + 8 * c;
  // A page is far smaller than 2^31 elements.
  const int k_apart = kRowsApart * static_cast<int>(a_.cache.k_token_stride);
  const int v_apart = kRowsApart * static_cast<int>(a_.cache.v_token_stride);
#pragma unroll
  for (int i = 0; i < Shape::kKeys / kRowsApart; ++i) {
    const int row = r + i * kRowsApart;
    const int place = place_of_chunk(row, c);
    copy_async_16(shared_address(&ring_.k[stage][row][place]), k + i * k_apart, true);
    copy_async_16(shared_address(&ring_.v[stage][row][place]), v + i * v_apart, true);
  }
}

template <typename T, typename Shape>
__device__ __forceinline__ void DecodeWarp<T, Shape>::load_keys(int run, int stage,
                                                                std::uint32_t page) {
  if constexpr (32 % kChunks == 0) {
    if (whole_pages_ && a_.head_dim == kHeadDim && a_.head_dim_v == kHeadDim &&
        (static_cast<std::int64_t>(run) + 1) * Shape::kKeys <= sequence_.keys) {
      return load_page(run, stage, page);
    }
  }
  // Each lane makes its key's addresses once; copies take them from the lane that has them.
  const std::int64_t key = static_cast<std::int64_t>(run) * Shape::kKeys + lane_;
  const std::int64_t slot = static_cast<unsigned>(key) % static_cast<unsigned>(a_.cache.page_size);
  const long long k_at = page * a_.cache.k_page_stride + slot * a_.cache.k_token_stride +
                         kv_head_ * a_.cache.k_head_stride;
  const long long v_at = page * a_.cache.v_page_stride + slot * a_.cache.v_token_stride +
                         kv_head_ * a_.cache.v_head_stride;
  const int keys =
      static_cast<int>(min(static_cast<std::int64_t>(Shape::kKeys),
                           sequence_.keys - static_cast<std::int64_t>(run) * Shape::kKeys));
#pragma unroll
  for (int i = 0; i < Shape::kKeys * kChunks / 32; ++i) {
    const int r = (32 * i + lane_) / kChunks;
    const int c = (32 * i + lane_) % kChunks;
    const long long k_row = __shfl_sync(0xffffffffu, k_at, r);
    const long long v_row = __shfl_sync(0xffffffffu, v_at, r);
    const bool k_valid = r < keys && 8 * c < a_.head_dim;
    const bool v_valid = r < keys && 8 * c < a_.head_dim_v;
    copy_async_16(
        shared_address(&ring_.k[stage][r][place_of_chunk(r, c)]),
        k_valid ? static_cast<const T*>(a_.cache.k) + k_row + 8 * c : static_cast<const T*>(a_.q),
        k_valid);
    copy_async_16(
        shared_address(&ring_.v[stage][r][place_of_chunk(r, c)]),
        v_valid ? static_cast<const T*>(a_.cache.v) + v_row + 8 * c : static_cast<const T*>(a_.q),
        v_valid);
  }
}

template <typename T, typename Shape>
__device__ __forceinline__ void DecodeWarp<T, Shape>::compute_scores(int stage,
                                                                     Scores<2>& s) const {
#pragma unroll
  for (int e = 0; e < 8; ++e) s.at[e / 4][e % 4] = 0.0f;
  const std::uint32_t k = row_address(ring_.k[stage], lane_ % 8 + 8 * (lane_ / 16), lane_ / 8 % 2);
#pragma unroll
  for (int i = 0; i < kKSteps; ++i) {
    std::uint32_t b[4];
    load_matrix_x4(b, at_chunks(k, 2 * i));
    mma_16x8x16<T>(s.at[0], q_[i], b[0], b[1]);
    mma_16x8x16<T>(s.at[1], q_[i], b[2], b[3]);
  }
}

/// Score transformation and mask of a run that not every row sees whole.
template <typename T, typename Shape>
__device__ __forceinline__ void DecodeWarp<T, Shape>::hide_and_transform(int run,
                                                                         Scores<2>& s) const {
  const bool transforms = score_units(a_).transforms;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = lane_ / 4 + 8 * h;
    const std::int64_t query = packed_row(row, group_).query;
    const KeyRange visible = visible_keys(a_, sequence_.keys, position_of(a_, sequence_, query));
    const float* const mask_row =
        a_.mask_tensor != nullptr && row < rows_
            ? a_.mask_tensor + (sequence_.first_row + query) * a_.mask_stride
            : nullptr;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const std::int64_t key =
            static_cast<std::int64_t>(run) * Shape::kKeys + 8 * j + 2 * (lane_ % 4) + c;
        float& x = s.at[j][2 * h + c];
        if (key < visible.begin || key >= visible.end) {
          x = -INFINITY;
        } else if (transforms) {
          x = transform_score(a_, x, mask_row, key);
        }
      }
    }
  }
}

template <typename T, typename Shape>
__device__ __forceinline__ void DecodeWarp<T, Shape>::add_values(int stage, const Scores<2>& p) {
  const std::uint32_t a[4] = {pack2<T>(p.at[0][0], p.at[0][1]), pack2<T>(p.at[0][2], p.at[0][3]),
                              pack2<T>(p.at[1][0], p.at[1][1]), pack2<T>(p.at[1][2], p.at[1][3])};
  const std::uint32_t v = row_address(ring_.v[stage], lane_ % 16, lane_ / 16);
#pragma unroll
  for (int n = 0; n < kNTiles; n += 2) {
    std::uint32_t b[4];
    load_matrix_x4_transposed(b, at_chunks(v, n));
    mma_16x8x16<T>(o_[n], a, b[0], b[1]);
    mma_16x8x16<T>(o_[n + 1], a, b[2], b[3]);
  }
}

template <typename T, typename Shape>
__device__ __forceinline__ void DecodeWarp<T, Shape>::run(int first, int last) {
  const ScoreUnits units = score_units(a_);
  // Runs between these are seen whole by every row: no mask.
  const KeyRange first_row = visible_keys(a_, sequence_.keys, position_of(a_, sequence_, 0));
  const KeyRange last_row =
      visible_keys(a_, sequence_.keys, position_of(a_, sequence_, sequence_.rows - 1));
  const std::int64_t plain_begin = last_row.begin;
  const std::int64_t plain_end = first_row.end;

  // All pages of the first stages at once: each is a wait for memory.
  std::uint32_t pages[Shape::kStages + 1];
#pragma unroll
  for (int i = 0; i <= Shape::kStages; ++i) pages[i] = page_of_lane(first + i * Shape::kWarps);
#pragma unroll
  for (int i = 0; i < Shape::kStages; ++i) {
    const int run = first + i * Shape::kWarps;
    if (run < last) load_keys(run, i, pages[i]);
    copy_async_commit();
  }
  std::uint32_t page = pages[Shape::kStages];
  int stage = 0;
  for (int run = first; run < last; run += Shape::kWarps) {
    const int ahead = run + Shape::kStages * Shape::kWarps;
    const std::uint32_t next = page_of_lane(ahead + Shape::kWarps);
    copy_async_wait<Shape::kStages - 1>();
    __syncwarp();  // the other lanes' copies
    Scores<2> s;
    compute_scores(stage, s);
    const std::int64_t key = static_cast<std::int64_t>(run) * Shape::kKeys;
    if (units.transforms || key < plain_begin || key + Shape::kKeys > plain_end)
      hide_and_transform(run, s);
    float correction[2];
    online_softmax(s, state_, correction, units.scale_log2);
    // The maximum of a row settles early; most steps have nothing to rescale.
    if (__any_sync(0xffffffffu, correction[0] != 1.0f || correction[1] != 1.0f)) {
#pragma unroll
      for (int n = 0; n < kNTiles; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) o_[n][e] *= correction[e / 2];
      }
    }
    add_values(stage, s);
    __syncwarp();  // all lanes have read the stage
    if (ahead < last) load_keys(ahead, stage, page);
    copy_async_commit();
    page = next;
    stage = stage + 1 == Shape::kStages ? 0 : stage + 1;
  }
  copy_async_wait<0>();
  finish_sums(state_);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if (state_.max[h] != -INFINITY) state_.max[h] *= units.scale_log2;
  }
}

template <typename T, typename Shape>
__device__ __forceinline__ void DecodeWarp<T, Shape>::leave(typename Shared::Part& part) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = lane_ / 4 + 8 * h;
    if (lane_ % 4 == 0) {
      part.max[row] = state_.max[h];
      part.sum[row] = state_.sum[h];
    }
#pragma unroll
    for (int n = 0; n < kNTiles; ++n) {
      *reinterpret_cast<float2*>(&part.out[row][8 * n + 2 * (lane_ % 4)]) = {o_[n][2 * h],
                                                                             o_[n][2 * h + 1]};
    }
  }
}

/// Adds up the warps' parts in their order. Thread t takes row t / 8, channels t % 8, + 8, ...: 128
/// threads have work for 16 rows.
template <typename T, typename Shape>
__device__ __forceinline__ void combine_warps(const AttentionArguments& a,
                                              const DecodeShared<T, Shape>& shared,
                                              const Sequence& sequence, int kv_head, int group,
                                              const Partials& partials) {
  const int row = threadIdx.x / 8;
  if (row >= static_cast<int>(sequence.rows) * group) return;
  float max = -INFINITY;
#pragma unroll
  for (int w = 0; w < Shape::kWarps; ++w) max = fmaxf(max, shared.warps[w].part.max[row]);
  const float shift = max == -INFINITY ? 0.0f : max;
  float factor[Shape::kWarps];
  float sum = 0.0f;
#pragma unroll
  for (int w = 0; w < Shape::kWarps; ++w) {
    factor[w] = exp2_approximate(shared.warps[w].part.max[row] - shift);
    sum = fmaf(shared.warps[w].part.sum[row], factor[w], sum);
  }
  const PackedRow p = packed_row(row, group);
  const std::int64_t head = static_cast<std::int64_t>(kv_head) * group + p.head;
  const std::int64_t vector = (sequence.first_row + p.query) * a.num_heads + head;
  const auto channels = [&](const auto& put) {
    for (int d = 2 * (threadIdx.x % 8); d < a.head_dim_v; d += 16) {
      float2 o = {0.0f, 0.0f};
#pragma unroll
      for (int w = 0; w < Shape::kWarps; ++w) {
        const float2 part = *reinterpret_cast<const float2*>(&shared.warps[w].part.out[row][d]);
        o.x = fmaf(part.x, factor[w], o.x);
        o.y = fmaf(part.y, factor[w], o.y);
      }
      put(d, o);
    }
  };
  if (partials.splits > 1) {
    const std::int64_t part = blockIdx.z * a.batch.tokens * a.num_heads + vector;
    if (threadIdx.x % 8 == 0) {
      partials.max[part] = max;
      partials.sum[part] = sum;
    }
    float* const target = partials.out + part * a.head_dim_v;
    return channels([&](int d, float2 o) { *reinterpret_cast<float2*>(target + d) = o; });
  }
  const RowEnd end = end_row(max, sum, a.sinks != nullptr ? a.sinks + head : nullptr);
  if (threadIdx.x % 8 == 0) a.lse[vector] = end.lse;
  T* const target = static_cast<T*>(a.out) + vector * a.head_dim_v;
  channels([&](int d, float2 o) {
    *reinterpret_cast<std::uint32_t*>(target + d) = pack2<T>(o.x * end.factor, o.y * end.factor);
  });
}

/// True in the block that comes last of a sequence's and head's splits; it sees what the others
/// wrote. The counter is zero again then, for the next call.
__device__ __forceinline__ bool is_last_split(const Partials& partials) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();  // of what all threads wrote: they are before this one
    unsigned* const counter = partials.counters + blockIdx.x;
    last = atomicAdd(counter, 1u) + 1 == gridDim.z;
    if (ATTN_FAULT(split_combined_early)) last = atomicAdd(counter, 0u) == 1;
    if (last && !ATTN_FAULT(counters_not_reset)) *counter = 0;
    __threadfence();
  }
  __syncthreads();
  return last;
}

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
template <typename T, typename Shape>
__global__ void __launch_bounds__(32 * Shape::kWarps, Shape::kBlocksPerSm)
    attention_decode_kernel(const __grid_constant__ AttentionArguments a,
                            const __grid_constant__ Partials partials) {
  extern __shared__ __align__(128) unsigned char memory[];
  auto& shared = *reinterpret_cast<DecodeShared<T, Shape>*>(memory);
  const int kv_head = static_cast<int>(blockIdx.x % a.num_kv_heads);
  allow_dependent_launch();
  prefetch_lengths(a, blockIdx.x / a.num_kv_heads);
  wait_for_previous_grid();
  const Sequence sequence = load_sequence(a.batch, blockIdx.x / a.num_kv_heads);
  if (sequence.rows == 0) return;
  const int group = static_cast<int>(a.num_heads / a.num_kv_heads);
  const int warp = threadIdx.x / 32;

  const KeyRange first = visible_keys(a, sequence.keys, position_of(a, sequence, 0));
  const KeyRange last = visible_keys(a, sequence.keys, position_of(a, sequence, sequence.rows - 1));
  int begin = 0;
  int end = 0;
  if (first.begin < last.end) {
    begin = static_cast<int>(first.begin / Shape::kKeys);
    end = static_cast<int>((last.end + Shape::kKeys - 1) / Shape::kKeys);
  }
  if (partials.splits > 1) {  // shares of whole rounds of the warps
    const int rounds = (end - begin + Shape::kWarps - 1) / Shape::kWarps;
    const int share = (rounds + partials.splits - 1) / partials.splits * Shape::kWarps;
    begin = min(begin + static_cast<int>(blockIdx.z) * share, end);
    end = min(begin + share, end);
  }
  {
    DecodeWarp<T, Shape> work(a, shared.warps[warp].ring, sequence, kv_head, group);
    work.load_queries();
    work.run(begin + warp, end);
    __syncwarp();  // all lanes are done with the ring
    work.leave(shared.warps[warp].part);
  }
  __syncthreads();
  combine_warps<T, Shape>(a, shared, sequence, kv_head, group, partials);
  if (partials.splits == 1 || partials.counters == nullptr || !is_last_split(partials)) return;
  const int rows = static_cast<int>(sequence.rows) * group;
  for (int i = warp; i < rows; i += Shape::kWarps) {
    const PackedRow p = packed_row(i, group);
    const std::int64_t head = static_cast<std::int64_t>(kv_head) * group + p.head;
    combine_parts<T>(a, partials, (sequence.first_row + p.query) * a.num_heads + head);
  }
}

}  // namespace attn::gpu
