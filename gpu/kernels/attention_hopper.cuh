// Prefill attention for compute capability 9.0a: wgmma on tiles that the copy engine (TMA) brings,
// one producer warpgroup and two consumers.
//
// A tile is 128 packed rows (hopper_work.h) of one sequence: each consumer warpgroup has 64 of
// them, and both multiply the same steps of keys, from the last that the tile sees to the first.
// Blocks stay and draw tiles by a counter. Of the producer warpgroup, warp 0
// loads keys and queries, warp 1 loads values, both issue a page's boxes from their lanes; warp 2
// draws the tiles and says what they are, warp 3 which keys each of their rows sees. A stage of
// keys (or values) counts its bytes in and its readers out, by mbarriers.
//
// In a warpgroup the scores of step i + 1 are issued before the outputs of step i, so that the
// softmax of one runs beside the products of the other; the warpgroups issue them by turns, so that
// one makes exponentials while the other multiplies. A step keeps the shift of the steps before it
// where that will do (attention_hopper_softmax.cuh). The queries of the next tile are loaded once
// the last scores are there; outputs leave through shared memory of their own.
//
// Values of slots behind a sequence's end may be anything, and 0 times NaN is NaN: warp 1 puts
// zeros over them before it hands such a step on. Keys there need nothing, their scores are masked.
//
// Budget for head_dim 128: of 224 registers 64 of outputs, 64 of scores and twice 32 of
// probabilities; 32 KB of q, 2 stages of 32 KB of keys and as much of values (hopper_stages), 32 KB
// of outputs.
#pragma once

#include "gpu/kernels/attention_hopper_consumer.cuh"
#include "gpu/kernels/attention_hopper_producer.cuh"

namespace attn::gpu {

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
