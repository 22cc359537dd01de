// The producing warpgroup of the Hopper prefill kernel (attention_hopper.cuh): what its four warps
// do.
#pragma once

#include "gpu/kernels/attention_hopper_shared.cuh"
#include "gpu/kernels/visibility.cuh"

namespace attn::gpu {

/// What there is to do beside the tiles: nothing.
struct Nothing {
  __device__ __forceinline__ void operator()(const HopperTile&, int) const {}
};

/// The warps of the producing warpgroup.
template <typename T, int kSlabs, typename SharedMemory = HopperShared<T, kSlabs>>
class HopperProducer {
 public:
  using Shared = SharedMemory;
  static constexpr int kKeys = Shared::kKeys;

  __device__ HopperProducer(const HopperCall& call, Shared& shared)
      : call_(call), shared_(shared), lane_(static_cast<int>(threadIdx.x % 32)) {}

  /// `announced(tile, slot)` and `told(tile, slot)` are done for each tile, and for the end.
  template <typename Announced = Nothing>
  __device__ __forceinline__ void draw_tiles(const Announced& announced = {});
  template <typename Told = Nothing>
  __device__ __forceinline__ void tell_rows(const Told& told = {});
  __device__ __forceinline__ void load_keys_and_queries(const CUtensorMap* map_q,
                                                        const CUtensorMap* map_k);
  __device__ __forceinline__ void load_values(const CUtensorMap* map_v);
  __device__ __forceinline__ void tell_scales(const HopperTile& t, int slot) const;

 protected:
  __device__ __forceinline__ HopperTile tile_at(int index) const;
  __device__ __forceinline__ HopperTile next_tile(int turn) const;
  __device__ __forceinline__ int kv_head_of(const HopperTile& t) const {
    return t.unit * call_.pack * static_cast<int>(call_.a.num_kv_heads) /
           static_cast<int>(call_.a.num_heads);
  }
  /// Of a step: its boxes, and where the one of this lane lies.
  struct Box {
    int boxes = 0;
    int page = 0;
    int slot = 0;
  };
  __device__ __forceinline__ Box look_up(const HopperTile& t, int step_key) const;
  __device__ __forceinline__ void load_step(T (*stage)[Shared::kSlab], const CUtensorMap* map,
                                            std::uint64_t* barrier, int kv_head,
                                            const Box& box) const;
  __device__ __forceinline__ void load_queries(const CUtensorMap* map, const HopperTile& t,
                                               int turn) const;
  template <int kThreads>
  __device__ __forceinline__ bool tell(const HopperTile& t, int slot, int thread) const;
  __device__ __forceinline__ void clear_values(T (*stage)[Shared::kSlab], int live) const;

  const HopperCall& call_;
  Shared& shared_;
  int lane_;
};

template <typename T, int kSlabs, typename SharedMemory>
__device__ __forceinline__ HopperTile
HopperProducer<T, kSlabs, SharedMemory>::tile_at(int index) const {
  const AttentionArguments& a = call_.a;
  const HopperPlace place = hopper_place(shared_.first_tile, static_cast<int>(a.batch.batch),
                                         call_.units, call_.section, index);
  HopperTile t;
  t.sequence = shared_.order[place.rank];
  t.first_token = shared_.first_token[t.sequence];
  const int rows = shared_.first_token[t.sequence + 1] - t.first_token;
  t.keys = shared_.keys[t.sequence];
  const Sequence sequence{t.sequence, t.first_token, rows, t.keys};
  t.unit = place.unit;
  t.first_row = place.row_tile * kHopperRows;
  t.rows = rows * call_.pack;
  const int last_row = min(t.first_row + kHopperRows, t.rows) - 1;
  const KeyRange first =
      visible_keys(a, sequence.keys, position_of(a, sequence, call_.query_of(t.first_row)));
  const KeyRange last =
      visible_keys(a, sequence.keys, position_of(a, sequence, call_.query_of(last_row)));
  const HopperSteps steps = hopper_steps(first.begin, last.end, kKeys);
  t.last_step = steps.last;
  t.steps = steps.last - steps.first;
  return t;
}

/// The lane's box of a step, looked up before the step's stage is free: what the page table answers
/// is then there.
template <typename T, int kSlabs, typename SharedMemory>
__device__ __forceinline__ typename HopperProducer<T, kSlabs, SharedMemory>::Box
HopperProducer<T, kSlabs, SharedMemory>::look_up(const HopperTile& t, int step_key) const {
  const CacheView& cache = call_.a.cache;
  Box box;
  box.boxes = hopper_pieces(t.keys, step_key, kKeys, call_.piece) * kSlabs;
  if (lane_ >= box.boxes) return box;
  const int key = step_key + lane_ / kSlabs * call_.piece;
  const PagePlace at = page_place(key, static_cast<int>(cache.page_size));
  box.slot = at.slot;
  box.page = static_cast<int>(cache.page_table[t.sequence * cache.table_stride + at.column]);
  return box;
}

/// The boxes of a step, one a lane; `barrier` counts all of them.
template <typename T, int kSlabs, typename SharedMemory>
__device__ __forceinline__ void HopperProducer<T, kSlabs, SharedMemory>::load_step(
    T (*stage)[Shared::kSlab], const CUtensorMap* map, std::uint64_t* barrier, int kv_head,
    const Box& box) const {
  static_assert(kKeys / 8 * kSlabs <= 32, "a lane has one box");
  const int piece = call_.piece;
  if (lane_ == 0) {
    barrier_arrive_bytes(barrier, static_cast<unsigned>(box.boxes * piece * kSlabRowBytes));
  }
  __syncwarp();
  if (lane_ < box.boxes) {
    const int slab = lane_ % kSlabs;
    tensor_load_4d(&stage[slab][lane_ / kSlabs * piece * kSlabColumns], map, barrier,
                   slab * kSlabColumns, box.slot, kv_head, box.page);
  }
  __syncwarp();
}

/// The warpgroups' rows, once they need those of the tile before no more. A warpgroup without rows
/// gets none: what it multiplies instead does not matter.
template <typename T, int kSlabs, typename SharedMemory>
__device__ __forceinline__ void HopperProducer<T, kSlabs, SharedMemory>::load_queries(
    const CUtensorMap* map, const HopperTile& t, int turn) const {
  if (lane_ != 0) return;
#pragma unroll 1
  for (int g = 0; g < kHopperGroups; ++g) {
    const int row = t.first_row + g * kHopperGroupRows;
    const bool loads = t.steps > 0 && row < t.rows;
    barrier_wait(&shared_.empty_q[g], turn % 2 ^ 1);
    barrier_arrive_bytes(&shared_.full_q[g], loads ? sizeof(shared_.q[g]) : 0);
#pragma unroll 1
    for (int slab = 0; loads && slab < kSlabs; ++slab) {
      tensor_load_3d(shared_.q[g][slab], map, &shared_.full_q[g], slab * kSlabColumns,
                     t.unit * call_.pack, t.first_token + call_.query_of(row));
    }
  }
}

/// A tile is drawn when warp 0 begins the one before, no earlier: the blocks share out the last
/// ones.
template <typename T, int kSlabs, typename SharedMemory>
template <typename Announced>
__device__ __forceinline__ void HopperProducer<T, kSlabs, SharedMemory>::draw_tiles(
    const Announced& announced) {
  // Read where it is needed: registers are few here.
  const int& total = shared_.first_tile[call_.a.batch.batch];
  int index = static_cast<int>(blockIdx.x);
  for (int turn = 0;; ++turn) {
    HopperTile t;
    if (index < total) t = tile_at(index);
    const int slot = ring_slot(turn, kHopperTileSlots);
    barrier_wait(&shared_.empty_tile[slot], ring_empty_parity(turn, kHopperTileSlots));
    __syncwarp();  // a lane that came after the tile's end would wait for the wrong phase
    if (lane_ == 0) {
      shared_.tile[slot] = t;
      barrier_arrive(&shared_.full_tile[slot]);
    }
    announced(t, slot);
    if (index >= total) return;
    barrier_wait(&shared_.begun, turn % 2);
    // A number is drawn for each tile; who draws the last leaves the counter as it was.
    int drawn = 0;
    if (lane_ == 0) {
      drawn = static_cast<int>(atomicAdd(call_.counter, 1u));
      if (drawn == total - 1) atomicExch(call_.counter, 0u);
    }
    index = static_cast<int>(gridDim.x) + __shfl_sync(0xffffffffu, drawn, 0);
  }
}

/// What a tile's rows see and how its warpgroups walk: the share of one of kThreads threads. True:
/// there is no tile.
template <typename T, int kSlabs, typename SharedMemory>
template <int kThreads>
__device__ __forceinline__ bool HopperProducer<T, kSlabs, SharedMemory>::tell(const HopperTile& t,
                                                                              int slot,
                                                                              int thread) const {
  const AttentionArguments& a = call_.a;
  const bool ends = t.sequence < 0;
  const Sequence sequence{t.sequence, t.first_token, call_.query_of(t.rows), t.keys};
  const auto seen_by = [&](int row) {
    return visible_keys(a, sequence.keys, position_of(a, sequence, call_.query_of(row)));
  };
#pragma unroll 1
  for (int r = thread; !ends && r < kHopperRows; r += kThreads) {
    const KeyRange seen = seen_by(t.first_row + r);
    const bool sees = t.first_row + r < t.rows && seen.end > seen.begin;
    shared_.seen[slot][r] =
        make_int2(static_cast<int>(seen.begin), sees ? static_cast<int>(seen.end - seen.begin) : 0);
  }
  if (!ends && thread < kHopperGroups) {
    const int first_row = t.first_row + thread * kHopperGroupRows;
    const int last_row = min(first_row + kHopperGroupRows, t.rows) - 1;
    HopperWalk walk;  // no rows: nothing to hide
    walk.last_plain = t.steps;
    if (last_row >= first_row) {
      walk =
          hopper_walk(t.last_step, t.steps, seen_by(last_row).begin, seen_by(first_row).end, kKeys);
    }
    shared_.plain[slot][thread] = make_int2(walk.first_plain, walk.last_plain);
  }
  return ends;
}

/// What scales the tile's codes.
template <typename T, int kSlabs, typename SharedMemory>
__device__ __forceinline__ void HopperProducer<T, kSlabs, SharedMemory>::tell_scales(
    const HopperTile& t, int slot) const {
  const CacheView& cache = call_.a.cache;
  float2 scales = make_float2(1.0f, 1.0f);
  if (cache.scales != CacheScales::kNone) {
    const int at = cache.scales == CacheScales::kHead ? kv_head_of(t) : 0;
    scales = make_float2(cache.k_scale[at], cache.v_scale[at]);
  }
  shared_.scales[slot] = scales;
}

/// Of each tile, what its rows see and how its warpgroups walk, beside the loads that wait for the
/// tile alone.
template <typename T, int kSlabs, typename SharedMemory>
template <typename Told>
__device__ __forceinline__ void HopperProducer<T, kSlabs, SharedMemory>::tell_rows(
    const Told& told) {
  for (int turn = 0;; ++turn) {
    const int slot = ring_slot(turn, kHopperTileSlots);
    barrier_wait(&shared_.full_tile[slot], ring_full_parity(turn, kHopperTileSlots));
    const bool ends = tell<32>(shared_.tile[slot], slot, lane_);
    told(shared_.tile[slot], slot);
    barrier_arrive(&shared_.full_rows[slot]);
    barrier_arrive(&shared_.empty_tile[slot]);
    __syncwarp();
    if (ends) return;
  }
}

template <typename T, int kSlabs, typename SharedMemory>
__device__ __forceinline__ HopperTile
HopperProducer<T, kSlabs, SharedMemory>::next_tile(int turn) const {
  const int slot = ring_slot(turn, kHopperTileSlots);
  barrier_wait(&shared_.full_tile[slot], ring_full_parity(turn, kHopperTileSlots));
  const HopperTile t = shared_.tile[slot];
  barrier_arrive(&shared_.empty_tile[slot]);
  return t;
}

template <typename T, int kSlabs, typename SharedMemory>
__device__ __forceinline__ void HopperProducer<T, kSlabs, SharedMemory>::load_keys_and_queries(
    const CUtensorMap* map_q, const CUtensorMap* map_k) {
  int position = 0;  // steps loaded so far
  for (int turn = 0;; ++turn) {
    const HopperTile t = next_tile(turn);
    if (t.sequence < 0) return;
    if (lane_ == 0) barrier_arrive(&shared_.begun);
    const int kv_head = kv_head_of(t);
#pragma unroll 1
    for (int i = 0; i < t.steps; ++i, ++position) {
      const int stage = ring_slot(position, Shared::kStages);
      const Box box = look_up(t, (t.last_step - 1 - i) * kKeys);
      barrier_wait(&shared_.empty_k[stage], ring_empty_parity(position, Shared::kStages));
      load_step(shared_.k[stage], map_k, &shared_.full_k[stage], kv_head, box);
      // After the first keys, which need not wait for the tile before to leave its rows.
      if (i == 0) load_queries(map_q, t, turn);
      __syncwarp();
    }
    if (t.steps == 0) load_queries(map_q, t, turn);
    __syncwarp();
  }
}

/// Zeros over the values of slots from `live` on.
template <typename T, int kSlabs, typename SharedMemory>
__device__ __forceinline__ void HopperProducer<T, kSlabs, SharedMemory>::clear_values(
    T (*stage)[Shared::kSlab], int live) const {
  constexpr int kChunks = kSlabRowBytes / 16;
#pragma unroll 1
  for (int i = live * kChunks + lane_; i < kKeys * kChunks; i += 32) {
#pragma unroll
    for (int slab = 0; slab < kSlabs; ++slab) {
      reinterpret_cast<uint4*>(stage[slab])[i] = make_uint4(0, 0, 0, 0);
    }
  }
}

template <typename T, int kSlabs, typename SharedMemory>
__device__ __forceinline__ void HopperProducer<T, kSlabs, SharedMemory>::load_values(
    const CUtensorMap* map_v) {
  int position = 0;
  unsigned tails = 0;
  for (int turn = 0;; ++turn) {
    const HopperTile t = next_tile(turn);
    if (t.sequence < 0) return;
    const int kv_head = kv_head_of(t);
#pragma unroll 1
    for (int i = 0; i < t.steps; ++i, ++position) {
      const int stage = ring_slot(position, Shared::kStages);
      const int step_key = (t.last_step - 1 - i) * kKeys;
      const Box box = look_up(t, step_key);
      barrier_wait(&shared_.empty_v[stage], ring_empty_parity(position, Shared::kStages));
      if (t.keys - step_key >= kKeys) {
        load_step(shared_.v[stage], map_v, &shared_.full_v[stage], kv_head, box);
        continue;
      }
      load_step(shared_.v[stage], map_v, &shared_.tail, kv_head, box);
      barrier_wait(&shared_.tail, tails++ % 2);
      clear_values(shared_.v[stage], t.keys - step_key);
      fence_proxy_async_shared();
      __syncwarp();
      if (lane_ == 0) barrier_arrive(&shared_.full_v[stage]);
    }
  }
}

}  // namespace attn::gpu
