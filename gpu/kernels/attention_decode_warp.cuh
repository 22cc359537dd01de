// How one warp of the decode kernel brings its runs of 16 keys, one after the other, through a ring
// of slots in shared memory that cp.async fills: any page size, mask and length.
#pragma once

#include "gpu/kernels/attention_decode_math.cuh"

namespace attn::gpu {

template <typename T, typename C, typename Shape>
class DecodeWarp : public DecodeMath<T, C, Shape> {
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

  __device__ __forceinline__ DecodeWarp(const AttentionArguments& a, Shared& shared,
                                        const Partials& partials, std::int64_t b, int kv_head)
      : Base(shared, score_units(a).scale_log2,
             kScaled && a.cache.scales == CacheScales::kTokenHead),
        a_(a),
        k_(keys_of<C>(a.cache, kv_head)),
        v_(values_of<C>(a.cache, kv_head)),
        pages_of_sequence_(a.cache.page_table + b * a.cache.table_stride),
        kv_head_(kv_head),
        group_(partials.group),
        page_size_(static_cast<unsigned>(a.cache.page_size)),
        whole_pages_(a.cache.page_size % Shape::kKeys == 0),
        transforms_(transforms_scores(a)) {}

  // In this order; leave() comes last.

  /// The columns of the page table that hold this warp's first runs of a share, then their pages.
  /// Needs no lengths: columns behind the table are left out, and what a column without a page
  /// holds is never used.
  __device__ __forceinline__ void aim(int begin);
  __device__ __forceinline__ void look_up();
  /// Fills the ring: every kWarps-th run of the share, after its pages have been looked up.
  __device__ __forceinline__ void start(const Sequence& sequence, const Share& share);
  __device__ __forceinline__ void take_queries();
  __device__ __forceinline__ void run();

 private:
  using Base::half_queries_;
  using Base::k_scale_;
  using Base::lane_;
  using Base::max_;
  using Base::q_;
  using Base::ring_;
  using Base::rows_;
  using Base::scales_;
  using Base::sum_;
  using Base::token_scales_;
  using Base::v_scale_;

  __device__ __forceinline__ unsigned column_of_lane(int run) const;
  __device__ __forceinline__ std::uint32_t page_at(unsigned column) const;
  template <bool kValues>
  __device__ __forceinline__ void load(int run, int slot, std::uint32_t page);
  template <bool kValues>
  __device__ __forceinline__ void load_scales(int run, int slot, std::uint32_t page);
  __device__ __forceinline__ void load_queries();
  __device__ __forceinline__ void hide_and_transform(int run, float (&s)[kRowTiles][4]) const;

  const AttentionArguments& a_;
  CacheSide<C> k_;
  CacheSide<C> v_;
  const std::uint32_t* pages_of_sequence_;
  Sequence sequence_;
  int kv_head_;
  int group_;
  unsigned page_size_;
  /// A run lies in one page: its rows are a stride apart.
  bool whole_pages_;
  /// Scores are changed one by one (transforms_scores()).
  bool transforms_;
  int first_ = 0;
  int last_ = 0;
  std::uint32_t pages_[kAhead + 1];
};

/// Lanes 0 .. 15 read the page of their key of the run, or all lanes that of the first key.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ unsigned DecodeWarp<T, C, Shape>::column_of_lane(int run) const {
  const unsigned key =
      static_cast<unsigned>(run) * Shape::kKeys + (whole_pages_ ? 0 : lane_ % Shape::kKeys);
  return key / page_size_;
}

template <typename T, typename C, typename Shape>
__device__ __forceinline__ std::uint32_t DecodeWarp<T, C, Shape>::page_at(unsigned column) const {
  return column < a_.cache.table_stride ? pages_of_sequence_[column] : 0u;
}

template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeWarp<T, C, Shape>::aim(int begin) {
  first_ = begin + static_cast<int>(threadIdx.x / 32);
#pragma unroll
  for (int i = 0; i <= kAhead; ++i) pages_[i] = column_of_lane(first_ + i * Shape::kWarps);
}

template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeWarp<T, C, Shape>::look_up() {
#pragma unroll
  for (int i = 0; i <= kAhead; ++i) pages_[i] = page_at(pages_[i]);
}

/// Queries straight from memory: row lane / 4 of each tile; of each 16 channels, 2 (lane % 4) and
/// + 8, or 4 (lane % 4) and + 2 where a chunk of codes has them in that order.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeWarp<T, C, Shape>::load_queries() {
#pragma unroll
  for (int t = 0; t < kRowTiles; ++t) {
    const int row = lane_ / 4 + 8 * t;
    const PackedRow p = packed_row(row, group_);
    const T* const q =
        static_cast<const T*>(a_.q) +
        ((sequence_.first_row + p.query) * a_.num_heads + kv_head_ * group_ + p.head) * a_.head_dim;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int d = 16 * i + (kScaled ? 4 * (lane_ % 4) + 2 * half : 2 * (lane_ % 4) + 8 * half);
        q_[i][t][half] =
            row < rows_ && d < a_.head_dim ? *reinterpret_cast<const std::uint32_t*>(q + d) : 0u;
      }
    }
  }
}

/// One scale for each key of the run; they travel with its rows.
template <typename T, typename C, typename Shape>
template <bool kValues>
__device__ __forceinline__ void DecodeWarp<T, C, Shape>::load_scales(int run, int slot,
                                                                     std::uint32_t page) {
  if (lane_ >= Shape::kKeys) return;
  const CacheSide<C>& side = kValues ? v_ : k_;
  const unsigned key = static_cast<unsigned>(run) * Shape::kKeys + lane_;
  const bool valid = key < sequence_.keys;
  const float* const scale = side.scale + page * a_.cache.scale_page_stride +
                             key % page_size_ * a_.cache.scale_token_stride;
  copy_async_small<4>(shared_address(&scales_[slot][lane_]),
                      valid ? static_cast<const void*>(scale) : a_.q, valid);
}

template <typename T, typename C, typename Shape>
template <bool kValues>
__device__ __forceinline__ void DecodeWarp<T, C, Shape>::load(int run, int slot,
                                                              std::uint32_t page) {
  const CacheSide<C>& side = kValues ? v_ : k_;
  const auto dim = static_cast<int>(kValues ? a_.head_dim_v : a_.head_dim);
  auto& rows = ring_[slot];
  if constexpr (kScaled) {
    if (token_scales_) load_scales<kValues>(run, slot, page);
  }
  if constexpr (32 % kChunks == 0) {
    // A whole run in one page, and nothing of a row to leave out.
    if (whole_pages_ && dim == kHeadDim &&
        (static_cast<std::int64_t>(run) + 1) * Shape::kKeys <= sequence_.keys) {
      constexpr int kRowsApart = 32 / kChunks;
      const int r = lane_ / kChunks;
      const int c = lane_ % kChunks;
      const unsigned first = static_cast<unsigned>(run) * Shape::kKeys % page_size_;
      const C* const from = side.row(page, first + r) + kChunk<C> * c;
      // A page is far smaller than 2^31 elements.
      const int apart = kRowsApart * static_cast<int>(side.token_stride);
#pragma unroll
      for (int i = 0; i < Shape::kKeys / kRowsApart; ++i) {
        const int row = r + i * kRowsApart;
        copy_async_16(shared_address(&rows[row][place_of_chunk<C>(row, c)]), from + i * apart,
                      true);
      }
      return;
    }
  }
  // Each lane makes its key's address once; copies take it from the lane that has it.
  const std::int64_t key = static_cast<std::int64_t>(run) * Shape::kKeys + lane_;
  const long long at =
      page * side.page_stride + static_cast<unsigned>(key) % page_size_ * side.token_stride;
  const int keys =
      static_cast<int>(min(static_cast<std::int64_t>(Shape::kKeys),
                           sequence_.keys - static_cast<std::int64_t>(run) * Shape::kKeys));
#pragma unroll
  for (int i = 0; i < Shape::kKeys * kChunks / 32; ++i) {
    const int r = (32 * i + lane_) / kChunks;
    const int c = (32 * i + lane_) % kChunks;
    const bool valid = r < keys;
    const long long row = __shfl_sync(0xffffffffu, at, r);
    copy_chunk(shared_address(&rows[r][place_of_chunk<C>(r, c)]),
               valid ? side.head + row : static_cast<const C*>(a_.q), c, dim, valid);
  }
}

/// Score transformation and mask of a run that not every row sees whole.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeWarp<T, C, Shape>::hide_and_transform(
    int run, float (&s)[kRowTiles][4]) const {
#pragma unroll
  for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const int row = 8 * t + 2 * (lane_ % 4) + c;
      const std::int64_t query = packed_row(row, group_).query;
      const KeyRange visible = visible_keys(a_, sequence_.keys, position_of(a_, sequence_, query));
      const float* const mask_row =
          a_.mask_tensor != nullptr && row < rows_
              ? a_.mask_tensor + (sequence_.first_row + query) * a_.mask_stride
              : nullptr;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const std::int64_t key = static_cast<std::int64_t>(run) * Shape::kKeys + lane_ / 4 + 8 * h;
        float& x = s[t][2 * h + c];
        if (key < visible.begin || key >= visible.end) {
          x = -INFINITY;
        } else if (transforms_) {
          x = transform_score(a_, x, mask_row, key);
        }
      }
    }
  }
}

template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeWarp<T, C, Shape>::start(const Sequence& sequence,
                                                               const Share& share) {
  sequence_ = sequence;
  rows_ = static_cast<int>(sequence.rows) * group_;
  last_ = share.end;
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
__device__ __forceinline__ void DecodeWarp<T, C, Shape>::take_queries() {
  load_queries();
  if constexpr (kScaled) {
    if constexpr (std::is_same_v<T, Bf16>) this->narrow_queries();
    if (a_.cache.scales == CacheScales::kTensor || a_.cache.scales == CacheScales::kHead) {
      k_scale_ = ATTN_FAULT(key_scale_dropped) ? 1.0f : *k_.scale;
      v_scale_ = ATTN_FAULT(value_scale_dropped) ? 1.0f : *v_.scale;
    }
  }
#pragma unroll
  for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      max_[t][c] = -INFINITY;
      sum_[t][c] = 0.0f;
    }
  }
}

template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeWarp<T, C, Shape>::run() {
  // Runs between these are seen whole by every row: no mask.
  const std::int64_t plain_begin =
      visible_keys(a_, sequence_.keys, position_of(a_, sequence_, sequence_.rows - 1)).begin;
  const std::int64_t plain_end =
      visible_keys(a_, sequence_.keys, position_of(a_, sequence_, 0)).end;

  constexpr bool kEven = kSlots % 2 == 0;
  std::uint32_t page_before = pages_[kAhead - 1];  // of the runs to be loaded next
  std::uint32_t page = pages_[kAhead];
  int slot = 0;
  const auto advance = [&] { slot = slot + 1 == kSlots ? 0 : slot + 1; };
  for (int run = first_; run < last_; run += Shape::kWarps) {
    const int ahead = run + kAhead * Shape::kWarps;
    const std::uint32_t page_after =
        ahead < last_ ? page_at(column_of_lane(ahead + Shape::kWarps)) : 0u;
    copy_async_wait<kSlots - 1>();
    __syncwarp();  // the other lanes' copies
    float s[kRowTiles][4];
    this->compute_scores(slot, s);
    __syncwarp();  // all lanes have read the slot
    if constexpr (kEven) {
      if (ahead < last_) load<false>(ahead, slot, page);
    } else {
      if (ahead - Shape::kWarps < last_) load<true>(ahead - Shape::kWarps, slot, page_before);
    }
    copy_async_commit();
    advance();
    const std::int64_t key = static_cast<std::int64_t>(run) * Shape::kKeys;
    if (transforms_ || key < plain_begin || key + Shape::kKeys > plain_end) {
      hide_and_transform(run, s);
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

}  // namespace attn::gpu
