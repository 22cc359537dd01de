// Attention of a tile of packed rows: a block of warps, each with kMTiles * 16 rows, walks over the
// keys in steps of kKeys. K and V of a step are one stage of a cp.async ring in shared memory. No
// barrier holds all warps in one step: a stage counts its readers out and its copies in (mbarrier),
// so that a warp may be most of a ring ahead of another, and one's softmax runs under the other's
// products. (With a barrier a step it measured 13 % slower.)
//
// Budget for head_dim 128 (8 warps of 32 rows, 64 keys): 128 registers of outputs + 64 of scores,
// 255 with a few spills outside the loop; 64 KB of Q and three stages of 32 KB. Two row tiles a
// warp, because each B fragment read from shared memory then feeds two products: with one, shared
// memory would be the limit.
//
// Caches of 8-bit codes are widened on their way: each thread copies chunks of a step into a buffer
// between, and a step later widens the same chunks into the stage, so that no other thread waits
// for the codes. Products see 16-bit elements either way.
#pragma once

#include <type_traits>

#include "gpu/kernels/attention_cache.cuh"
#include "gpu/kernels/attention_mma.cuh"

namespace attn::gpu {

template <int kHeadDim_, int kWarps_, int kMTiles_, int kKeys_, int kBlocksPerSm_, int kStages_,
          bool kTransforms_>
struct PrefillShape {
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kWarps = kWarps_;
  static constexpr int kMTiles = kMTiles_;
  static constexpr int kKeys = kKeys_;
  static constexpr int kBlocksPerSm = kBlocksPerSm_;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kRows = 16 * kMTiles * kWarps;
  static constexpr int kStages = kStages_;
  /// Scores are changed one by one: soft-cap, tensor mask. Registers that the others do not pay
  /// for.
  static constexpr bool kTransforms = kTransforms_;
};

/// The work of one block.
struct PrefillTile {
  Sequence sequence;
  int first_row = 0;  ///< packed, of the sequence
  int rows = 0;       ///< packed rows of the sequence, all tiles
  int kv_head = 0;
  int group = 1;
  int split = 0;
  int first_step = 0;  ///< steps of kKeys keys, from key 0
  int last_step = 0;
  // Steps in which every row of the tile sees every key.
  int first_plain = 0;
  int last_plain = 0;
};

/// Codes of the next step, on their way to a stage, and what scales them.
template <typename Shape>
struct PrefillCodes {
  E4m3 k[Shape::kKeys][Shape::kHeadDim];
  E4m3 v[Shape::kKeys][Shape::kHeadDim];
  float scales[2][Shape::kKeys];  // of tokens: keys, values
  float stage_scales[Shape::kStages][2][Shape::kKeys];
};
struct NoCodes {};

template <typename T, typename C, typename Shape>
struct PrefillShared {
  static constexpr bool kCoded = std::is_same_v<C, E4m3>;
  static constexpr int kStride = kSharedStride<Shape::kHeadDim, T>;
  T q[Shape::kRows][kStride];
  T k[Shape::kStages][Shape::kKeys][kStride];
  T v[Shape::kStages][Shape::kKeys][kStride];
  // Rows of the step after next, looked up in the page table a step before their loads are issued.
  const T* k_row[kCoded ? 1 : Shape::kStages][Shape::kKeys];
  const T* v_row[kCoded ? 1 : Shape::kStages][Shape::kKeys];
  // Of each stage: its keys have landed (every thread's copies); every warp is done with them.
  PrefillTile tile;  // here and not in registers, which the loop wants for itself
  std::uint64_t full[Shape::kStages];
  std::uint64_t empty[Shape::kStages];
  alignas(16) std::conditional_t<kCoded, PrefillCodes<Shape>, NoCodes> codes;
};

template <typename T, typename C, typename Shape>
class PrefillBlock {
 public:
  using Shared = PrefillShared<T, C, Shape>;
  static constexpr int kHeadDim = Shape::kHeadDim;
  static constexpr int kNTiles = kHeadDim / 8;
  static constexpr int kSTiles = Shape::kKeys / 8;
  static constexpr bool kCoded = Shared::kCoded;

  __device__ PrefillBlock(const AttentionArguments& a, Shared& shared, const PrefillTile& tile)
      : a_(a),
        shared_(shared),
        tile_(tile),
        lane_(threadIdx.x % 32),
        warp_(threadIdx.x / 32),
        whole_pages_(a.cache.page_size % Shape::kKeys == 0),
        token_scales_(kCoded && a.cache.scales == CacheScales::kTokenHead) {}

  __device__ __forceinline__ void run(const Partials& partials);

 private:
  __device__ __forceinline__ void load_queries();
  struct Slot {
    std::uint32_t page = 0;
    std::uint32_t slot = 0;
    bool valid = false;
  };
  __device__ __forceinline__ Slot look_up(int step);
  __device__ __forceinline__ void publish(int stage, const Slot& slot);
  __device__ __forceinline__ void load_page(int stage, int step, const Slot& slot);
  __device__ __forceinline__ void load_keys(int stage, int step, const Slot& slot);
  __device__ __forceinline__ void fill_first();
  __device__ __forceinline__ void fill(int stage, int step);
  __device__ __forceinline__ void copy_codes(int step, const Slot& slot);
  __device__ __forceinline__ void widen_codes_into(int stage);
  __device__ __forceinline__ void compute_scores(int stage, Scores<kSTiles> (&s)[Shape::kMTiles]);
  __device__ __forceinline__ void scale_columns(const float* scales,
                                                Scores<kSTiles> (&s)[Shape::kMTiles]) const;
  __device__ __forceinline__ void transform(int step, Scores<kSTiles>& s, int m);
  __device__ __forceinline__ void mask(int step, Scores<kSTiles>& s, int m);
  template <typename P>
  __device__ __forceinline__ void add_values(int stage, const Scores<kSTiles> (&p)[Shape::kMTiles],
                                             float (&o)[Shape::kMTiles][kNTiles][4]);
  __device__ __forceinline__ void write(const Partials& partials,
                                        float (&o)[Shape::kMTiles][kNTiles][4],
                                        SoftmaxState (&state)[Shape::kMTiles], float scale_log2);
  /// Packed row of the sequence that element (m, h) of this thread belongs to.
  __device__ __forceinline__ int row_of(int m, int h) const {
    return tile_.first_row + (warp_ * Shape::kMTiles + m) * 16 + lane_ / 4 + 8 * h;
  }
  __device__ __forceinline__ std::int64_t vector_of(int row) const {
    const PackedRow p = packed_row(row, tile_.group);
    return (tile_.sequence.first_row + p.query) * a_.num_heads +
           static_cast<std::int64_t>(tile_.kv_head) * tile_.group + p.head;
  }

  const AttentionArguments& a_;
  Shared& shared_;
  const PrefillTile& tile_;
  int lane_;
  int warp_;
  /// A step never crosses a page: one look-up a step, and rows a stride apart.
  bool whole_pages_;
  bool token_scales_;
  float k_scale_ = 1.0f;
  float v_scale_ = 1.0f;
  Slot ahead_;  ///< of the next step to be copied
};

template <typename T, typename C, typename Shape>
__device__ __forceinline__ void PrefillBlock<T, C, Shape>::load_queries() {
  constexpr int kChunks = kHeadDim / 8;
  const int valid_chunks = static_cast<int>(a_.head_dim / 8);
  for (int i = threadIdx.x; i < Shape::kRows * kChunks; i += Shape::kThreads) {
    const int r = i / kChunks;
    const int c = i % kChunks;
    const bool valid = tile_.first_row + r < tile_.rows && c < valid_chunks;
    const T* source = static_cast<const T*>(a_.q);
    if (valid) source += vector_of(tile_.first_row + r) * a_.head_dim + 8 * c;
    copy_async_16(shared_address(&shared_.q[r][place_of_chunk<T>(r, c)]), source, valid);
  }
}

/// Threads 0 .. kKeys - 1 find the rows of a step, or all threads its only page. The table is read
/// early and the addresses are published late, so that no warp waits for the read.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ typename PrefillBlock<T, C, Shape>::Slot
PrefillBlock<T, C, Shape>::look_up(int step) {
  Slot slot;
  const std::int64_t key =
      static_cast<std::int64_t>(step) * Shape::kKeys + (whole_pages_ ? 0 : threadIdx.x);
  if ((!whole_pages_ && threadIdx.x >= Shape::kKeys) || step >= tile_.last_step ||
      key >= tile_.sequence.keys) {
    return slot;
  }
  const auto page_size = static_cast<unsigned>(a_.cache.page_size);
  const unsigned column = static_cast<unsigned>(key) / page_size;
  slot.slot = static_cast<unsigned>(key) - column * page_size;
  slot.page = a_.cache.page_table[tile_.sequence.index * a_.cache.table_stride + column];
  slot.valid = true;
  return slot;
}

/// Null: no such key, zeros are loaded instead, so that what lies in a page behind a sequence's end
/// never reaches a product.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void PrefillBlock<T, C, Shape>::publish(int stage, const Slot& slot) {
  if (whole_pages_ || threadIdx.x >= Shape::kKeys) return;
  const std::int64_t page = slot.page;
  const T* const k = static_cast<const T*>(a_.cache.k) + page * a_.cache.k_page_stride +
                     slot.slot * a_.cache.k_token_stride + tile_.kv_head * a_.cache.k_head_stride;
  const T* const v = static_cast<const T*>(a_.cache.v) + page * a_.cache.v_page_stride +
                     slot.slot * a_.cache.v_token_stride + tile_.kv_head * a_.cache.v_head_stride;
  shared_.k_row[stage][threadIdx.x] = slot.valid ? k : nullptr;
  shared_.v_row[stage][threadIdx.x] = slot.valid ? v : nullptr;
}

/// A step that lies in one page.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void PrefillBlock<T, C, Shape>::load_page(int stage, int step,
                                                                     const Slot& slot) {
  constexpr int kChunks = kHeadDim / 8;
  constexpr int kCopies = Shape::kKeys * kChunks;
  constexpr bool kEvenCopies = kCopies % Shape::kThreads == 0 && Shape::kThreads % kChunks == 0;
  const std::int64_t page = slot.page;
  const T* const k = static_cast<const T*>(a_.cache.k) + page * a_.cache.k_page_stride +
                     slot.slot * a_.cache.k_token_stride + tile_.kv_head * a_.cache.k_head_stride;
  const T* const v = static_cast<const T*>(a_.cache.v) + page * a_.cache.v_page_stride +
                     slot.slot * a_.cache.v_token_stride + tile_.kv_head * a_.cache.v_head_stride;
  // A page is far smaller than 2^31 elements, so offsets within it are ints.
  const int k_stride = static_cast<int>(a_.cache.k_token_stride);
  const int v_stride = static_cast<int>(a_.cache.v_token_stride);
  const int rows =
      static_cast<int>(min(static_cast<std::int64_t>(Shape::kKeys),
                           tile_.sequence.keys - static_cast<std::int64_t>(step) * Shape::kKeys));
  if (kEvenCopies && rows == Shape::kKeys && a_.head_dim == kHeadDim && a_.head_dim_v == kHeadDim) {
    // Nothing to leave out: every copy is a fixed distance from the one before.
    constexpr int kRowsApart = Shape::kThreads / kChunks;
    const int r = static_cast<int>(threadIdx.x) / kChunks;
    const int c = static_cast<int>(threadIdx.x) % kChunks;
    const T* k_from = k + r * k_stride + 8 * c;
    const T* v_from = v + r * v_stride + 8 * c;
#pragma unroll
    for (int i = 0; i < kCopies / Shape::kThreads; ++i) {
      const int row = r + i * kRowsApart;
      const int place = place_of_chunk<T>(row, c);
      copy_async_16(shared_address(&shared_.k[stage][row][place]), k_from, true);
      copy_async_16(shared_address(&shared_.v[stage][row][place]), v_from, true);
      k_from += kRowsApart * k_stride;
      v_from += kRowsApart * v_stride;
    }
    return;
  }
#pragma unroll
  for (int first = 0; first < kCopies; first += Shape::kThreads) {
    const int i = first + static_cast<int>(threadIdx.x);
    if (kCopies % Shape::kThreads != 0 && i >= kCopies) break;
    const int r = i / kChunks;
    const int c = i % kChunks;
    const bool k_valid = r < rows && 8 * c < a_.head_dim;
    const bool v_valid = r < rows && 8 * c < a_.head_dim_v;
    copy_async_16(shared_address(&shared_.k[stage][r][place_of_chunk<T>(r, c)]),
                  k + (k_valid ? r * k_stride + 8 * c : 0), k_valid);
    copy_async_16(shared_address(&shared_.v[stage][r][place_of_chunk<T>(r, c)]),
                  v + (v_valid ? r * v_stride + 8 * c : 0), v_valid);
  }
}

template <typename T, typename C, typename Shape>
__device__ __forceinline__ void PrefillBlock<T, C, Shape>::load_keys(int stage, int step,
                                                                     const Slot& slot) {
  if (whole_pages_) return load_page(stage, step, slot);
  constexpr int kChunks = kHeadDim / 8;
  const int k_chunks = static_cast<int>(a_.head_dim / 8);
  const int v_chunks = static_cast<int>(a_.head_dim_v / 8);
  constexpr int kCopies = Shape::kKeys * kChunks;
#pragma unroll
  for (int first = 0; first < kCopies; first += Shape::kThreads) {
    const int i = first + threadIdx.x;
    if (kCopies % Shape::kThreads != 0 && i >= kCopies) break;
    const int r = i / kChunks;
    const int c = i % kChunks;
    const T* k = shared_.k_row[stage][r];
    const T* v = shared_.v_row[stage][r];
    const bool k_valid = k != nullptr && c < k_chunks;
    const bool v_valid = v != nullptr && c < v_chunks;
    copy_async_16(shared_address(&shared_.k[stage][r][place_of_chunk<T>(r, c)]),
                  k_valid ? k + 8 * c : static_cast<const T*>(a_.q), k_valid);
    copy_async_16(shared_address(&shared_.v[stage][r][place_of_chunk<T>(r, c)]),
                  v_valid ? v + 8 * c : static_cast<const T*>(a_.q), v_valid);
  }
}

/// The first chunk of 16 codes of a step that this thread copies is its thread number's, the next
/// kThreads further.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void PrefillBlock<T, C, Shape>::copy_codes(int step, const Slot& slot) {
  if constexpr (kCoded) {
    auto& codes = shared_.codes;
    const CacheSide<C> k = keys_of<C>(a_.cache, tile_.kv_head);
    const CacheSide<C> v = values_of<C>(a_.cache, tile_.kv_head);
    const C* const legal = static_cast<const C*>(a_.q);
    const auto find = [&](int r) {
      Slot found = slot;
      const std::int64_t key = static_cast<std::int64_t>(step) * Shape::kKeys + r;
      found.valid = key < tile_.sequence.keys;
      if (whole_pages_) {
        found.slot += r;
      } else if (found.valid) {
        const auto page_size = static_cast<unsigned>(a_.cache.page_size);
        const unsigned column = static_cast<unsigned>(key) / page_size;
        found.slot = static_cast<unsigned>(key) - column * page_size;
        found.page = a_.cache.page_table[tile_.sequence.index * a_.cache.table_stride + column];
      }
      return found;
    };
    constexpr int kChunks = kHeadDim / 16;
#pragma unroll
    for (int i = threadIdx.x; i < Shape::kKeys * kChunks; i += Shape::kThreads) {
      const int r = i / kChunks;
      const int c = i % kChunks;
      const Slot at = find(r);
      copy_chunk(shared_address(&codes.k[r][16 * c]), at.valid ? k.row(at.page, at.slot) : legal, c,
                 static_cast<int>(a_.head_dim), at.valid);
      copy_chunk(shared_address(&codes.v[r][16 * c]), at.valid ? v.row(at.page, at.slot) : legal, c,
                 static_cast<int>(a_.head_dim_v), at.valid);
    }
    if (!token_scales_ || threadIdx.x >= 2 * Shape::kKeys) return;
    const int of_values = static_cast<int>(threadIdx.x) / Shape::kKeys;
    const int r = static_cast<int>(threadIdx.x) % Shape::kKeys;
    const Slot at = find(r);
    const float* const scale = (of_values != 0 ? v : k).scale +
                               at.page * a_.cache.scale_page_stride +
                               at.slot * a_.cache.scale_token_stride;
    copy_async_small<4>(shared_address(&codes.scales[of_values][r]),
                        at.valid ? static_cast<const void*>(scale) : a_.q, at.valid);
  }
}

/// The chunks that this thread has copied.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void PrefillBlock<T, C, Shape>::widen_codes_into(int stage) {
  if constexpr (kCoded) {
    copy_async_wait_all();
    auto& codes = shared_.codes;
    constexpr int kChunks = kHeadDim / 16;
#pragma unroll
    for (int i = threadIdx.x; i < Shape::kKeys * kChunks; i += Shape::kThreads) {
      const int r = i / kChunks;
      const int c = i % kChunks;
      const auto widen = [&](const C* from, T* row, auto as) {
        using E = decltype(as);
        const uint4 x = *reinterpret_cast<const uint4*>(from);
        const std::uint32_t words[4] = {x.x, x.y, x.z, x.w};
        std::uint32_t wide[8];
#pragma unroll
        for (int w = 0; w < 4; ++w) {
          const uint2 pairs = widen_codes<E>(words[w]);
          wide[2 * w] = pairs.x;
          wide[2 * w + 1] = pairs.y;
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          *reinterpret_cast<uint4*>(row + place_of_chunk<T>(r, 2 * c + half)) = make_uint4(
              wide[4 * half], wide[4 * half + 1], wide[4 * half + 2], wide[4 * half + 3]);
        }
      };
      widen(&codes.k[r][16 * c], shared_.k[stage][r], T{});
      if (token_scales_) {
        widen(&codes.v[r][16 * c], shared_.v[stage][r], Bf16{});
      } else {
        widen(&codes.v[r][16 * c], shared_.v[stage][r], Half{});
      }
    }
    if (token_scales_ && threadIdx.x < 2 * Shape::kKeys) {
      (&codes.stage_scales[stage][0][0])[threadIdx.x] = (&codes.scales[0][0])[threadIdx.x];
    }
  }
}

/// Before the loop: all stages but one are on their way, or there. Codes of the step after those
/// are on theirs.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void PrefillBlock<T, C, Shape>::fill_first() {
  const int first_step = tile_.first_step;
#pragma unroll
  for (int i = 0; i < Shape::kStages - 1; ++i) {
    const int step = first_step + i;
    if constexpr (kCoded) {
      if (step < tile_.last_step) {
        copy_codes(step, look_up(step));
        widen_codes_into(i);
      }
    } else {
      if (step < tile_.last_step) load_keys(i, step, look_up(step));
      copy_async_arrive(&shared_.full[i]);
    }
  }
  ahead_ = look_up(first_step + Shape::kStages - 1);
  if constexpr (kCoded) {
    const int step = first_step + Shape::kStages - 1;
    if (step < tile_.last_step) copy_codes(step, ahead_);
    ahead_ = look_up(step + 1);
  }
}

/// Step `step` into a free stage.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void PrefillBlock<T, C, Shape>::fill(int stage, int step) {
  if constexpr (kCoded) {
    if (step < tile_.last_step) widen_codes_into(stage);
    if (step + 1 < tile_.last_step) copy_codes(step + 1, ahead_);
    ahead_ = look_up(step + 2);
  } else {
    if (!whole_pages_) __syncthreads();
    if (step < tile_.last_step) load_keys(stage, step, ahead_);
    copy_async_arrive(&shared_.full[stage]);
    ahead_ = look_up(step + 1);
  }
}

/// Scores or probabilities times the scales of their keys.
template <typename T, typename C, typename Shape>
__device__ __forceinline__ void PrefillBlock<T, C, Shape>::scale_columns(
    const float* scales, Scores<kSTiles> (&s)[Shape::kMTiles]) const {
#pragma unroll
  for (int j = 0; j < kSTiles; ++j) {
    const float2 scale = *reinterpret_cast<const float2*>(scales + 8 * j + 2 * (lane_ % 4));
#pragma unroll
    for (int m = 0; m < Shape::kMTiles; ++m) {
#pragma unroll
      for (int e = 0; e < 4; ++e) s[m].at[j][e] *= e % 2 == 0 ? scale.x : scale.y;
    }
  }
}

template <typename T, typename C, typename Shape>
__device__ __forceinline__ void PrefillBlock<T, C, Shape>::compute_scores(
    int stage, Scores<kSTiles> (&s)[Shape::kMTiles]) {
#pragma unroll
  for (int m = 0; m < Shape::kMTiles; ++m) {
#pragma unroll
    for (int j = 0; j < kSTiles; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) s[m].at[j][e] = 0.0f;
    }
  }
  // A: matrices (rows, k), (rows + 8, k), (rows, k + 8), (rows + 8, k + 8).
  const std::uint32_t q =
      row_address(shared_.q, warp_ * Shape::kMTiles * 16 + lane_ % 16, lane_ / 16);
  // B of keys 0-7 and 8-15, each for k and k + 8.
  const std::uint32_t k =
      row_address(shared_.k[stage], lane_ % 8 + 8 * (lane_ / 16), lane_ / 8 % 2);
  constexpr int kRowBytes = Shared::kStride * 2;
#pragma unroll
  for (int d = 0; d < kHeadDim; d += 16) {
    std::uint32_t a[Shape::kMTiles][4];
#pragma unroll
    for (int m = 0; m < Shape::kMTiles; ++m) {
      load_matrix_x4(a[m], at_chunks(q, d / 8) + m * 16 * kRowBytes);
    }
#pragma unroll
    for (int j = 0; j < kSTiles; j += 2) {
      std::uint32_t b[4];
      load_matrix_x4(b, at_chunks(k, d / 8) + j * 8 * kRowBytes);
#pragma unroll
      for (int m = 0; m < Shape::kMTiles; ++m) {
        mma_16x8x16<T>(s[m].at[j], a[m], b[0], b[1]);
        mma_16x8x16<T>(s[m].at[j + 1], a[m], b[2], b[3]);
      }
    }
  }
}

template <typename T, typename C, typename Shape>
__device__ __forceinline__ void PrefillBlock<T, C, Shape>::transform(int step, Scores<kSTiles>& s,
                                                                     int m) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = row_of(m, h);
    const float* mask_row = nullptr;
    if (a_.mask_tensor != nullptr && row < tile_.rows) {
      mask_row = a_.mask_tensor +
                 (tile_.sequence.first_row + packed_row(row, tile_.group).query) * a_.mask_stride;
    }
#pragma unroll
    for (int j = 0; j < kSTiles; ++j) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const std::int64_t key =
            static_cast<std::int64_t>(step) * Shape::kKeys + 8 * j + 2 * (lane_ % 4) + c;
        float& x = s.at[j][2 * h + c];
        x = transform_score(a_, x, key < tile_.sequence.keys ? mask_row : nullptr, key);
      }
    }
  }
}

template <typename T, typename C, typename Shape>
__device__ __forceinline__ void PrefillBlock<T, C, Shape>::mask(int step, Scores<kSTiles>& s,
                                                                int m) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const std::int64_t query = packed_row(row_of(m, h), tile_.group).query;
    const KeyRange visible =
        visible_keys(a_, tile_.sequence.keys, position_of(a_, tile_.sequence, query));
    // Relative to this thread's first key of the step; a step is far from both ends of int.
    const std::int64_t first = static_cast<std::int64_t>(step) * Shape::kKeys + 2 * (lane_ % 4);
    const int begin = static_cast<int>(visible.begin - first);
    const int end = static_cast<int>(visible.end - first);
#pragma unroll
    for (int j = 0; j < kSTiles; ++j) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int key = 8 * j + c;
        if (key < begin || key >= end) s.at[j][2 * h + c] = -INFINITY;
      }
    }
  }
}

/// o += p v. The accumulator layout of the scores is the A layout of this product: two neighbouring
/// score tiles are one fragment, after the conversion.
template <typename T, typename C, typename Shape>
template <typename P>
__device__ __forceinline__ void PrefillBlock<T, C, Shape>::add_values(
    int stage, const Scores<kSTiles> (&p)[Shape::kMTiles], float (&o)[Shape::kMTiles][kNTiles][4]) {
  // V is [key, channel] and B wants pairs along keys: transposing loads. Matrices (keys, channels),
  // (keys + 8, channels), (keys, channels + 8), (keys + 8, channels + 8).
  const std::uint32_t v = row_address(shared_.v[stage], lane_ % 16, lane_ / 16);
  constexpr int kRowBytes = Shared::kStride * 2;
#pragma unroll
  for (int j = 0; j < kSTiles; j += 2) {
    std::uint32_t a[Shape::kMTiles][4];
#pragma unroll
    for (int m = 0; m < Shape::kMTiles; ++m) {
      a[m][0] = pack2<P>(p[m].at[j][0], p[m].at[j][1]);
      a[m][1] = pack2<P>(p[m].at[j][2], p[m].at[j][3]);
      a[m][2] = pack2<P>(p[m].at[j + 1][0], p[m].at[j + 1][1]);
      a[m][3] = pack2<P>(p[m].at[j + 1][2], p[m].at[j + 1][3]);
    }
#pragma unroll
    for (int n = 0; n < kNTiles; n += 2) {
      std::uint32_t b[4];
      load_matrix_x4_transposed(b, at_chunks(v, n) + j * 8 * kRowBytes);
#pragma unroll
      for (int m = 0; m < Shape::kMTiles; ++m) {
        mma_16x8x16<P>(o[m][n], a[m], b[0], b[1]);
        mma_16x8x16<P>(o[m][n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

template <typename T, typename C, typename Shape>
__device__ __forceinline__ void PrefillBlock<T, C, Shape>::write(
    const Partials& partials, float (&o)[Shape::kMTiles][kNTiles][4],
    SoftmaxState (&state)[Shape::kMTiles], float scale_log2) {
  // A warp's output rows go through the rows of Q that only it has read.
  T(*const staged)[Shared::kStride] = &shared_.q[warp_ * Shape::kMTiles * 16];
#pragma unroll
  for (int m = 0; m < Shape::kMTiles; ++m) {
    finish_sums(state[m]);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = row_of(m, h);
      const bool valid = row < tile_.rows;
      const std::int64_t vector = valid ? vector_of(row) : 0;
      const float max_log2 =
          state[m].max[h] == -INFINITY ? -INFINITY : state[m].max[h] * scale_log2;
      if (partials.splits > 1) {
        if (!valid) continue;
        const std::int64_t part = tile_.split * a_.batch.tokens * a_.num_heads + vector;
        if (lane_ % 4 == 0) {
          partials.max[part] = max_log2;
          partials.sum[part] = state[m].sum[h];
        }
        float* const target = partials.out + part * a_.head_dim_v;
#pragma unroll
        for (int n = 0; n < kNTiles; ++n) {
          const int d = 8 * n + 2 * (lane_ % 4);
          if (d < a_.head_dim_v) {
            *reinterpret_cast<float2*>(target + d) = {o[m][n][2 * h] * v_scale_,
                                                      o[m][n][2 * h + 1] * v_scale_};
          }
        }
        continue;
      }
      const float* sink = a_.sinks != nullptr
                              ? a_.sinks + tile_.kv_head * tile_.group + row % tile_.group
                              : nullptr;
      const RowEnd end = end_row(max_log2, state[m].sum[h], sink);
      const float factor = end.factor * v_scale_;
      if (valid && lane_ % 4 == 0) a_.lse[vector] = end.lse;
#pragma unroll
      for (int n = 0; n < kNTiles; ++n) {
        *reinterpret_cast<std::uint32_t*>(
            &staged[m * 16 + lane_ / 4 + 8 * h]
                   [place_of_chunk<T>(lane_ / 4, n) + 2 * (lane_ % 4)]) =
            pack2<T>(o[m][n][2 * h] * factor, o[m][n][2 * h + 1] * factor);
      }
    }
  }
  if (partials.splits > 1) return;
  __syncwarp();
  constexpr int kChunks = kHeadDim / 8;
  const int chunks = static_cast<int>(a_.head_dim_v / 8);
  for (int i = lane_; i < 16 * Shape::kMTiles * kChunks; i += 32) {
    const int r = i / kChunks;
    const int c = i % kChunks;
    const int row = tile_.first_row + warp_ * Shape::kMTiles * 16 + r;
    if (row >= tile_.rows || c >= chunks) continue;
    T* const target = static_cast<T*>(a_.out) + vector_of(row) * a_.head_dim_v + 8 * c;
    *reinterpret_cast<uint4*>(target) =
        *reinterpret_cast<const uint4*>(&staged[r][place_of_chunk<T>(r, c)]);
  }
}

template <typename T, typename C, typename Shape>
__device__ __forceinline__ void PrefillBlock<T, C, Shape>::run(const Partials& partials) {
  const ScoreUnits units = score_units(a_);
  float o[Shape::kMTiles][kNTiles][4] = {};
  SoftmaxState state[Shape::kMTiles];

  load_queries();
  if constexpr (kCoded) {
    if (a_.cache.scales == CacheScales::kTensor || a_.cache.scales == CacheScales::kHead) {
      k_scale_ = ATTN_FAULT(key_scale_dropped) ? 1.0f : *keys_of<C>(a_.cache, tile_.kv_head).scale;
      v_scale_ =
          ATTN_FAULT(value_scale_dropped) ? 1.0f : *values_of<C>(a_.cache, tile_.kv_head).scale;
    }
  }
  const int first_step = tile_.first_step;
  const int steps = tile_.last_step - first_step;
  // One thread: the instruction wants an address that a warp agrees on, and a thread of its own for
  // each barrier is a loop over the threads, of which racecheck takes the address too early.
  if (threadIdx.x == 0) {
#pragma unroll
    for (int i = 0; i < Shape::kStages; ++i) {
      barrier_init(&shared_.full[i], Shape::kThreads);
      barrier_init(&shared_.empty[i], Shape::kWarps);
    }
  }
  if constexpr (!kCoded) {
#pragma unroll
    for (int i = 0; i < Shape::kStages; ++i) publish(i, look_up(first_step + i));
  }
  __syncthreads();
  fill_first();
  int stage = 0;
  unsigned phase = 0;
  for (int i = 0; i < steps; ++i) {
    const int step = first_step + i;
    // Codes are widened by ordinary stores: all warps meet, and find the stage before this one
    // free.
    if constexpr (kCoded) {
      __syncthreads();
    } else {
      barrier_wait(&shared_.full[stage], phase);
    }
    Scores<kSTiles> s[Shape::kMTiles];
    compute_scores(stage, s);
    // The stage of the step before this one is free once every warp has left it.
    const int free_stage = stage == 0 ? Shape::kStages - 1 : stage - 1;
    if (!kCoded && i > 0) {
      barrier_wait(&shared_.empty[free_stage], stage == 0 ? phase ^ 1 : phase);
    }
    fill(free_stage, step + Shape::kStages - 1);
    if constexpr (kCoded) {
      if (token_scales_) {
        scale_columns(shared_.codes.stage_scales[stage][0], s);
      } else {
#pragma unroll
        for (int m = 0; m < Shape::kMTiles; ++m) {
#pragma unroll
          for (int j = 0; j < kSTiles; ++j) {
#pragma unroll
            for (int e = 0; e < 4; ++e) s[m].at[j][e] *= k_scale_;
          }
        }
      }
    }
    if (Shape::kTransforms) {
#pragma unroll
      for (int m = 0; m < Shape::kMTiles; ++m) transform(step, s[m], m);
    }
    if (step < tile_.first_plain || step >= tile_.last_plain) {
#pragma unroll
      for (int m = 0; m < Shape::kMTiles; ++m) mask(step, s[m], m);
    }
#pragma unroll
    for (int m = 0; m < Shape::kMTiles; ++m) {
      float correction[2];
      online_softmax(s[m], state[m], correction, units.scale_log2);
#pragma unroll
      for (int n = 0; n < kNTiles; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) o[m][n][e] *= correction[e / 2];
      }
    }
    if constexpr (!kCoded) {
      add_values<T>(stage, s, o);
    } else if (token_scales_) {
      scale_columns(shared_.codes.stage_scales[stage][1], s);
      add_values<Bf16>(stage, s, o);
    } else {
      add_values<Half>(stage, s, o);
    }
    if constexpr (!kCoded) {
      __syncwarp();
      if (lane_ == 0) barrier_arrive(&shared_.empty[stage]);
      publish(stage, ahead_);
    }
    if (++stage == Shape::kStages) {
      stage = 0;
      phase ^= 1;
    }
  }
  copy_async_wait_all();
  __syncthreads();  // Q is there even when there was no step; the warps reuse it below
  write(partials, o, state, units.scale_log2);
}

/// grid: x kv heads of sequences, y row tiles from the last to the first (the longest rows of a
/// causal mask first), z splits.
template <typename T, typename C, typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocksPerSm)
    attention_prefill_kernel(const __grid_constant__ AttentionArguments a,
                             const __grid_constant__ Partials partials) {
  extern __shared__ __align__(128) unsigned char memory[];
  auto& shared = *reinterpret_cast<PrefillShared<T, C, Shape>*>(memory);
  allow_dependent_launch();
  wait_for_previous_grid();
  PrefillTile tile;
  tile.kv_head = static_cast<int>(blockIdx.x % a.num_kv_heads);
  tile.sequence = load_sequence(a.batch, blockIdx.x / a.num_kv_heads);
  tile.group = static_cast<int>(a.num_heads / a.num_kv_heads);
  tile.rows = static_cast<int>(tile.sequence.rows) * tile.group;
  tile.first_row = static_cast<int>(gridDim.y - 1 - blockIdx.y) * Shape::kRows;
  if (tile.first_row >= tile.rows) return;
  tile.split = static_cast<int>(blockIdx.z);

  const int last_row = min(tile.first_row + Shape::kRows, tile.rows) - 1;
  const Sequence& sequence = tile.sequence;
  const KeyRange first = visible_keys(
      a, sequence.keys, position_of(a, sequence, packed_row(tile.first_row, tile.group).query));
  const KeyRange last = visible_keys(
      a, sequence.keys, position_of(a, sequence, packed_row(last_row, tile.group).query));
  // Both ends of what a row sees move forward with the row.
  if (first.begin < last.end) {
    tile.first_step = static_cast<int>(first.begin / Shape::kKeys);
    tile.last_step = static_cast<int>((last.end + Shape::kKeys - 1) / Shape::kKeys);
  }
  tile.first_plain = static_cast<int>((last.begin + Shape::kKeys - 1) / Shape::kKeys);
  tile.last_plain = first.end > 0 ? static_cast<int>(first.end / Shape::kKeys) : 0;
  if (partials.splits > 1) {
    const int steps = tile.last_step - tile.first_step;
    const int share = (steps + partials.splits - 1) / partials.splits;
    tile.first_step = min(tile.first_step + tile.split * share, tile.last_step);
    tile.last_step = min(tile.first_step + share, tile.last_step);
  }
  if (threadIdx.x == 0) shared.tile = tile;
  __syncthreads();
  PrefillBlock<T, C, Shape>(a, shared, shared.tile).run(partials);
}

}  // namespace attn::gpu
