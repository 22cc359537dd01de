// One warp's work of the decode kernel: its runs of 16 keys, one after the other, through a ring of
// slots in shared memory that cp.async fills.
//
// Keys and channels are the rows of the products, the packed queries their 8 (or 16) columns:
//   S^T [keys, rows] = K Q^T        O^T [channels, rows] += V^T P^T
// so that a group of up to 8 heads wastes nothing, and outputs take head_dim / 4 registers. P^T
// leaves the first product with pairs along rows and enters the second with pairs along keys: an
// 8x8 transpose in registers.
#pragma once

#include "gpu/kernels/attention_cache.cuh"
#include "gpu/kernels/attention_decode_shape.cuh"

namespace attn::gpu {

template <typename T, typename C, typename Shape>
class DecodeWarp {
 public:
  using Shared = DecodeShared<C, Shape>;
  static constexpr bool kScaled = Shared::kScaled;
  static constexpr int kHeadDim = Shape::kHeadDim;
  static constexpr int kRowTiles = Shape::kRowTiles;
  static constexpr int kTiles = kHeadDim / 16;  // of channels
  static constexpr int kChunks = kHeadDim / kChunk<C>;
  static constexpr int kSlots = Shape::kSlots;
  /// Runs whose keys are on their way before the first is needed.
  static constexpr int kAhead = (kSlots + 1) / 2;
  static_assert(kSlots >= 2);
  static_assert(!kScaled || kChunks % 2 == 0);

  __device__ __forceinline__ DecodeWarp(const AttentionArguments& a, Shared& shared,
                                        const Partials& partials, std::int64_t b, int kv_head)
      : a_(a),
        ring_(shared.ring[threadIdx.x / 32]),
        scales_(shared.scales[kScaled ? threadIdx.x / 32 : 0]),
        k_(keys_of<C>(a.cache, kv_head)),
        v_(values_of<C>(a.cache, kv_head)),
        pages_of_sequence_(a.cache.page_table + b * a.cache.table_stride),
        kv_head_(kv_head),
        group_(partials.group),
        lane_(threadIdx.x % 32),
        page_size_(static_cast<unsigned>(a.cache.page_size)),
        whole_pages_(a.cache.page_size % Shape::kKeys == 0),
        token_scales_(kScaled && a.cache.scales == CacheScales::kTokenHead),
        units_(score_units(a)) {}

  // In this order.

  /// The columns of the page table that hold this warp's first runs of a share, then their pages.
  /// Needs no lengths: columns behind the table are left out, and what a column without a page
  /// holds is never used.
  __device__ __forceinline__ void aim(int begin);
  __device__ __forceinline__ void look_up();
  /// Fills the ring: every kWarps-th run of the share, after its pages have been looked up.
  __device__ __forceinline__ void start(const Sequence& sequence, const Share& share);
  __device__ __forceinline__ void take_queries();
  __device__ __forceinline__ void run();
  __device__ __forceinline__ void leave(typename Shared::Part& part) const;

 private:
  __device__ __forceinline__ unsigned column_of_lane(int run) const;
  __device__ __forceinline__ std::uint32_t page_at(unsigned column) const;
  template <bool kValues>
  __device__ __forceinline__ void load(int run, int slot, std::uint32_t page);
  template <bool kValues>
  __device__ __forceinline__ void load_scales(int run, int slot, std::uint32_t page);
  __device__ __forceinline__ void load_queries();
  __device__ __forceinline__ void compute_scores(int slot, float (&s)[kRowTiles][4]) const;
  __device__ __forceinline__ void hide_and_transform(int run, float (&s)[kRowTiles][4]) const;
  __device__ __forceinline__ void online_softmax(float (&s)[kRowTiles][4]);
  __device__ __forceinline__ void add_values(int slot, const float (&p)[kRowTiles][4]);
  template <typename P>
  __device__ __forceinline__ void add_values_in(int slot, const float (&p)[kRowTiles][4]);
  template <typename E>
  __device__ __forceinline__ void multiply_codes(int slot, float (&sums)[2][kRowTiles][4]) const;
  __device__ __forceinline__ void narrow_queries();

  const AttentionArguments& a_;
  typename Shared::Slot (&ring_)[kSlots];
  float (&scales_)[kSlots][Shape::kKeys];
  CacheSide<C> k_;
  CacheSide<C> v_;
  const std::uint32_t* pages_of_sequence_;
  Sequence sequence_;
  int kv_head_;
  int group_;
  int rows_ = 0;
  int lane_;
  unsigned page_size_;
  /// A run lies in one page: its rows are a stride apart.
  bool whole_pages_;
  bool token_scales_;
  /// Queries lie in q_ as float16: it holds them exactly.
  bool half_queries_ = std::is_same_v<T, Half>;
  float k_scale_ = 1.0f;
  float v_scale_ = 1.0f;
  ScoreUnits units_;
  int first_ = 0;
  int last_ = 0;
  std::uint32_t pages_[kAhead + 1];
  std::uint32_t q_[kTiles][kRowTiles][2];
  float o_[kTiles][kRowTiles][4] = {};
  // Of rows 2 (lane % 4) and + 1 of each tile; sums are this lane's share.
  float max_[kRowTiles][2];
  float sum_[kRowTiles][2];
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

/// bfloat16 queries as float16, which codes are widened to four times as fast, where that changes
/// none of them (it rarely does: it has more bits, and the range of most queries).
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeWarp<T, C, Shape>::narrow_queries() {
  const auto narrow = [](std::uint32_t x, bool& exact) {
    const float low = __uint_as_float(x << 16);
    const float high = __uint_as_float(x & 0xffff0000u);
    const std::uint32_t y = pack2<Half>(low, high);
    const float2 back = __half22float2(*reinterpret_cast<const __half2*>(&y));
    exact = exact && back.x == low && back.y == high;
    return y;
  };
  bool exact = true;
#pragma unroll
  for (int i = 0; i < kTiles * kRowTiles * 2; ++i) narrow((&q_[0][0][0])[i], exact);
  half_queries_ = __all_sync(0xffffffffu, exact);
  if (!half_queries_) return;
#pragma unroll
  for (int i = 0; i < kTiles * kRowTiles * 2; ++i) {
    (&q_[0][0][0])[i] = narrow((&q_[0][0][0])[i], exact);
  }
}

/// The products of codes, widened to E, with queries of that type.
template <typename T, typename C, typename Shape>
template <typename E>
__device__ __forceinline__ void DecodeWarp<T, C, Shape>::multiply_codes(
    int slot, float (&sums)[2][kRowTiles][4]) const {
  const std::uint32_t k = row_address(ring_[slot], lane_ % 16, lane_ / 16);
#pragma unroll
  for (int i = 0; i < kTiles; i += 2) {
    std::uint32_t codes[4];
    load_matrix_x4(codes, at_chunks(k, i));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::uint32_t low = codes[2 * half];
      const std::uint32_t high = codes[2 * half + 1];
      const uint2 first = widen_codes<E>(low);
      const uint2 second = widen_codes<E>(high);
      const std::uint32_t keys[4] = {first.x, second.x, first.y, second.y};
#pragma unroll
      for (int t = 0; t < kRowTiles; ++t) {
        mma_16x8x16<E>(sums[half][t], keys, q_[i + half][t][0], q_[i + half][t][1]);
      }
    }
  }
}

/// A thread gets keys lane / 4 and + 8 of the run, rows 2 (lane % 4) and + 1 of each tile.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeWarp<T, C, Shape>::compute_scores(
    int slot, float (&s)[kRowTiles][4]) const {
  // Two sums of every other step: half as long a chain of products.
  float sums[2][kRowTiles][4] = {};
  if constexpr (kScaled) {
    if (half_queries_) {
      multiply_codes<Half>(slot, sums);
    } else {
      multiply_codes<Bf16>(slot, sums);
    }
  } else {
    const std::uint32_t k = row_address(ring_[slot], lane_ % 16, lane_ / 16);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      std::uint32_t keys[4];
      load_matrix_x4(keys, at_chunks(k, 2 * i));
#pragma unroll
      for (int t = 0; t < kRowTiles; ++t) {
        mma_16x8x16<T>(sums[i % 2][t], keys, q_[i][t][0], q_[i][t][1]);
      }
    }
  }
  const float low = kScaled && token_scales_ ? scales_[slot][lane_ / 4] : k_scale_;
  const float high = kScaled && token_scales_ ? scales_[slot][lane_ / 4 + 8] : k_scale_;
#pragma unroll
  for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      s[t][e] = sums[0][t][e] + sums[1][t][e];
      if (kScaled) s[t][e] *= e < 2 ? low : high;
    }
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
        } else if (units_.transforms) {
          x = transform_score(a_, x, mask_row, key);
        }
      }
    }
  }
}

/// Scores become probabilities, and earlier outputs follow the maxima.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeWarp<T, C, Shape>::online_softmax(float (&s)[kRowTiles][4]) {
  float correction[kRowTiles][2];
  bool moved = false;
#pragma unroll
  for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      float m = fmaxf(max_[t][c], fmaxf(s[t][c], s[t][2 + c]));
#pragma unroll
      for (int step = 4; step < 32; step *= 2) m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, step));
      if (ATTN_FAULT(finite_sentinel)) m = fmaxf(m, -5000.0f * kLog2E / units_.scale_log2);
      if (ATTN_FAULT(maximum_not_subtracted, m != 0.0f)) m = 0.0f;
      const bool moves = max_[t][c] != -INFINITY && m != max_[t][c];
      if (ATTN_FAULT(maximum_of_first_block, moves)) m = max_[t][c];
      float shift = m == -INFINITY ? 0.0f : m * units_.scale_log2;
      if (ATTN_FAULT(masked_block_first, m == -INFINITY)) shift = m;
      correction[t][c] = exp2_approximate(fmaf(max_[t][c], units_.scale_log2, -shift));
      if (ATTN_FAULT(rescale_is_one, moves)) correction[t][c] = 1.0f;
      if (ATTN_FAULT(rescale_in_base_2, moves)) {
        correction[t][c] = exp2f(log2f(correction[t][c]) * kLn2);
      }
      moved = moved || correction[t][c] != 1.0f;
      max_[t][c] = m;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        s[t][2 * h + c] = exp2_approximate(fmaf(s[t][2 * h + c], units_.scale_log2, -shift));
      }
      const bool keeps = ATTN_FAULT(denominator_not_rescaled,
                                    correction[t][c] != 1.0f && correction[t][c] != 0.0f);
      sum_[t][c] = fmaf(sum_[t][c], keeps ? 1.0f : correction[t][c], s[t][c] + s[t][2 + c]);
    }
  }
  // The maximum of a row settles early; most steps have nothing to rescale.
  if (!__any_sync(0xffffffffu, moved)) return;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) o_[n][t][e] *= correction[t][e % 2];
    }
  }
}

/// Probabilities that carry the scales of tokens need the range of bfloat16; others of coded caches
/// take float16, which codes are widened to faster.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeWarp<T, C, Shape>::add_values(
    int slot, const float (&p)[kRowTiles][4]) {
  if constexpr (!kScaled) {
    add_values_in<T>(slot, p);
  } else if (token_scales_) {
    float scaled[kRowTiles][4];
    const float low = scales_[slot][lane_ / 4];
    const float high = scales_[slot][lane_ / 4 + 8];
#pragma unroll
    for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) scaled[t][e] = p[t][e] * (e < 2 ? low : high);
    }
    add_values_in<Bf16>(slot, scaled);
  } else {
    add_values_in<Half>(slot, p);
  }
}

template <typename T, typename C, typename Shape>
template <typename P>
__device__ __forceinline__ void DecodeWarp<T, C, Shape>::add_values_in(
    int slot, const float (&p)[kRowTiles][4]) {
  std::uint32_t weights[kRowTiles][2];
#pragma unroll
  for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      weights[t][h] = transpose_matrix(pack2<P>(p[t][2 * h], p[t][2 * h + 1]));
    }
  }
  const auto multiply = [&](int n, const std::uint32_t(&v)[4]) {
#pragma unroll
    for (int t = 0; t < kRowTiles; ++t) {
      mma_16x8x16<P>(o_[n][t], v, weights[t][0], weights[t][1]);
    }
  };
  if constexpr (kScaled) {
    // Even channels of a chunk are the first eight rows of the product, odd ones the others.
    const std::uint32_t v = row_address(ring_[slot], lane_ % 16, lane_ / 16);
#pragma unroll
    for (int n = 0; n < kTiles; n += 2) {
      std::uint32_t codes[4];
      load_matrix_x4_transposed(codes, at_chunks(v, n));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const std::uint32_t low = pair_columns(codes[2 * half]);
        const std::uint32_t high = pair_columns(codes[2 * half + 1]);
        const uint2 first = widen_codes<P>(low);
        const uint2 second = widen_codes<P>(high);
        const std::uint32_t values[4] = {first.x, first.y, second.x, second.y};
        multiply(n + half, values);
      }
    }
  } else {
    const std::uint32_t v = row_address(ring_[slot], lane_ % 8 + 8 * (lane_ / 16), lane_ / 8 % 2);
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      std::uint32_t values[4];
      load_matrix_x4_transposed(values, at_chunks(v, 2 * n));
      multiply(n, values);
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
    if constexpr (std::is_same_v<T, Bf16>) narrow_queries();
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
    compute_scores(slot, s);
    __syncwarp();  // all lanes have read the slot
    if constexpr (kEven) {
      if (ahead < last_) load<false>(ahead, slot, page);
    } else {
      if (ahead - Shape::kWarps < last_) load<true>(ahead - Shape::kWarps, slot, page_before);
    }
    copy_async_commit();
    advance();
    const std::int64_t key = static_cast<std::int64_t>(run) * Shape::kKeys;
    if (units_.transforms || key < plain_begin || key + Shape::kKeys > plain_end) {
      hide_and_transform(run, s);
    }
    online_softmax(s);
    copy_async_wait<kSlots - 1>();
    __syncwarp();
    add_values(slot, s);
    __syncwarp();
    if (ahead < last_) load<kEven>(ahead, slot, page);
    copy_async_commit();
    advance();
    page_before = page;
    page = page_after;
  }
  copy_async_wait<0>();
#pragma unroll
  for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
#pragma unroll
      for (int step = 4; step < 32; step *= 2) {
        sum_[t][c] += __shfl_xor_sync(0xffffffffu, sum_[t][c], step);
      }
      if (max_[t][c] != -INFINITY) max_[t][c] *= units_.scale_log2;
    }
  }
}

template <typename T, typename C, typename Shape>
__device__ __forceinline__ void DecodeWarp<T, C, Shape>::leave(typename Shared::Part& part) const {
#pragma unroll
  for (int t = 0; t < kRowTiles; ++t) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const int row = 8 * t + 2 * (lane_ % 4) + c;
      if (row >= rows_) continue;
      if (lane_ < 4) part.end[row] = {max_[t][c], sum_[t][c]};
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int d = 16 * n + (kScaled ? 2 * (lane_ / 4) + h : lane_ / 4 + 8 * h);
          const float x = o_[n][t][2 * h + c];
          part.out[row][d] = kScaled ? x * v_scale_ : x;
        }
      }
    }
  }
}

}  // namespace attn::gpu
