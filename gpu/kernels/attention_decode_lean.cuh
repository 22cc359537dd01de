// Decoding where nothing is out of the ordinary (lean_decode()): the products, sums and ends of
// attention_decode.cuh, bit for bit, with a short way to the first key. What a call's blocks have
// in common is worked out by the host, offsets are 32 bits until they meet a pointer, and what the
// last run of a sequence needs stands apart from what all others need.
#pragma once

#include "gpu/kernels/attention_decode_end.cuh"
#include "gpu/kernels/attention_decode_lean.h"
#include "gpu/kernels/attention_decode_math.cuh"

namespace attn::gpu {

template <typename T, typename C, typename Shape>
class LeanWarp : public DecodeMath<T, C, Shape> {
 public:
  using Base = DecodeMath<T, C, Shape>;
  using Shared = DecodeShared<C, Shape>;
  using Base::kAhead;
  using Base::kChunks;
  using Base::kHeadDim;
  using Base::kRowTiles;
  using Base::kScaled;
  using Base::kSlots;
  using Base::kTiles;
  /// Rows of a run that the warp copies at once, 16 bytes a lane.
  static constexpr int kRowsApart = 32 / kChunks;
  static constexpr int kRowBytes = kHeadDim * static_cast<int>(sizeof(C));
  static_assert(kRowTiles == 1 && Shape::kWarps == kLeanWarps);

  __device__ __forceinline__ LeanWarp(const LeanDecode& l, Shared& shared, unsigned b,
                                      unsigned kv_head)
      : Base(shared, l.scale_log2, false),
        l_(l),
        pages_of_sequence_(l.page_table + static_cast<std::uint64_t>(b) * l.table_stride),
        kv_head_(kv_head) {
    const unsigned row = lane_ / kChunks;
    const unsigned chunk = lane_ % kChunks;
    const std::uint64_t of_lane =
        static_cast<std::uint64_t>(kv_head) * l.head_bytes + row * l.token_bytes + 16 * chunk;
    k_ = l.k + of_lane;
    v_ = l.v + of_lane;
    place_ =
        shared_address(&ring_[0][0][0]) + kRowBytes * row +
        static_cast<unsigned>(sizeof(C)) * static_cast<unsigned>(place_of_chunk<C>(
                                               static_cast<int>(row), static_cast<int>(chunk)));
  }

  // In this order; leave() comes last.

  /// Lines of the page table that the block's first runs need, without reading them.
  __device__ __forceinline__ const std::uint32_t* first_page(int begin) const {
    return pages_of_sequence_ + column_of(begin);
  }
  /// Pages of the warp's first runs of a share that begins at run `begin`.
  __device__ __forceinline__ void look_up(int begin);
  /// Fills the ring. `end`: of the share.
  __device__ __forceinline__ void start(unsigned keys, int end);
  __device__ __forceinline__ void take_queries(unsigned first_row);
  /// `near_end` is called once, when the last keys have come.
  template <typename Call>
  __device__ __forceinline__ void run(const Call& near_end);

 private:
  using Base::k_scale_;
  using Base::lane_;
  using Base::max_;
  using Base::q_;
  using Base::ring_;
  using Base::rows_;
  using Base::sum_;
  using Base::v_scale_;

  __device__ __forceinline__ unsigned column_of(int run) const {
    return static_cast<unsigned>(run) * Shape::kKeys >> l_.page_shift;
  }
  template <bool kValues>
  __device__ __forceinline__ void load(int run, int slot, std::uint32_t page) const;
  __device__ __forceinline__ void load_last(int run, std::uint32_t to, const char* from) const;
  __device__ __forceinline__ void load_queries(unsigned first_row);

  const LeanDecode& l_;
  const char* k_;  ///< where this lane's chunk of its row of page 0 lies
  const char* v_;
  const std::uint32_t* pages_of_sequence_;
  std::uint32_t place_;  ///< and in the ring's first slot
  unsigned kv_head_;
  unsigned keys_ = 0;
  int first_ = 0;
  int last_ = 0;
  std::uint32_t pages_[kAhead + 1];
};

template <typename T, typename C, typename Shape>
__device__ __forceinline__ void LeanWarp<T, C, Shape>::look_up(int begin) {
  first_ = begin + static_cast<int>(threadIdx.x / 32);
#pragma unroll
  for (int i = 0; i <= kAhead; ++i) {
    const unsigned column = column_of(first_ + i * Shape::kWarps);
    pages_[i] = column < l_.table_stride ? pages_of_sequence_[column] : 0u;
  }
}

/// The run that is not whole: zeros for rows behind the keys.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void LeanWarp<T, C, Shape>::load_last(int run, std::uint32_t to,
                                                                 const char* from) const {
  unsigned row = static_cast<unsigned>(run) * Shape::kKeys + lane_ / kChunks;
#pragma unroll 1
  for (int i = 0; i < Shape::kKeys / kRowsApart; ++i) {
    const bool valid = row < keys_;
    copy_async_16((to ^ (kRowsApart * i & 7) * 16) + i * kRowsApart * kRowBytes,
                  valid ? from : l_.q, valid);
    row += kRowsApart;
    from += kRowsApart * l_.token_bytes;
  }
}

template <typename T, typename C, typename Shape>
template <bool kValues>
__device__ __forceinline__ void LeanWarp<T, C, Shape>::load(int run, int slot,
                                                            std::uint32_t page) const {
  const unsigned key = static_cast<unsigned>(run) * Shape::kKeys;
  const char* const from = (kValues ? v_ : k_) + static_cast<std::uint64_t>(page) * l_.page_bytes +
                           static_cast<std::uint64_t>(key & l_.page_mask) * l_.token_bytes;
  const std::uint32_t to = place_ + static_cast<unsigned>(slot) * (Shape::kKeys * kRowBytes);
  if (__builtin_expect(key + Shape::kKeys > keys_, 0)) return load_last(run, to, from);
#pragma unroll
  for (int i = 0; i < Shape::kKeys / kRowsApart; ++i) {
    // Rows change the places of chunks by their lowest bits, which the lane's row has none of.
    copy_async_16((to ^ (kRowsApart * i & 7) * 16) + i * kRowsApart * kRowBytes,
                  from + static_cast<std::uint64_t>(i * kRowsApart * l_.token_bytes), true);
  }
}

template <typename T, typename C, typename Shape>
__device__ __forceinline__ void LeanWarp<T, C, Shape>::load_queries(unsigned first_row) {
  const unsigned row = lane_ / 4;
  const bool valid = row < static_cast<unsigned>(l_.group);
  const unsigned head = kv_head_ * static_cast<unsigned>(l_.group) + (valid ? row : 0u);
  const char* const q =
      l_.q +
      (static_cast<std::uint64_t>(first_row) * l_.num_heads + head) * (kHeadDim * sizeof(T)) +
      (kScaled ? 8 : 4) * (lane_ % 4);
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const auto* const pair =
          reinterpret_cast<const std::uint32_t*>(q + 32 * i + (kScaled ? 4 : 16) * half);
      q_[i][0][half] = valid ? *pair : 0u;
    }
  }
}

template <typename T, typename C, typename Shape>
__device__ __forceinline__ void LeanWarp<T, C, Shape>::start(unsigned keys, int end) {
  keys_ = keys;
  rows_ = l_.group;
  last_ = end;
#pragma unroll
  for (int half = 0; half < kSlots; ++half) {
    const int run = first_ + half / 2 * Shape::kWarps;
    if (run < last_) {
      if (half % 2 == 0) {
        load<false>(run, half, pages_[half / 2]);
      } else {
        load<true>(run, half, pages_[half / 2]);
      }
    }
    copy_async_commit();
  }
}

template <typename T, typename C, typename Shape>
__device__ __forceinline__ void LeanWarp<T, C, Shape>::take_queries(unsigned first_row) {
  load_queries(first_row);
  if constexpr (kScaled) {
    if constexpr (std::is_same_v<T, Bf16>) this->narrow_queries();
    if (l_.k_scale != nullptr) {
      k_scale_ = l_.k_scale[l_.scale_stride * kv_head_];
      v_scale_ = l_.v_scale[l_.scale_stride * kv_head_];
    }
  }
#pragma unroll
  for (int c = 0; c < 2; ++c) {
    max_[0][c] = -INFINITY;
    sum_[0][c] = 0.0f;
  }
}

template <typename T, typename C, typename Shape>
template <typename Call>
__device__ __forceinline__ void LeanWarp<T, C, Shape>::run(const Call& near_end) {
  if (first_ >= last_) near_end();
  constexpr bool kEven = kSlots % 2 == 0;
  std::uint32_t page_before = pages_[kAhead - 1];  // of the runs to be loaded next
  std::uint32_t page = pages_[kAhead];
  int slot = 0;
  const auto advance = [&] { slot = slot + 1 == kSlots ? 0 : slot + 1; };
  for (int run = first_; run < last_; run += Shape::kWarps) {
    const int ahead = run + kAhead * Shape::kWarps;
    const int after = ahead + Shape::kWarps;
    const std::uint32_t page_after = after < last_ ? pages_of_sequence_[column_of(after)] : 0u;
    copy_async_wait<kSlots - 1>();
    __syncwarp();  // the other lanes' copies
    float s[kRowTiles][4];
    this->compute_scores(slot, s);
    if (run + Shape::kWarps >= last_) near_end();
    __syncwarp();  // all lanes have read the slot
    if constexpr (kEven) {
      if (ahead < last_) load<false>(ahead, slot, page);
    } else {
      if (ahead - Shape::kWarps < last_) load<true>(ahead - Shape::kWarps, slot, page_before);
    }
    copy_async_commit();
    advance();
    const unsigned key = static_cast<unsigned>(run) * Shape::kKeys;
    if (__builtin_expect(key + Shape::kKeys > keys_, 0)) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (key + lane_ / 4 + 8 * (e / 2) >= keys_) s[0][e] = -INFINITY;
      }
    }
    this->online_softmax(s);
    copy_async_wait<kSlots - 1>();
    __syncwarp();
    this->add_values(slot, s);
    __syncwarp();
    if (ahead < last_) load<kEven>(ahead, slot, page);
    copy_async_commit();
    advance();
    page_before = page;
    page = page_after;
  }
  copy_async_wait<0>();
  this->finish();
}

/// What the first reads after the grid before has ended find in the L2: it reads nothing.
__device__ __forceinline__ void prefetch_lean(const LeanDecode& l, const std::uint32_t* page,
                                              unsigned b) {
  if (threadIdx.x >= 3) return;
  const std::uint32_t* const offset = l.row_offsets + b;
  const std::uint32_t* const length = l.cache_lengths + b;
  prefetch_to_l2(threadIdx.x == 0 ? page : threadIdx.x == 1 ? offset : length);
}

/// grid: x kv heads, y sequences, z splits.
template <typename T, typename C, typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocksPerSm)
    attention_decode_lean_kernel(const __grid_constant__ LeanDecode l,
                                 const __grid_constant__ AttentionArguments a,
                                 const __grid_constant__ Partials partials) {
  extern __shared__ __align__(128) unsigned char memory[];
  auto& shared = *reinterpret_cast<DecodeShared<C, Shape>*>(memory);
  allow_dependent_launch();
  if (partials.cluster) cluster_arrive_relaxed();
  const auto split = static_cast<int>(blockIdx.z);
  const unsigned b = blockIdx.y;
  LeanWarp<T, C, Shape> work(l, shared, b, blockIdx.x);
  int each = l.each;
  prefetch_lean(l, work.first_page(split * each), b);
  if (!l.old_keys_ready) wait_for_previous_grid();
  work.look_up(split * each);
  Sequence sequence;
  const unsigned first_row = l.row_offsets[b];
  sequence.first_row = first_row;
  sequence.rows = l.row_offsets[b + 1] - first_row;
  const unsigned rows = l.row_offsets[b + 1] - first_row;
  const unsigned keys = l.cache_lengths[b] + (l.rows_are_new_keys ? rows : 0u);
  if (rows == 0) {
    wait_for_previous_grid();  // what follows takes this grid's end for that of the one before, too
    return;
  }
  if (__builtin_expect(keys != l.planned_keys, 0)) {
    const int planned = each;
    each = lean_runs(static_cast<int>(keys), l.splits);
    if (each != planned) work.look_up(split * each);
  }
  const int runs = static_cast<int>((keys + Shape::kKeys - 1) / Shape::kKeys);
  const int end = min(split * each + each, runs);
  if (l.old_keys_ready && static_cast<unsigned>(end) * Shape::kKeys > keys - rows) {
    wait_for_previous_grid();
  }
  work.start(keys, end);
  if (l.old_keys_ready) wait_for_previous_grid();
  work.take_queries(first_row);
  const unsigned item = b * gridDim.x + blockIdx.x;
  const bool counts = l.words != nullptr && threadIdx.x == 0;
  std::uint64_t at_start = 0;
  std::uint64_t at_end = 0;
  if (counts) at_start = count_relaxed(l.words + item, 1);
  work.run([&] {
    if (counts) at_end = count_relaxed(l.words + item, mail_bit(split));
  });
  work.leave(shared.part(static_cast<int>(threadIdx.x / 32)));
  if (counts) {
    shared.duty = mail_duty(l.splits, split, at_start, at_end);
    if (shared.duty.last) l.words[item] = 0;
  }
  __syncthreads();
  DecodeEnd<T, C, Shape>(a, partials, shared, sequence, static_cast<int>(blockIdx.x), item).run();
}

}  // namespace attn::gpu
