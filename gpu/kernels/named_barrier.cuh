// Barriers of some of a block's warps, numbers 1 to 15 (0 is __syncthreads). Where all lanes of a
// warp come together.
#pragma once

namespace attn::gpu {

/// Waits until `threads` have come, those that only leave included; what they wrote before is seen.
__device__ __forceinline__ void named_barrier_sync(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
/// Comes without waiting.
__device__ __forceinline__ void named_barrier_arrive(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

}  // namespace attn::gpu
