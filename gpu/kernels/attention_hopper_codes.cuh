// Prefill attention for compute capability 9.0a from a cache of e4m3 codes: the consumers, tiles,
// steps and slabs of attention_hopper.cuh, and another producing warpgroup.
//
// Its four warps bring the codes themselves, by ordinary loads of 16 a thread, and widen them into
// the slabs that wgmma reads: keys to the type of q, values to float16, both exactly. What is
// multiplied is codes; the scale of a head's keys goes into the exponents and that of its values
// into the outputs, so they are numbers of the tensor or the head.
//
// A thread holds half a step, its share of the keys or of the values, in registers. As soon as it
// has widened 16 codes it loads the 16 of the same place of the half to come, which so have the
// time of half a step to arrive: no staging in shared memory, which wgmma reads most of the time.
// Between two tiles it holds nothing; the ring then has two steps for the consumers to go on with.
// The copy engine brings only q.
//
// Each warp fills its own rows of a stage and arrives for them: a fence of each thread, so that
// wgmma sees its stores, then one arrival of the warp. One warp draws the tile to come while all
// widen this one's: once the ring has shown that the consumers have left the tile before, whose
// place it takes. Another asks for the queries.
//
// Keys of slots behind a sequence's end need nothing, their scores are hidden; over the values
// there each thread stores zeros. Columns behind head_dim are zeros in q: keys have column 0 there
// once more, which is a number where the row's others are.
#pragma once

#include "gpu/kernels/attention_cache.cuh"
#include "gpu/kernels/attention_hopper_consumer.cuh"
#include "gpu/kernels/attention_hopper_producer.cuh"

namespace attn::gpu {

/// The producing warpgroup where it widens codes. All threads of its warps.
template <typename T, int kSlabs>
class HopperWidener : private HopperProducer<T, kSlabs, HopperCodedShared<T, kSlabs>> {
 public:
  using Shared = HopperCodedShared<T, kSlabs>;
  using Producer = HopperProducer<T, kSlabs, Shared>;
  static constexpr int kKeys = Shared::kKeys;

  __device__ HopperWidener(const HopperCall& call, Shared& shared);
  __device__ __forceinline__ void run(const CUtensorMap* map_q);

 private:
  using Producer::call_;
  using Producer::lane_;
  using Producer::shared_;

  static constexpr int kRows = hopper_code_rows(kSlabs);
  static constexpr int kPasses = hopper_code_passes(kSlabs);
  static constexpr int kLoads = hopper_code_loads(kSlabs);
  static constexpr int kPairs = kLoads / kPasses;  // loads of a row
  static constexpr int kQueryWarp = 0;
  static constexpr int kDrawingWarp = 1;

  __device__ __forceinline__ void draw(int index);
  __device__ __forceinline__ void draw_next();
  __device__ __forceinline__ void announce(int turn);
  /// A number that nothing may be made of ahead of its use: registers hold codes.
  __device__ __forceinline__ static int late(int x) {
    asm volatile("" : "+r"(x));
    return x;
  }
  __device__ __forceinline__ int page_size() const {
    return late(static_cast<int>(call_.a.cache.page_size));
  }
  /// First key of pass `lane` of step i, in the warp's rows. Passes behind the sequence's end bring
  /// its last rows once more: a condition on a load makes ptxas wait for what it has loaded.
  __device__ __forceinline__ int pass_key(const HopperTile& t, int i) const {
    return min(step_key(t, i) + (lane_ * 4 + warp_) * kRows, (t.keys - 1) / kRows * kRows);
  }
  __device__ __forceinline__ void begin_head(int kv_head) const;
  __device__ __forceinline__ std::uint32_t look_up(const HopperTile& t, int i) const;
  __device__ __forceinline__ void find(const HopperTile& t, int i, std::uint32_t page) const;
  /// Address of the first row of load i's pass, of the warp's keys or values.
  template <bool kValues>
  __device__ __forceinline__ std::uint64_t row_of(int i) const {
    return shared_.rows[warp_][i % kPasses][kValues ? 1 : 0];
  }
  /// From there to the codes that this thread loads. Registers have room for one of either.
  template <bool kValues>
  __device__ __forceinline__ std::uint32_t within(int i) const {
    if (kPairs == 1) return kValues ? value_within_ : key_within_;
    return shared_.within[kValues ? 1 : 0][i / kPasses][late(static_cast<int>(threadIdx.x))];
  }
  template <bool kValues>
  __device__ __forceinline__ void load(int i);
  template <typename E, bool kThenValues>
  __device__ __forceinline__ void widen(T (*stage)[Shared::kSlab]);
  __device__ __forceinline__ void clear(T (*stage)[Shared::kSlab], int live) const;
  __device__ __forceinline__ void hand_on(std::uint64_t* full) const;
  __device__ __forceinline__ static int step_key(const HopperTile& t, int i) {
    return (t.last_step - 1 - i) * kKeys;
  }
  /// Bytes from the place of the thread's first codes in a stage to that of load `i`.
  __device__ __forceinline__ static constexpr std::uint32_t bytes_to(int i) {
    return static_cast<std::uint32_t>(i / kPasses * hopper_code_span(kSlabs) * Shared::kSlab * 2 +
                                      i % kPasses * 4 * kRows * 128);
  }

  int warp_;
  uint4 codes_[kLoads];
  // Of the thread's first codes, from the start of a stage.
  std::uint32_t place_;
  // Bytes from the first row of a pass to the codes that the thread loads.
  std::uint32_t key_within_ = 0;
  std::uint32_t value_within_ = 0;
  RingPlace<Shared::kStages> ring_;
};

template <typename T, int kSlabs>
__device__ HopperWidener<T, kSlabs>::HopperWidener(const HopperCall& call, Shared& shared)
    : Producer(call, shared), warp_(static_cast<int>(threadIdx.x) / 32) {
  const AttentionArguments& a = call.a;
  const HopperCodePlace at = hopper_code_place(kSlabs, static_cast<int>(threadIdx.x), 0);
  place_ =
      static_cast<std::uint32_t>(at.slab * Shared::kSlab * 2) +
      swizzle_128(static_cast<std::uint32_t>(at.row), static_cast<std::uint32_t>(at.chunk * 32));
  const auto row = static_cast<std::uint32_t>(at.row % kRows);
#pragma unroll
  for (int pair = 0; pair < kPairs; ++pair) {
    const int column =
        hopper_code_place(kSlabs, static_cast<int>(threadIdx.x), pair * kPasses).slab *
            kSlabColumns +
        at.chunk * 16;
    const auto within = [&](std::int64_t stride, std::int64_t dim) {
      return row * static_cast<std::uint32_t>(stride) +
             static_cast<std::uint32_t>(column < static_cast<int>(dim) ? column : 0);
    };
    const std::uint32_t of_keys = within(a.cache.k_token_stride, a.head_dim);
    const std::uint32_t of_values = within(a.cache.v_token_stride, a.head_dim_v);
    if (kPairs == 1) {
      key_within_ = of_keys;
      value_within_ = of_values;
    } else {
      shared_.within[0][pair][threadIdx.x] = of_keys;
      shared_.within[1][pair][threadIdx.x] = of_values;
    }
  }
}

/// Draws the tile to come, in a place of its own. Who draws the last leaves the counter as it was.
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperWidener<T, kSlabs>::draw(int index) {
  HopperTile t;
  if (index < shared_.first_tile[call_.a.batch.batch]) t = this->tile_at(index);
  if (lane_ == 0) shared_.drawn = t;
}
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperWidener<T, kSlabs>::draw_next() {
  int drawn = 0;
  if (lane_ == 0) {
    drawn = static_cast<int>(atomicAdd(call_.counter, 1u));
    if (drawn == shared_.first_tile[call_.a.batch.batch] - 1) atomicExch(call_.counter, 0u);
  }
  draw(static_cast<int>(gridDim.x) + __shfl_sync(0xffffffffu, drawn, 0));
}

/// Says what the drawn tile is, once the place of the one that had it is free.
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperWidener<T, kSlabs>::announce(int turn) {
  const int slot = ring_slot(turn, kHopperTileSlots);
  barrier_wait(&shared_.empty_tile[slot], ring_empty_parity(turn, kHopperTileSlots));
  if (lane_ == 0) {
    shared_.tile[slot] = shared_.drawn;
    barrier_arrive(&shared_.full_tile[slot]);
  }
  __syncwarp();
}

/// Where the keys and values of a kv head begin, for the warp: not in registers, which hold codes.
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperWidener<T, kSlabs>::begin_head(int kv_head) const {
  const CacheView& cache = call_.a.cache;
  if (lane_ == 0) {
    shared_.heads[warp_][0] = reinterpret_cast<std::uint64_t>(cache.k) +
                              static_cast<std::uint64_t>(kv_head * cache.k_head_stride);
    shared_.heads[warp_][1] = reinterpret_cast<std::uint64_t>(cache.v) +
                              static_cast<std::uint64_t>(kv_head * cache.v_head_stride);
  }
  __syncwarp();
}

/// The page of a lane's pass, before addresses are needed: the page table has answered then.
template <typename T, int kSlabs>
__device__ __forceinline__ std::uint32_t HopperWidener<T, kSlabs>::look_up(const HopperTile& t,
                                                                           int i) const {
  const CacheView& cache = call_.a.cache;
  if (lane_ >= kPasses) return 0;
  const int column = page_place(pass_key(t, i), page_size()).column;
  return cache.page_table[t.sequence * cache.table_stride + column];
}

/// Into shared memory: registers hold codes.
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperWidener<T, kSlabs>::find(const HopperTile& t, int i,
                                                               std::uint32_t page) const {
  const CacheView& cache = call_.a.cache;
  __syncwarp();  // all lanes have read those of the step before
  if (lane_ < kPasses) {
    const int slot = page_place(pass_key(t, i), page_size()).slot;
    auto& rows = shared_.rows[warp_][lane_];
    rows[0] = shared_.heads[warp_][0] +
              static_cast<std::uint64_t>(page * cache.k_page_stride + slot * cache.k_token_stride);
    rows[1] = shared_.heads[warp_][1] +
              static_cast<std::uint64_t>(page * cache.v_page_stride + slot * cache.v_token_stride);
  }
  __syncwarp();
}

template <typename T, int kSlabs>
template <bool kValues>
__device__ __forceinline__ void HopperWidener<T, kSlabs>::load(int i) {
  codes_[i] = load_once_16(row_of<kValues>(i) + within<kValues>(i));
}

/// The half of a step that the thread holds into a stage, and in its place the half to come, keys
/// or values. Codes are loaded where they were widened, one by one: what parts warps keeps ptxas
/// from putting all loads behind all stores.
template <typename T, int kSlabs>
template <typename E, bool kThenValues>
__device__ __forceinline__ void HopperWidener<T, kSlabs>::widen(T (*stage)[Shared::kSlab]) {
  const std::uint32_t first = shared_address(stage) + place_;
  const std::uint32_t second = first ^ 16;  // the next chunk of the row: an even one lies before
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
    const uint4 x = codes_[i];
    const auto store = [&](std::uint32_t to, std::uint32_t low, std::uint32_t high) {
      const uint2 a = widen_codes<E>(low);
      const uint2 b = widen_codes<E>(high);
      store_shared_16(to, make_uint4(a.x, a.y, b.x, b.y));
    };
    store(first + bytes_to(i), x.x, x.y);
    store(second + bytes_to(i), x.z, x.w);
    load<kThenValues>(i);
    __syncwarp();
  }
}

/// Zeros over the thread's values of rows from `live` on.
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperWidener<T, kSlabs>::clear(T (*stage)[Shared::kSlab],
                                                                int live) const {
  const std::uint32_t first = shared_address(stage) + place_;
#pragma unroll 1
  for (int i = 0; i < kLoads; ++i) {
    if (hopper_code_place(kSlabs, static_cast<int>(threadIdx.x), i).row < live) continue;
    store_shared_16(first + bytes_to(i), make_uint4(0, 0, 0, 0));
    store_shared_16((first ^ 16) + bytes_to(i), make_uint4(0, 0, 0, 0));
  }
}

/// The warp's rows of a stage are there.
template <typename T, int kSlabs>
__device__ __forceinline__ void HopperWidener<T, kSlabs>::hand_on(std::uint64_t* full) const {
  fence_proxy_async_shared();
  __syncwarp();
  if (lane_ == 0) barrier_arrive(full);
}

template <typename T, int kSlabs>
__device__ __forceinline__ void HopperWidener<T, kSlabs>::run(const CUtensorMap* map_q) {
  if (warp_ == kDrawingWarp) {
    draw(static_cast<int>(blockIdx.x));
    announce(0);
  }
  for (int turn = 0;; ++turn) {
    const int slot = ring_slot(turn, kHopperTileSlots);
    barrier_wait(&shared_.full_tile[slot], ring_full_parity(turn, kHopperTileSlots));
    const HopperTile& t = shared_.tile[slot];  // stays until this thread has left it
    const int thread = static_cast<int>(threadIdx.x);
    const bool ends = this->template tell<128>(t, slot, thread);
    if (!ends && thread == 127) this->tell_scales(t, slot);
    barrier_arrive(&shared_.full_rows[slot]);
    __syncwarp();
    if (ends) return;
    const int steps = t.steps;
    if (warp_ == kDrawingWarp) draw_next();
    begin_head(this->kv_head_of(t));
    if (steps > 0) {
      find(t, 0, look_up(t, 0));
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        load<false>(i);
      }
    }
    // The tile before has left its rows about when it leaves the stage of the first keys.
    if (warp_ == kQueryWarp) this->load_queries(map_q, t, turn);
    __syncwarp();
#pragma unroll 1
    for (int i = 0; i < steps; ++i) {
      const int stage = ring_.slot;
      const bool more = i + 1 < steps;
      const std::uint32_t to_come = look_up(t, more ? i + 1 : i);
      barrier_wait(&shared_.empty_k[stage], ring_.parity ^ 1);
      widen<T, true>(shared_.k[stage]);
      hand_on(&shared_.full_k[stage]);
      // If the tile has so many steps, the consumers have begun it: the place is free.
      if (warp_ == kDrawingWarp && i == min(Shared::kStages, steps - 1)) announce(turn + 1);
      __syncwarp();
      find(t, more ? i + 1 : i, to_come);
      barrier_wait(&shared_.empty_v[stage], ring_.parity ^ 1);
      widen<Half, false>(shared_.v[stage]);
      if (const int live = t.keys - step_key(t, i); live < kKeys) clear(shared_.v[stage], live);
      hand_on(&shared_.full_v[stage]);
      ring_.advance();
    }
    if (warp_ == kDrawingWarp && steps == 0) announce(turn + 1);
    barrier_arrive(&shared_.empty_tile[slot]);
    __syncwarp();
  }
}

/// grid: blocks that stay.
template <typename T, int kSlabs>
__global__ void __launch_bounds__(kHopperThreads, 1)
    attention_hopper_codes_kernel(const __grid_constant__ CUtensorMap map_q,
                                  const __grid_constant__ HopperCall call) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Shared = HopperCodedShared<T, kSlabs>;
  extern __shared__ unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared*>(memory + (1024 - shared_address(memory) % 1024) % 1024);
  if (threadIdx.x == 0) {
    prefetch_tensor_map(&map_q);
    init_barriers(shared);
  }
  allow_dependent_launch();
  wait_for_previous_grid();
  if (threadIdx.x < 32) fence_proxy_async();  // the warp that asks the copy engine
  order_tiles(shared, call);
  if (threadIdx.x < 128) {
    drop_registers<kHopperWidenerRegisters>();
    HopperWidener<T, kSlabs>(call, shared).run(&map_q);
  } else {
    raise_registers<kHopperCodedConsumerRegisters>();
    HopperConsumer<T, kSlabs, kHopperCodes>(call, shared).run();
  }
#endif
}

}  // namespace attn::gpu
