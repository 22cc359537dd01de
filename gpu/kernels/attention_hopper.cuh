// Prefill attention for compute capability 9.0a: wgmma on tiles that the copy engine (TMA) brings,
// one producer warpgroup and two consumers.
//
// A tile is 128 packed rows (hopper_work.h) of one sequence: each consumer
// warpgroup has 64 of them, and all multiply the same steps of keys, from the last that the tile
// sees to the first. Blocks stay and draw tiles by a counter. Of the producer warpgroup, warp 0
// loads keys and queries, warp 1 loads values, both issue a page's boxes from their lanes; warp 2
// draws the tiles and says what they are, warp 3 which keys each of their rows sees. A stage of
// keys (or values) counts its bytes in and its readers out, by mbarriers.
//
// In a warpgroup the scores of step i + 1 are issued before the outputs of step i, so that the
// softmax of one runs beside the products of the other; between warpgroups nothing is ordered, they
// drift apart by themselves. The queries of the next tile are loaded once the last scores are
// there; outputs leave through shared memory of their own.
//
// Values of slots behind a sequence's end may be anything, and 0 times NaN is NaN: warp 1 puts
// zeros over them before it hands such a step on. Keys there need nothing, their scores are masked.
//
// Budget for head_dim 128: 64 registers of outputs, 64 of scores and 32 of probabilities, of 232;
// 32 KB of q, 2 stages of 32 KB of keys and as much of values (hopper_stages), 32 KB of outputs.
#pragma once

#include "gpu/kernels/attention_hopper_launch.h"
#include "gpu/kernels/attention_mma.cuh"
#include "gpu/kernels/hopper_ptx.cuh"
#include "gpu/kernels/hopper_wgmma.cuh"
#include "gpu/kernels/hopper_work.h"

namespace attn::gpu {

/// What the drawing warp says about a tile.
struct HopperTile {
  int sequence = -1;  ///< -1: there are no more
  int unit = 0;
  int first_row = 0;    ///< packed, of the sequence
  int rows = 0;         ///< packed rows of the sequence, all tiles
  int first_token = 0;  ///< row of the batch at which the sequence begins
  int keys = 0;         ///< of the sequence
  int last_step = 0;    ///< behind the last
  int steps = 0;
};

template <typename T, int kSlabs>
struct HopperShared {
  static constexpr int kKeys = hopper_keys(kSlabs);
  static constexpr int kStages = hopper_stages(kSlabs);
  static constexpr int kOutSlabs = hopper_out_slabs(kSlabs);
  static constexpr int kSlab = kKeys * kSlabColumns;
  static constexpr int kQuerySlab = kHopperGroupRows * kSlabColumns;
  // In the swizzle of swizzle_128.
  T q[kHopperGroups][kSlabs][kQuerySlab];
  T k[kStages][kSlabs][kSlab];
  T v[kStages][kSlabs][kSlab];
  T out[4 * kHopperGroups][kOutSlabs][16 * kSlabColumns];  // of the consumers' warps
  std::uint64_t full_q[kHopperGroups], empty_q[kHopperGroups];
  std::uint64_t full_k[kStages], empty_k[kStages];
  std::uint64_t full_v[kStages], empty_v[kStages];
  std::uint64_t full_tile[kHopperTileSlots], empty_tile[kHopperTileSlots];
  std::uint64_t full_rows[kHopperTileSlots];  // what is said of the tile's rows
  std::uint64_t begun;                        // the newest tile, by warp 0
  std::uint64_t tail;                         // of values whose step is not handed on as it comes
  HopperTile tile[kHopperTileSlots];
  // Of a tile's rows: the first key that they see, and how many. Here and not in registers, which
  // the loop wants for itself.
  int2 seen[kHopperTileSlots][kHopperRows];
  // Of its warpgroups: first_plain and last_plain of HopperWalk.
  int2 plain[kHopperTileSlots][kHopperGroups];
  // The sequences, and the order of their tiles.
  int first_token[kHopperMostSequences + 1];
  int keys[kHopperMostSequences];
  int tiles[kHopperMostSequences];
  int order[kHopperMostSequences];  // sequence of a rank
  int first_tile[kHopperMostSequences + 1];
};
/// With room to begin at a multiple of 1024.
template <typename T, int kSlabs>
inline constexpr std::size_t kHopperSharedBytes = sizeof(HopperShared<T, kSlabs>) + 1024;

template <typename Shared>
__device__ __forceinline__ void init_barriers(Shared& shared) {
  for (int i = 0; i < kHopperGroups; ++i) {
    barrier_init(&shared.full_q[i], 1);
    barrier_init(&shared.empty_q[i], kHopperQueryReaders);
  }
  for (int i = 0; i < kHopperTileSlots; ++i) {
    barrier_init(&shared.full_tile[i], 1);
    barrier_init(&shared.full_rows[i], 32);
    barrier_init(&shared.empty_tile[i], 32 * kHopperTileReaders);
  }
  for (int i = 0; i < Shared::kStages; ++i) {
    barrier_init(&shared.full_k[i], 1);
    barrier_init(&shared.empty_k[i], kHopperReaders);
    barrier_init(&shared.full_v[i], 1);
    barrier_init(&shared.empty_v[i], kHopperReaders);
  }
  barrier_init(&shared.begun, 1);
  barrier_init(&shared.tail, 1);
  fence_barrier_init();
}

/// All threads: which tiles there are, in their order.
template <typename Shared>
__device__ __forceinline__ void order_tiles(Shared& shared, const HopperCall& call) {
  const int sequences = static_cast<int>(call.a.batch.batch);
  const int mine = kHopperThreads - 1 - static_cast<int>(threadIdx.x);  // the loads have to wait
  for (int s = mine; s < sequences; s += kHopperThreads) {
    const Sequence sequence = load_sequence(call.a.batch, s);
    shared.first_token[s] = static_cast<int>(sequence.first_row);
    if (s == sequences - 1) {
      shared.first_token[sequences] = static_cast<int>(sequence.first_row + sequence.rows);
    }
    shared.keys[s] = static_cast<int>(sequence.keys);
    shared.tiles[s] = call.units * hopper_row_tiles(static_cast<int>(sequence.rows) * call.pack);
  }
  __syncthreads();
  for (int s = mine; s < sequences; s += kHopperThreads) {
    shared.order[hopper_rank(shared.keys, sequences, s)] = s;
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    const int lane = static_cast<int>(threadIdx.x);
    int before = 0;
    if (lane == 0) shared.first_tile[0] = 0;
    for (int first = 0; first < sequences; first += 32) {
      const int rank = first + lane;
      int sum = rank < sequences ? shared.tiles[shared.order[rank]] : 0;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, sum, step);
        if (lane >= step) sum += other;
      }
      if (rank < sequences) shared.first_tile[rank + 1] = before + sum;
      before += __shfl_sync(0xffffffffu, sum, 31);
    }
  }
  __syncthreads();
}

/// The warps of the producing warpgroup.
template <typename T, int kSlabs>
class HopperProducer {
 public:
  using Shared = HopperShared<T, kSlabs>;
  static constexpr int kKeys = Shared::kKeys;

  __device__ HopperProducer(const HopperCall& call, Shared& shared)
      : call_(call), shared_(shared), lane_(static_cast<int>(threadIdx.x % 32)) {}

  __device__ __forceinline__ void draw_tiles();
  __device__ __forceinline__ void tell_rows();
  __device__ __forceinline__ void load_keys_and_queries(const CUtensorMap* map_q,
                                                        const CUtensorMap* map_k);
  __device__ __forceinline__ void load_values(const CUtensorMap* map_v);

 private:
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
  __device__ __forceinline__ void clear_values(T (*stage)[Shared::kSlab], int live) const;

  const HopperCall& call_;
  Shared& shared_;
  int lane_;
};

template <typename T, int kSlabs>
__device__ __forceinline__ HopperTile HopperProducer<T, kSlabs>::tile_at(int index) const {
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
template <typename T, int kSlabs>
__device__ __forceinline__ typename HopperProducer<T, kSlabs>::Box
HopperProducer<T, kSlabs>::look_up(const HopperTile& t, int step_key) const {
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
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperProducer<T, kSlabs>::load_step(T (*stage)[Shared::kSlab],
                                                                     const CUtensorMap* map,
                                                                     std::uint64_t* barrier,
                                                                     int kv_head,
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
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperProducer<T, kSlabs>::load_queries(const CUtensorMap* map,
                                                                        const HopperTile& t,
                                                                        int turn) const {
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
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperProducer<T, kSlabs>::draw_tiles() {
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

/// Of each tile, what its rows see and how its warpgroups walk, beside the loads that wait for the
/// tile alone.
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperProducer<T, kSlabs>::tell_rows() {
  const AttentionArguments& a = call_.a;
  for (int turn = 0;; ++turn) {
    const int slot = ring_slot(turn, kHopperTileSlots);
    barrier_wait(&shared_.full_tile[slot], ring_full_parity(turn, kHopperTileSlots));
    const HopperTile& t = shared_.tile[slot];
    const bool ends = t.sequence < 0;
    const Sequence sequence{t.sequence, t.first_token, call_.query_of(t.rows), t.keys};
    const auto seen_by = [&](int row) {
      return visible_keys(a, sequence.keys, position_of(a, sequence, call_.query_of(row)));
    };
#pragma unroll 1
    for (int r = lane_; !ends && r < kHopperRows; r += 32) {
      const KeyRange seen = seen_by(t.first_row + r);
      const bool sees = t.first_row + r < t.rows && seen.end > seen.begin;
      shared_.seen[slot][r] = make_int2(static_cast<int>(seen.begin),
                                        sees ? static_cast<int>(seen.end - seen.begin) : 0);
    }
    if (!ends && lane_ < kHopperGroups) {
      const int first_row = t.first_row + lane_ * kHopperGroupRows;
      const int last_row = min(first_row + kHopperGroupRows, t.rows) - 1;
      HopperWalk walk;  // no rows: nothing to hide
      walk.last_plain = t.steps;
      if (last_row >= first_row) {
        walk = hopper_walk(t.last_step, t.steps, seen_by(last_row).begin, seen_by(first_row).end,
                           kKeys);
      }
      shared_.plain[slot][lane_] = make_int2(walk.first_plain, walk.last_plain);
    }
    barrier_arrive(&shared_.full_rows[slot]);
    barrier_arrive(&shared_.empty_tile[slot]);
    __syncwarp();
    if (ends) return;
  }
}

template <typename T, int kSlabs>
__device__ __forceinline__ HopperTile HopperProducer<T, kSlabs>::next_tile(int turn) const {
  const int slot = ring_slot(turn, kHopperTileSlots);
  barrier_wait(&shared_.full_tile[slot], ring_full_parity(turn, kHopperTileSlots));
  const HopperTile t = shared_.tile[slot];
  barrier_arrive(&shared_.empty_tile[slot]);
  return t;
}

template <typename T, int kSlabs>
__device__ __forceinline__ void HopperProducer<T, kSlabs>::load_keys_and_queries(
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
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperProducer<T, kSlabs>::clear_values(T (*stage)[Shared::kSlab],
                                                                        int live) const {
  constexpr int kChunks = kSlabRowBytes / 16;
#pragma unroll 1
  for (int i = live * kChunks + lane_; i < kKeys * kChunks; i += 32) {
#pragma unroll
    for (int slab = 0; slab < kSlabs; ++slab) {
      reinterpret_cast<uint4*>(stage[slab])[i] = make_uint4(0, 0, 0, 0);
    }
  }
}

template <typename T, int kSlabs>
__device__ __forceinline__ void HopperProducer<T, kSlabs>::load_values(const CUtensorMap* map_v) {
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

/// A warpgroup with its 64 rows of a tile.
template <typename T, int kSlabs>
class HopperConsumer {
 public:
  using Shared = HopperShared<T, kSlabs>;
  static constexpr int kKeys = Shared::kKeys;
  static constexpr int kScores = kKeys / 2;                   // registers of a thread
  static constexpr int kOutputs = kSlabs * kSlabColumns / 2;  // likewise

  __device__ HopperConsumer(const HopperCall& call, Shared& shared)
      : call_(call),
        shared_(shared),
        group_(static_cast<int>(threadIdx.x) / 128 - 1),
        lane_(static_cast<int>(threadIdx.x % 32)) {}

  __device__ __forceinline__ void run();

 private:
  __device__ __forceinline__ bool attend(int turn);
  __device__ __forceinline__ void compute_scores(float (&s)[kScores], int stage) const;
  __device__ __forceinline__ void add_values(float (&o)[kOutputs],
                                             const std::uint32_t (&p)[kScores / 2],
                                             int stage) const;
  __device__ __forceinline__ void hide(float (&s)[kScores], int slot, int step_key) const;
  __device__ __forceinline__ void online_softmax_of(float (&s)[kScores], float (&correction)[2]);
  __device__ __forceinline__ void write(const HopperTile& t, float (&o)[kOutputs]);
  /// Row of the tile of accumulators 2 h, 2 h + 1.
  __device__ __forceinline__ int row_of(int h) const {
    return group_ * kHopperGroupRows + accumulator_row(static_cast<int>(threadIdx.x), 2 * h);
  }
  __device__ __forceinline__ std::int64_t vector_of(const HopperTile& t, int row) const {
    return static_cast<std::int64_t>(t.first_token + call_.query_of(row)) * call_.a.num_heads +
           t.unit * call_.pack + call_.head_of(row);
  }
  /// Wide rows: descriptors would be made before the loop and fill its registers.
  __device__ __forceinline__ static std::uint64_t here(std::uint64_t descriptor) {
    return kSlabs > 2 ? hoist_none(descriptor) : descriptor;
  }
  __device__ __forceinline__ void release(std::uint64_t* barrier) const {
    if (lane_ == 0) barrier_arrive(barrier);
  }

  const HopperCall& call_;
  Shared& shared_;
  int group_;
  int lane_;
  // Of the next keys and values.
  RingPlace<Shared::kStages> k_;
  RingPlace<Shared::kStages> v_;
  ScoreUnits units_;
  // Of the tile, of this thread's two rows.
  float max_[2];
  float sum_[2];
};

template <typename T, int kSlabs>
__device__ __forceinline__ void HopperConsumer<T, kSlabs>::compute_scores(float (&s)[kScores],
                                                                          int stage) const {
  // Descriptors of a call are a few 16-byte units apart.
  const std::uint64_t q = here(slab_descriptor(shared_address(shared_.q[group_])));
  const std::uint64_t k = here(slab_descriptor(shared_address(shared_.k[stage])));
  pin_registers(s);
  wgmma_fence();
#pragma unroll
  for (int i = 0; i < kSlabs * 4; ++i) {
    const int slab = i / 4;
    wgmma_scores<T, kKeys>(
        s, descriptor_after(q, (slab * Shared::kQuerySlab * 2 + i % 4 * 32) / 16),
        descriptor_after(k, (slab * Shared::kSlab * 2 + i % 4 * 32) / 16), i > 0 ? 1 : 0);
  }
  wgmma_commit();
}

template <typename T, int kSlabs>
__device__ __forceinline__ void HopperConsumer<T, kSlabs>::add_values(
    float (&o)[kOutputs], const std::uint32_t (&p)[kScores / 2], int stage) const {
  const std::uint64_t v =
      here(slab_descriptor_transposed(shared_address(shared_.v[stage]), Shared::kSlab * 2));
  pin_registers(o);
  wgmma_fence();
#pragma unroll
  for (int i = 0; i < kKeys / 16; ++i) {
    wgmma_values<T, kSlabs * kSlabColumns>(o, p + 4 * i, descriptor_after(v, 2048 / 16 * i));
  }
  wgmma_commit();
}

/// Soft-cap, and what the thread's rows do not see.
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperConsumer<T, kSlabs>::hide(float (&s)[kScores], int slot,
                                                                int step_key) const {
  if (units_.transforms) {
#pragma unroll
    for (int i = 0; i < kScores; ++i) s[i] = transform_score(call_.a, s[i], nullptr, 0);
  }
  const int thread = static_cast<int>(threadIdx.x);
  const int2 seen[2] = {shared_.seen[slot][row_of(0)], shared_.seen[slot][row_of(1)]};
  const int from[2] = {step_key - seen[0].x, step_key - seen[1].x};
#pragma unroll
  for (int i = 0; i < kScores; ++i) {
    const int h = i / 2 % 2;
    if (hopper_hidden(from[h], accumulator_column(thread, i), seen[h].y)) s[i] = -INFINITY;
  }
}

/// Scores become probabilities; `correction` is what earlier sums and outputs are multiplied by.
/// Sums stay per thread until the end.
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperConsumer<T, kSlabs>::online_softmax_of(
    float (&s)[kScores], float (&correction)[2]) {
  const float scale_log2 = units_.scale_log2;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float part[4] = {max_[h], -INFINITY, -INFINITY, -INFINITY};  // so that none waits for another
#pragma unroll
    for (int i = 0; i < kScores / 2; ++i) {
      part[i % 4] = fmaxf(part[i % 4], s[i / 2 * 4 + 2 * h + i % 2]);
    }
    float m = fmaxf(fmaxf(part[0], part[1]), fmaxf(part[2], part[3]));
    m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 1));
    m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 2));
    const float shift = softmax_shift(m, scale_log2, INFINITY);
    correction[h] = exp2_approximate(fmaf(max_[h], scale_log2, -shift));
    max_[h] = m;
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < kScores / 2; ++i) {
      float& x = s[i / 2 * 4 + 2 * h + i % 2];
      x = exp2_approximate(fmaf(x, scale_log2, -shift));
      total += x;
    }
    sum_[h] = fmaf(sum_[h], correction[h], total);
  }
}

template <typename T, int kSlabs>
__device__ __forceinline__ void HopperConsumer<T, kSlabs>::write(const HopperTile& t,
                                                                 float (&o)[kOutputs]) {
  const AttentionArguments& a = call_.a;
  float factor[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    sum_[h] += __shfl_xor_sync(0xffffffffu, sum_[h], 1);
    sum_[h] += __shfl_xor_sync(0xffffffffu, sum_[h], 2);
    const int row = t.first_row + row_of(h);
    const float max_log2 = max_[h] == -INFINITY ? -INFINITY : max_[h] * units_.scale_log2;
    const float* const sink =
        a.sinks != nullptr ? a.sinks + t.unit * call_.pack + call_.head_of(row) : nullptr;
    const RowEnd end = end_row(max_log2, sum_[h], sink);
    factor[h] = end.factor;
    if (row < t.rows && lane_ % 4 == 0) a.lse[vector_of(t, row)] = end.lse;
  }
  constexpr int kOutSlabs = Shared::kOutSlabs;
  const int thread =
      hoist_none(static_cast<int>(threadIdx.x));  // or addresses fill the loop's registers
  const int warp = thread / 32 - 4;
  const int first_row = t.first_row + 16 * warp;
  const int columns = static_cast<int>(a.head_dim_v);
  const std::uint32_t out = shared_address(shared_.out[warp]);
#pragma unroll
  for (int first = 0; first < kSlabs * 4; first += kOutSlabs * 4) {
    if (first > 0) __syncwarp();  // the slabs before have left
#pragma unroll
    for (int i = first; i < first + kOutSlabs * 4; ++i) {
      const float* const x = o + 8 * i;
      store_matrix_x4(out + (i - first) / 4 * 2048 + output_store_byte(thread, i),
                      pack2<T>(x[0] * factor[0], x[1] * factor[0]),
                      pack2<T>(x[2] * factor[1], x[3] * factor[1]),
                      pack2<T>(x[4] * factor[0], x[5] * factor[0]),
                      pack2<T>(x[6] * factor[1], x[7] * factor[1]));
    }
    __syncwarp();
#pragma unroll
    for (int i = first; i < first + kOutSlabs * 4; ++i) {  // four rows of a slab
      const int r = output_row(thread, i);
      const int row = first_row + r;
      const int column = i / 4 * kSlabColumns + output_chunk(thread) * 8;
      const uint4 x = *reinterpret_cast<const uint4*>(
          reinterpret_cast<const unsigned char*>(shared_.out[warp][(i - first) / 4]) +
          swizzle_128(r, output_chunk(thread) * 16));
      if (row >= t.rows || column >= columns) continue;
      *reinterpret_cast<uint4*>(static_cast<T*>(a.out) + vector_of(t, row) * columns + column) = x;
    }
  }
  __syncwarp();
}

/// False: there was no tile left.
template <typename T, int kSlabs>
__device__ __forceinline__ bool HopperConsumer<T, kSlabs>::attend(int turn) {
  const int slot = ring_slot(turn, kHopperTileSlots);
  barrier_wait(&shared_.full_rows[slot], ring_full_parity(turn, kHopperTileSlots));
  const HopperTile& t = shared_.tile[slot];  // stays until this warp has left it
  // Through shuffles, so that the compiler knows a warp to agree on its branches.
  const auto agreed = [](int x) { return __shfl_sync(0xffffffffu, x, 0); };
  if (agreed(t.sequence) < 0) return false;
  const int steps = agreed(t.steps);
  const int last_step = agreed(t.last_step);
  // With a soft-cap each score is changed on its way.
  const int2 walk = units_.transforms ? make_int2(steps, steps) : shared_.plain[slot][group_];
  const int first_plain = agreed(walk.x);
  const int last_plain = agreed(walk.y);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    max_[h] = -INFINITY;
    sum_[h] = 0.0f;
  }
  float o[kOutputs];
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) o[i] = 0.0f;

  barrier_wait(&shared_.full_q[group_], turn % 2);
  if (steps == 0) {
    __syncwarp();  // or a lane that came late would wait for the phase after
    release(&shared_.empty_q[group_]);
  }
  if (steps > 0) {
    float s[kScores];
    std::uint32_t p[kScores / 2];
    float correction[2] = {1.0f, 1.0f};
    const int last = steps - 1;
    const auto key_of = [&](int i) { return (last_step - 1 - i) * kKeys; };
    const auto to_fragments = [&] {
#pragma unroll
      for (int i = 0; i < kScores / 2; ++i) p[i] = pack2<T>(s[2 * i], s[2 * i + 1]);
    };
    const auto await_keys = [&](int i) {
      if (i <= last) barrier_wait(&shared_.full_k[k_.slot], k_.parity);
    };
    const auto release_keys = [&](int i) {
      release(&shared_.empty_k[k_.slot]);
      k_.advance();
      if (i == last) release(&shared_.empty_q[group_]);
    };
    const auto release_values = [&] {
      release(&shared_.empty_v[v_.slot]);
      v_.advance();
    };
    const auto rescale = [&] {
      // Later steps seldom raise a maximum; what is not multiplied costs no power either.
      if (__all_sync(0xffffffffu, correction[0] == 1.0f && correction[1] == 1.0f)) return;
#pragma unroll
      for (int j = 0; j < kOutputs; ++j) o[j] *= correction[j / 2 % 2];
    };
    await_keys(0);
    compute_scores(s, k_.slot);
    wgmma_wait<0>();
    pin_registers(s);
    release_keys(0);
    hide(s, slot, key_of(0));
    online_softmax_of(s, correction);
    to_fragments();
    await_keys(1);
    const auto step = [&](int i, auto plain) {
      compute_scores(s, k_.slot);
      rescale();
      barrier_wait(&shared_.full_v[v_.slot], v_.parity);
      add_values(o, p, v_.slot);
      wgmma_wait<1>();
      pin_registers(s);
      release_keys(i);
      if constexpr (!plain.value) hide(s, slot, key_of(i));
      online_softmax_of(s, correction);
      // Here, though only the next step needs them: without a branch between the softmax and the
      // wait for the values, ptxas moves that wait in front of it, and nothing runs beside them.
      await_keys(i + 1);
      wgmma_wait<0>();
      pin_registers(o);
      release_values();
      to_fragments();
    };
    // Steps at a mask's edges have a loop of their own: before those that every row sees whole, and
    // after.
    int i = 1;
#pragma unroll 1
    for (int part = 0; part < 2; ++part) {
      const int masked_end = part == 0 ? first_plain : steps;
#pragma unroll 1
      for (; i < masked_end; ++i) step(i, std::false_type{});
      const int plain_end = part == 0 ? last_plain : 0;
#pragma unroll 1
      for (; i < plain_end; ++i) step(i, std::true_type{});
    }
    rescale();
    barrier_wait(&shared_.full_v[v_.slot], v_.parity);
    add_values(o, p, v_.slot);
    wgmma_wait<0>();
    pin_registers(o);
    release_values();
  }
  write(t, o);
  barrier_arrive(&shared_.empty_tile[slot]);
  return true;
}

template <typename T, int kSlabs>
__device__ __forceinline__ void HopperConsumer<T, kSlabs>::run() {
  units_ = score_units(call_.a);
  for (int turn = 0; attend(turn); ++turn) {
  }
}

/// grid: blocks that stay.
template <typename T, int kSlabs>
__global__ void __launch_bounds__(kHopperThreads, 1)
    attention_hopper_kernel(const __grid_constant__ CUtensorMap map_q,
                            const __grid_constant__ CUtensorMap map_k,
                            const __grid_constant__ CUtensorMap map_v,
                            const __grid_constant__ HopperCall call) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Shared = HopperShared<T, kSlabs>;
  extern __shared__ unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared*>(memory + (1024 - shared_address(memory) % 1024) % 1024);
  if (threadIdx.x == 0) {
    prefetch_tensor_map(&map_q);
    prefetch_tensor_map(&map_k);
    prefetch_tensor_map(&map_v);
    init_barriers(shared);
  }
  allow_dependent_launch();
  wait_for_previous_grid();
  // The two warps that ask the copy engine; others read the lengths meanwhile.
  if (threadIdx.x < 64) fence_proxy_async();
  order_tiles(shared, call);
  if (threadIdx.x < 128) {
    drop_registers<kHopperProducerRegisters>();
    HopperProducer<T, kSlabs> producer(call, shared);
    if (threadIdx.x < 32) {
      producer.load_keys_and_queries(&map_q, &map_k);
    } else if (threadIdx.x < 64) {
      producer.load_values(&map_v);
    } else if (threadIdx.x < 96) {
      producer.draw_tiles();
    } else {
      producer.tell_rows();
    }
  } else {
    raise_registers<kHopperConsumerRegisters>();
    HopperConsumer<T, kSlabs>(call, shared).run();
  }
#endif
}

}  // namespace attn::gpu
