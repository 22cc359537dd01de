// Prefill attention for compute capability 9.0a whose products are of e4m3 codes: the consumers,
// tiles and steps of attention_hopper.cuh, from a cache of codes as it lies.
//
// Keys come by the copy engine, a row of 128 bytes each, and are multiplied as they are. wgmma
// wants the second operand of codes with the sum's axis contiguous, which for the values are the
// keys: a pass before the kernel turns each step's values once, to an image that a block copies
// whole. (Turned by the producing warpgroup on their way, for each tile anew, they were what the
// kernel waited for.)
//
// Which place a key has in its 16 is free, as long as the probabilities have the same order: that
// of fp8_key(), in which a thread's sums of scores are its operand of the next product.
//
// Two warps turn queries to codes: each row times a power of two of its own, which goes into the
// row's exponents again. They do so before they say what the tile's rows see, for the tile to come.
// Probabilities are rounded as 64 times what they are, by the shift of their row; its sums are of
// the unrounded ones.
//
// Keys of slots behind a sequence's end need nothing, their scores are hidden; values there are
// zeros.
#pragma once

#include "gpu/kernels/attention_hopper_consumer.cuh"
#include "gpu/kernels/attention_hopper_fp8_producer.cuh"

namespace attn::gpu {

/// grid: blocks that stay.
template <typename T, int kSlabs>
__global__ void __launch_bounds__(kHopperThreads, 1)
    attention_hopper_fp8_kernel(const __grid_constant__ CUtensorMap map_k,
                                const __grid_constant__ HopperCall call) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Shared = HopperFp8Shared<kSlabs>;
  extern __shared__ unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared*>(memory + (1024 - shared_address(memory) % 1024) % 1024);
  if (threadIdx.x == 0) {
    prefetch_tensor_map(&map_k);
    init_fp8_barriers(shared);
  }
  allow_dependent_launch();
  wait_for_previous_grid();
  if (threadIdx.x < 64) fence_proxy_async();  // the warps that ask the copy engine
  order_tiles(shared, call);
  if (threadIdx.x < 128) {
    drop_registers<kHopperFp8ProducerRegisters>();
    HopperFp8Producer<T, kSlabs> producer(call, shared);
    const auto convert = [&](int part) {
      return [&producer, part](const HopperTile& t, int slot) {
        if (t.steps > 0) producer.convert_queries(t, slot, part);
        if (part == 1 && t.sequence >= 0 && threadIdx.x == 127) producer.tell_scales(t, slot);
      };
    };
    if (threadIdx.x < 32) {
      producer.load_keys(&map_k);
    } else if (threadIdx.x < 64) {
      producer.load_values();
    } else if (threadIdx.x < 96) {
      producer.draw_tiles([&](const HopperTile& t, int slot) {
        convert(0)(t, slot);
        barrier_arrive(&shared.full_rows[slot]);
        __syncwarp();
      });
    } else {
      producer.tell_rows(convert(1));
    }
  } else {
    raise_registers<kHopperFp8ConsumerRegisters>();
    HopperConsumer<T, kSlabs, kHopperFp8>(call, shared).run();
  }
#endif
}

}  // namespace attn::gpu
