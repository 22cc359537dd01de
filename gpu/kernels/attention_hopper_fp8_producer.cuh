// The producing warpgroup of the prefill kernel of fp8 products (attention_hopper_fp8.cuh).
#pragma once

#include "gpu/kernels/attention_hopper_fp8_shared.cuh"
#include "gpu/kernels/attention_hopper_producer.cuh"
#include "gpu/kernels/hopper_wgmma_fp8.cuh"

namespace attn::gpu {

/// The 16-bit element in a word's lower half.
template <typename T>
__device__ __forceinline__ float low_to_float(std::uint32_t word) {
  if constexpr (TypeOf<T>::value == Type::kBFloat16) return __uint_as_float(word << 16);
  return __half2float(__ushort_as_half(static_cast<unsigned short>(word & 0xffffu)));
}

/// All threads of its warps. A warp turns the values of 32 keys of a step, four groups of 8 that
/// lie in one page each. T is the type of the queries.
template <typename T, int kSlabs>
class HopperFp8Producer : private HopperProducer<T, kSlabs, HopperFp8Shared<kSlabs>> {
 public:
  using Shared = HopperFp8Shared<kSlabs>;
  using Producer = HopperProducer<T, kSlabs, Shared>;
  static constexpr int kKeys = Shared::kKeys;

  __device__ HopperFp8Producer(const HopperCall& call, Shared& shared);
  __device__ __forceinline__ void run(const CUtensorMap* map_k);

 private:
  using Box = typename Producer::Box;
  using Producer::call_;
  using Producer::lane_;
  using Producer::shared_;

  static constexpr int kWarpKeys = kKeys / 4;
  static constexpr int kBlocks = kSlabs;            // of 16 keys, that a thread turns
  static constexpr int kColumnLanes = 16 * kSlabs;  // lanes that read a row
  static constexpr int kQueryLanes = 4 * kSlabs;    // likewise of q, 16 channels each
  static constexpr int kQueryRows = 32 / kQueryLanes;
  static constexpr int kQueriesAtOnce = 2;
  static constexpr int kKeyWarp = 0;
  static constexpr int kDrawingWarp = 1;

  __device__ __forceinline__ Box keys_of(const HopperTile& t, int i) const;
  __device__ __forceinline__ void draw(int index) const;
  __device__ __forceinline__ void announce(int turn_number) const;
  __device__ __forceinline__ int query_row(int pass) const;
  __device__ __forceinline__ void convert_queries(const HopperTile& t, int slot) const;
  __device__ __forceinline__ void convert_row(const uint4 (&x)[2], int r, int column,
                                              int slot) const;
  __device__ __forceinline__ void load_keys(const CUtensorMap* map, const Box& box, int kv_head);
  __device__ __forceinline__ std::uint64_t find(const HopperTile& t, int kv_head, int i) const;
  __device__ __forceinline__ std::uint64_t row_of(std::uint64_t rows, int block, int half) const;
  __device__ __forceinline__ void clear_tail(int live);
  __device__ __forceinline__ void load(std::uint64_t rows, int block);
  __device__ __forceinline__ void turn(std::uint32_t stage, int block) const;
  __device__ __forceinline__ static int step_key(const HopperTile& t, int i) {
    return (t.last_step - 1 - i) * kKeys;
  }

  int warp_;
  std::uint32_t codes_[16 * kBlocks];  // four channels of each key
  std::uint32_t within_;               // bytes from a row's first channel to the thread's
  std::uint32_t place_[4];             // of the thread's four channels, from the start of a stage
  std::uint32_t pick_[2];  // of two words: the bytes of the channels of turns 0, 1 and 2, 3
  RingPlace<Shared::kStages> ring_;
};

template <typename T, int kSlabs>
__device__ HopperFp8Producer<T, kSlabs>::HopperFp8Producer(const HopperCall& call, Shared& shared)
    : Producer(call, shared), warp_(static_cast<int>(threadIdx.x) / 32) {
  const int thread = static_cast<int>(threadIdx.x);
  const int channel = 4 * (lane_ % kColumnLanes);
  // Behind the last channel: the first ones again. What comes of them is not stored.
  within_ = static_cast<std::uint32_t>(channel < static_cast<int>(call.a.head_dim_v) ? channel : 0);
  const int first_block = warp_ * 2 + lane_ / kColumnLanes;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    place_[i] = swizzle_128(static_cast<std::uint32_t>(channel + fp8_channel(thread, i)),
                            static_cast<std::uint32_t>(16 * first_block));
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const auto a = static_cast<std::uint32_t>(fp8_channel(thread, 2 * i));
    const auto b = static_cast<std::uint32_t>(fp8_channel(thread, 2 * i + 1));
    pick_[i] = a | (a + 4) << 4 | b << 8 | (b + 4) << 12;
  }
}

/// Row of the tile that the thread has a part of in a pass.
template <typename T, int kSlabs>
__device__ __forceinline__ int HopperFp8Producer<T, kSlabs>::query_row(int pass) const {
  return warp_ * (kHopperRows / 4) + pass * kQueryRows + lane_ / kQueryLanes;
}

/// The tile's rows as codes, and what takes their scales back; several loads at once, and none
/// under a condition: behind the last row it is there once more, and behind the last channel the
/// first ones, which meet zeros in the keys.
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperFp8Producer<T, kSlabs>::convert_queries(const HopperTile& t,
                                                                              int slot) const {
  const AttentionArguments& a = call_.a;
  const int column = 16 * (lane_ % kQueryLanes);
  const int within = column < static_cast<int>(a.head_dim) ? column : 0;
#pragma unroll 1
  for (int first = 0; first < kHopperRows / (4 * kQueryRows); first += kQueriesAtOnce) {
    uint4 x[kQueriesAtOnce][2];
#pragma unroll
    for (int i = 0; i < kQueriesAtOnce; ++i) {
      const int row = min(t.first_row + query_row(first + i), t.rows - 1);
      const std::int64_t vector =
          static_cast<std::int64_t>(t.first_token + call_.query_of(row)) * a.num_heads +
          t.unit * call_.pack + call_.head_of(row);
      const auto from = reinterpret_cast<std::uint64_t>(static_cast<const T*>(a.q) +
                                                        vector * a.head_dim + within);
      x[i][0] = load_once_16(from);
      x[i][1] = load_once_16(from + 16);
    }
#pragma unroll
    for (int i = 0; i < kQueriesAtOnce; ++i) {
      convert_row(x[i], query_row(first + i), column, slot);
    }
  }
  fence_proxy_async_shared();
}

/// 16 channels of a row, with the lanes that have its others.
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperFp8Producer<T, kSlabs>::convert_row(const uint4 (&x)[2],
                                                                          int r, int column,
                                                                          int slot) const {
  const std::uint32_t words[8] = {x[0].x, x[0].y, x[0].z, x[0].w, x[1].x, x[1].y, x[1].z, x[1].w};
  // Magnitudes are ordered as their bits are, NaN last.
  int most = 0;
#pragma unroll
  for (const std::uint32_t word : words) {
    most = max(most, max(static_cast<int>(word & 0x7fffu), static_cast<int>(word >> 16 & 0x7fffu)));
  }
#pragma unroll
  for (int with = 1; with < kQueryLanes; with *= 2) {
    most = max(most, __shfl_xor_sync(0xffffffffu, most, with));
  }
  const Fp8RowScale scale =
      fp8_row_scale(__float_as_uint(low_to_float<T>(static_cast<std::uint32_t>(most))));
  const float times = __uint_as_float(scale.times);
  std::uint32_t codes[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::uint32_t low = words[2 * i];
    const std::uint32_t high = words[2 * i + 1];
    codes[i] = pack_codes(low_to_float<T>(low) * times, low_to_float<T>(low >> 16) * times,
                          low_to_float<T>(high) * times, low_to_float<T>(high >> 16) * times);
  }
  store_shared_16(shared_address(shared_.q[slot][r / kHopperGroupRows]) +
                      swizzle_128(static_cast<std::uint32_t>(r % kHopperGroupRows),
                                  static_cast<std::uint32_t>(column)),
                  make_uint4(codes[0], codes[1], codes[2], codes[3]));
  if (column == 0) shared_.query_scale[slot][r] = __uint_as_float(scale.back);
}

/// Draws the tile to come, in a place of its own.
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperFp8Producer<T, kSlabs>::draw(int index) const {
  HopperTile t;
  if (index < shared_.first_tile[call_.a.batch.batch]) t = this->tile_at(index);
  if (lane_ == 0) shared_.drawn = t;
}

/// Says what the drawn tile is, once the place of the one that had it is free.
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperFp8Producer<T, kSlabs>::announce(int turn_number) const {
  const int slot = ring_slot(turn_number, kHopperTileSlots);
  barrier_wait(&shared_.empty_tile[slot], ring_empty_parity(turn_number, kHopperTileSlots));
  if (lane_ == 0) {
    shared_.tile[slot] = shared_.drawn;
    barrier_arrive(&shared_.full_tile[slot]);
  }
  __syncwarp();
}

/// The lane's box of a step's keys, looked up before it is asked for.
template <typename T, int kSlabs>
__device__ __forceinline__ typename HopperFp8Producer<T, kSlabs>::Box
HopperFp8Producer<T, kSlabs>::keys_of(const HopperTile& t, int i) const {
  const CacheView& cache = call_.a.cache;
  Box box;
  box.boxes = hopper_pieces(t.keys, step_key(t, i), kKeys, call_.piece);
  if (lane_ >= box.boxes) return box;
  const PagePlace at =
      page_place(step_key(t, i) + lane_ * call_.piece, static_cast<int>(cache.page_size));
  box.slot = at.slot;
  box.page = static_cast<int>(cache.page_table[t.sequence * cache.table_stride + at.column]);
  return box;
}

/// The boxes of a step, one a lane.
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperFp8Producer<T, kSlabs>::load_keys(const CUtensorMap* map,
                                                                        const Box& box,
                                                                        int kv_head) {
  const int stage = ring_.slot;
  barrier_wait(&shared_.empty_k[stage], ring_.parity ^ 1);
  const int bytes = call_.piece * kSlabRowBytes;
  if (lane_ == 0) {
    barrier_arrive_bytes(&shared_.full_k[stage], static_cast<unsigned>(box.boxes * bytes));
  }
  __syncwarp();
  if (lane_ < box.boxes) {
    tensor_load_4d(&shared_.k[stage][lane_ * bytes], map, &shared_.full_k[stage], 0, box.slot,
                   kv_head, box.page);
  }
  __syncwarp();
}

/// Where the values of a group of 8 keys of step `i` begin, a lane a group. Behind the last key its
/// group is there once more.
template <typename T, int kSlabs>
__device__ __forceinline__ std::uint64_t HopperFp8Producer<T, kSlabs>::find(const HopperTile& t,
                                                                            int kv_head,
                                                                            int i) const {
  const CacheView& cache = call_.a.cache;
  const int group = step_key(t, i) + warp_ * kWarpKeys + lane_ % (kWarpKeys / 8) * 8;
  const int key = min(group, (t.keys - 1) / 8 * 8);
  const PagePlace at = page_place(key, static_cast<int>(cache.page_size));
  const std::uint32_t page = cache.page_table[t.sequence * cache.table_stride + at.column];
  return reinterpret_cast<std::uint64_t>(cache.v) +
         static_cast<std::uint64_t>(kv_head * cache.v_head_stride + page * cache.v_page_stride +
                                    at.slot * cache.v_token_stride);
}

/// The thread's channels of the first key of a half of one of its blocks.
template <typename T, int kSlabs>
__device__ __forceinline__ std::uint64_t HopperFp8Producer<T, kSlabs>::row_of(std::uint64_t rows,
                                                                              int block,
                                                                              int half) const {
  const int group = 2 * (kBlocks == 1 ? lane_ / kColumnLanes : block) + half;
  const auto low = static_cast<std::uint32_t>(
      __shfl_sync(0xffffffffu, static_cast<int>(static_cast<std::uint32_t>(rows)), group));
  const auto high = static_cast<std::uint32_t>(
      __shfl_sync(0xffffffffu, static_cast<int>(static_cast<std::uint32_t>(rows >> 32)), group));
  return (static_cast<std::uint64_t>(high) << 32 | low) + within_;
}

/// Zeros for the thread's codes of keys from `live` on, counted from the warp's first.
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperFp8Producer<T, kSlabs>::clear_tail(int live) {
#pragma unroll
  for (int i = 0; i < 16 * kBlocks; ++i) {
    const int key = kBlocks == 1 ? lane_ / kColumnLanes * 16 + i : i;
    if (key >= live) codes_[i] = 0;
  }
}

template <typename T, int kSlabs>
__device__ __forceinline__ void HopperFp8Producer<T, kSlabs>::load(std::uint64_t rows, int block) {
  const auto stride = static_cast<std::uint32_t>(call_.a.cache.v_token_stride);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::uint64_t from = row_of(rows, block, half);
#pragma unroll
    for (int r = 0; r < 8; ++r) codes_[16 * block + 8 * half + r] = load_once_4(from + r * stride);
  }
}

/// A block, four channels of 16 keys, into its place in a stage: 16 keys of four channels.
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperFp8Producer<T, kSlabs>::turn(std::uint32_t stage,
                                                                   int block) const {
  const std::uint32_t* const x = codes_ + 16 * block;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    std::uint32_t first[4];
    std::uint32_t second[4];
#pragma unroll
    for (int word = 0; word < 4; ++word) {
      const auto key = [&](int place) { return x[fp8_key(4 * word + place)]; };
      const std::uint32_t low = __byte_perm(key(0), key(1), pick_[i]);
      const std::uint32_t high = __byte_perm(key(2), key(3), pick_[i]);
      first[word] = __byte_perm(low, high, 0x5410);
      second[word] = __byte_perm(low, high, 0x7632);
    }
    const std::uint32_t beside = 16 * block;  // an even chunk's neighbour
    store_shared_16(stage + (place_[2 * i] ^ beside),
                    make_uint4(first[0], first[1], first[2], first[3]));
    store_shared_16(stage + (place_[2 * i + 1] ^ beside),
                    make_uint4(second[0], second[1], second[2], second[3]));
  }
}

template <typename T, int kSlabs>
__device__ __forceinline__ void HopperFp8Producer<T, kSlabs>::run(const CUtensorMap* map_k) {
  const int thread = static_cast<int>(threadIdx.x);
  if (warp_ == kDrawingWarp) {
    draw(static_cast<int>(blockIdx.x));
    announce(0);
  }
  for (int turn_number = 0;; ++turn_number) {
    const int slot = ring_slot(turn_number, kHopperTileSlots);
    barrier_wait(&shared_.full_tile[slot], ring_full_parity(turn_number, kHopperTileSlots));
    const HopperTile& t = shared_.tile[slot];  // stays until this thread has left it
    const int steps = t.steps;
    const int kv_head = this->kv_head_of(t);
    // The first codes are on their way while the queries are.
    if (steps > 0) {
      const std::uint64_t rows = find(t, kv_head, 0);
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) load(rows, block);
    }
    const bool ends = this->template tell<128>(t, slot, thread);
    if (!ends && thread == 127) {
      const CacheView& cache = call_.a.cache;
      const int at = cache.scales == CacheScales::kHead ? kv_head : 0;
      shared_.scales[slot] = cache.scales == CacheScales::kNone
                                 ? make_float2(1.0f, 1.0f)
                                 : make_float2(cache.k_scale[at], cache.v_scale[at]);
    }
    if (steps > 0) convert_queries(t, slot);
    barrier_arrive(&shared_.full_rows[slot]);
    __syncwarp();
    if (ends) return;
    if (warp_ == kDrawingWarp) {
      int drawn = 0;  // who draws the last leaves the counter as it was
      if (lane_ == 0) {
        drawn = static_cast<int>(atomicAdd(call_.counter, 1u));
        if (drawn == shared_.first_tile[call_.a.batch.batch] - 1) atomicExch(call_.counter, 0u);
      }
      draw(static_cast<int>(gridDim.x) + __shfl_sync(0xffffffffu, drawn, 0));
    }
    Box box;
    if (warp_ == kKeyWarp && steps > 0) box = keys_of(t, 0);
#pragma unroll 1
    for (int i = 0; i < steps; ++i) {
      const int stage = ring_.slot;
      const int next = min(i + 1, steps - 1);
      // What the page table answers is there when it is needed.
      const std::uint64_t rows = find(t, kv_head, next);
      if (warp_ == kKeyWarp) {
        load_keys(map_k, box, kv_head);
        box = keys_of(t, next);
      }
      barrier_wait(&shared_.empty_v[stage], ring_.parity ^ 1);
      if (i == 0) {  // the others have all their keys
        const int live = t.keys - step_key(t, 0) - warp_ * kWarpKeys;
        if (live < kWarpKeys) clear_tail(live);
      }
      const std::uint32_t to = shared_address(shared_.v[stage]);
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) turn(to, block);
      fence_proxy_async_shared();
      __syncwarp();
      if (lane_ == 0) barrier_arrive(&shared_.full_v[stage]);
      // If the tile has so many steps, the consumers have begun it: the place is free.
      if (warp_ == kDrawingWarp && i == min(Shared::kStages, steps - 1)) {
        announce(turn_number + 1);
      }
      __syncwarp();
      ring_.advance();
      if (i + 1 == steps) break;
        // All at once, when all have been stored: ptxas counts loads in few counters, and waits for
        // those of a block would be for the next block's too. And not under a condition, or they
        // would be waited for where its branches meet, to be moved to the registers of the others.
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) load(rows, block);
    }
    if (warp_ == kDrawingWarp && steps == 0) announce(turn_number + 1);
    barrier_arrive(&shared_.empty_tile[slot]);
    __syncwarp();
  }
}

}  // namespace attn::gpu
