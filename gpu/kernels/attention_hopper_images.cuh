// Prefill attention for compute capability 9.0a from a cache of e4m3 codes that are widened once:
// the consumers, tiles and steps of attention_hopper.cuh, and a pass before the kernel.
//
// attention_hopper_codes.cuh widens a step's codes for each tile that sees them, and its producing
// warpgroup is then what the kernel waits for. Where tiles are many, this pass widens each code
// once, keys to the type of q and values to float16, both exactly, and leaves each step of a kv
// head as a stage of shared memory is to hold it, swizzle and zeros behind the last key included:
// an image. A block brings one by a single copy, without page tables, tensor maps and tails.
//
// The pass reads a byte a code and writes two, once, into the L2 mostly: of 4096 tokens with 8 kv
// heads of 128 channels 8 MB and 17 MB.
#pragma once

#include "gpu/kernels/attention_cache.cuh"
#include "gpu/kernels/attention_hopper_consumer.cuh"
#include "gpu/kernels/attention_hopper_producer.cuh"

namespace attn::gpu {

inline constexpr int kWidenThreads = 256;

/// The block's step, kv head and sequence.
struct ImageStep {
  int first_key = 0;
  int kv_head = 0;
  int sequence = 0;
  int keys = 0;         ///< of the sequence
  bool wanted = false;  ///< some query of the call sees a key of the step
  std::int64_t image = 0;
};
__device__ __forceinline__ ImageStep image_step(const HopperCall& call, int keys_per_step) {
  const AttentionArguments& a = call.a;
  ImageStep at;
  at.first_key = static_cast<int>(blockIdx.x) * keys_per_step;
  at.kv_head = static_cast<int>(blockIdx.y);
  at.sequence = static_cast<int>(blockIdx.z);
  const Sequence s = load_sequence(a.batch, at.sequence);
  at.keys = static_cast<int>(s.keys);
  at.image = hopper_image(at.sequence, at.kv_head, static_cast<int>(a.num_kv_heads),
                          call.image_steps, static_cast<int>(blockIdx.x));
  if (s.rows == 0) return at;
  const KeyRange first = visible_keys(a, s.keys, position_of(a, s, 0));
  const KeyRange last = visible_keys(a, s.keys, position_of(a, s, s.rows - 1));
  at.wanted = at.first_key < last.end && at.first_key + keys_per_step > first.begin;
  return at;
}

/// The address of a key's codes of a head (or of its values').
__device__ __forceinline__ std::uint64_t codes_of(const CacheView& cache, bool values,
                                                  const ImageStep& at, int key) {
  const PagePlace place = page_place(key, static_cast<int>(cache.page_size));
  const std::uint32_t page = cache.page_table[at.sequence * cache.table_stride + place.column];
  const std::int64_t offset = values
                                  ? at.kv_head * cache.v_head_stride + page * cache.v_page_stride +
                                        place.slot * cache.v_token_stride
                                  : at.kv_head * cache.k_head_stride + page * cache.k_page_stride +
                                        place.slot * cache.k_token_stride;
  return reinterpret_cast<std::uint64_t>(values ? cache.v : cache.k) +
         static_cast<std::uint64_t>(offset);
}

/// A step's codes of `dim` channels as T, a row of 64 channels of a slab each. A thread widens 16
/// at a time, four neighbours a row.
template <typename T, int kSlabs>
__device__ __forceinline__ void widen_step(const HopperCall& call, bool values, const ImageStep& at,
                                           int dim, unsigned char* image) {
  constexpr int kKeys = hopper_keys(kSlabs);
  constexpr int kChunks = 4 * kSlabs;  // of 16 codes, of a row
  constexpr int kLoads = kKeys * kChunks / kWidenThreads;
  const auto row_of = [](int i) {
    return (static_cast<int>(threadIdx.x) + i * kWidenThreads) / kChunks;
  };
  const int column = static_cast<int>(threadIdx.x) % kChunks * 16;
  uint4 codes[kLoads];
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {  // all under way at once, so none under a condition
    const int key = min(at.first_key + row_of(i), at.keys - 1);
    codes[i] = load_once_16(codes_of(call.a.cache, values, at, key) +
                            static_cast<std::uint64_t>(column < dim ? column : 0));
  }
  unsigned char* const slab = image + column / kSlabColumns * kKeys * kSlabRowBytes;
  const auto in_row = static_cast<std::uint32_t>(column % kSlabColumns * 2);
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
    if (at.first_key + row_of(i) >= at.keys || column >= dim) codes[i] = make_uint4(0, 0, 0, 0);
    const uint2 a = widen_codes<T>(codes[i].x);
    const uint2 b = widen_codes<T>(codes[i].y);
    const uint2 c = widen_codes<T>(codes[i].z);
    const uint2 d = widen_codes<T>(codes[i].w);
    const auto place = [&](std::uint32_t byte) {
      return reinterpret_cast<uint4*>(slab +
                                      swizzle_128(static_cast<std::uint32_t>(row_of(i)), byte));
    };
    *place(in_row) = make_uint4(a.x, a.y, b.x, b.y);
    *place(in_row + 16) = make_uint4(c.x, c.y, d.x, d.y);
  }
}

/// grid: steps, kv heads, sequences; kWidenThreads.
template <typename T, int kSlabs>
__global__ void __launch_bounds__(kWidenThreads)
    widen_images_kernel(const __grid_constant__ HopperCall call) {
  allow_dependent_launch();
  wait_for_previous_grid();
  const ImageStep at = image_step(call, hopper_keys(kSlabs));
  if (!at.wanted) return;
  const std::int64_t offset = at.image * hopper_widened_bytes(kSlabs);
  widen_step<T, kSlabs>(call, false, at, static_cast<int>(call.a.head_dim),
                        call.key_images + offset);
  widen_step<Half, kSlabs>(call, true, at, static_cast<int>(call.a.head_dim_v),
                           call.value_images + offset);
}

/// The producer's warps where steps come as images.
template <typename T, int kSlabs, typename SharedMemory = HopperImagesShared<T, kSlabs>>
class HopperImageProducer : public HopperProducer<T, kSlabs, SharedMemory> {
 public:
  using Shared = SharedMemory;
  using Producer = HopperProducer<T, kSlabs, Shared>;
  using Producer::Producer;

  __device__ __forceinline__ void load_keys_and_queries(const CUtensorMap* map_q);
  __device__ __forceinline__ void load_values();

 protected:
  using Producer::call_;
  using Producer::lane_;
  using Producer::shared_;

  /// Image of the last step of a tile; those before it lie before it.
  __device__ __forceinline__ std::int64_t last_image(const HopperTile& t) const {
    return hopper_image(t.sequence, this->kv_head_of(t), static_cast<int>(call_.a.num_kv_heads),
                        call_.image_steps, t.last_step - 1);
  }
  /// By one lane.
  template <int kBytes>
  __device__ __forceinline__ static void load_image(void* stage, const unsigned char* images,
                                                    std::int64_t image, std::uint64_t* barrier) {
    barrier_arrive_bytes(barrier, kBytes);
    bulk_load(stage, images + image * kBytes, kBytes, barrier);
  }
};

template <typename T, int kSlabs, typename SharedMemory>
__device__ __forceinline__ void HopperImageProducer<T, kSlabs, SharedMemory>::load_keys_and_queries(
    const CUtensorMap* map_q) {
  static_assert(sizeof(shared_.k[0]) == hopper_widened_bytes(kSlabs));
  RingPlace<Shared::kStages> ring;
  for (int turn = 0;; ++turn) {
    const HopperTile t = this->next_tile(turn);
    if (t.sequence < 0) return;
    if (lane_ == 0) barrier_arrive(&shared_.begun);
    const std::int64_t last = last_image(t);
#pragma unroll 1
    for (int i = 0; i < t.steps; ++i) {
      barrier_wait(&shared_.empty_k[ring.slot], ring.parity ^ 1);
      __syncwarp();  // or a lane that came late would wait for the phase after
      if (lane_ == 0) {
        load_image<hopper_widened_bytes(kSlabs)>(shared_.k[ring.slot], call_.key_images, last - i,
                                                 &shared_.full_k[ring.slot]);
      }
      // After the first keys, which need not wait for the tile before to leave its rows.
      if (i == 0) this->load_queries(map_q, t, turn);
      __syncwarp();
      ring.advance();
    }
    if (t.steps == 0) this->load_queries(map_q, t, turn);
    __syncwarp();
  }
}

template <typename T, int kSlabs, typename SharedMemory>
__device__ __forceinline__ void HopperImageProducer<T, kSlabs, SharedMemory>::load_values() {
  // Of 16-bit elements, or a byte a code.
  constexpr int kBytes = sizeof(shared_.v[0]);
  static_assert(kBytes == hopper_widened_bytes(kSlabs) || kBytes == hopper_turned_bytes(kSlabs));
  RingPlace<Shared::kStages> ring;
  for (int turn = 0;; ++turn) {
    const HopperTile t = this->next_tile(turn);
    if (t.sequence < 0) return;
    const std::int64_t last = last_image(t);
#pragma unroll 1
    for (int i = 0; i < t.steps; ++i) {
      barrier_wait(&shared_.empty_v[ring.slot], ring.parity ^ 1);
      __syncwarp();
      if (lane_ == 0) {
        load_image<kBytes>(shared_.v[ring.slot], call_.value_images, last - i,
                           &shared_.full_v[ring.slot]);
      }
      __syncwarp();
      ring.advance();
    }
  }
}

/// grid: blocks that stay.
template <typename T, int kSlabs>
__global__ void __launch_bounds__(kHopperThreads, 1)
    attention_hopper_images_kernel(const __grid_constant__ CUtensorMap map_q,
                                   const __grid_constant__ HopperCall call) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Shared = HopperImagesShared<T, kSlabs>;
  extern __shared__ unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared*>(memory + (1024 - shared_address(memory) % 1024) % 1024);
  if (threadIdx.x == 0) {
    prefetch_tensor_map(&map_q);
    init_barriers(shared);
  }
  allow_dependent_launch();
  wait_for_previous_grid();
  if (threadIdx.x < 64) fence_proxy_async();  // the warps that ask the copy engine
  order_tiles(shared, call);
  if (threadIdx.x < 128) {
    drop_registers<kHopperProducerRegisters>();
    HopperImageProducer<T, kSlabs> producer(call, shared);
    if (threadIdx.x < 32) {
      producer.load_keys_and_queries(&map_q);
    } else if (threadIdx.x < 64) {
      producer.load_values();
    } else if (threadIdx.x < 96) {
      producer.draw_tiles();
    } else {
      producer.tell_rows([&](const HopperTile& t, int slot) {
        if (threadIdx.x == 127 && t.sequence >= 0) producer.tell_scales(t, slot);
      });
    }
  } else {
    raise_registers<kHopperConsumerRegisters>();
    HopperConsumer<T, kSlabs, kHopperImages>(call, shared).run();
  }
#endif
}

}  // namespace attn::gpu
