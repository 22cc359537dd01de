// Thin wrappers over the sm_90a PTX that warp-specialised kernels are made of: barriers that count
// bytes, bulk tensor copies (TMA), register budgets. Only for code behind
// __CUDA_ARCH_FEAT_SM90_ALL; barriers without bytes are in mma.cuh, wgmma in hopper_wgmma.cuh.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "gpu/kernels/mma.cuh"

namespace attn::gpu {

/// After barrier_init, before the copy engine uses the barriers (then __syncthreads).
__device__ __forceinline__ void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/// One arrival, which announces `bytes` to come from copies of tensors.
__device__ __forceinline__ void barrier_arrive_bytes(std::uint64_t* barrier, unsigned bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
}

/// What other grids wrote, and this thread has seen written, before what the copy engine reads.
__device__ __forceinline__ void fence_proxy_async() {
  asm volatile("fence.proxy.async;" ::: "memory");
}
/// This thread's ordinary accesses to shared memory before those of wgmma and the copy engine.
__device__ __forceinline__ void fence_proxy_async_shared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void prefetch_tensor_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/// A box to shared memory, from these coordinates on (innermost first). Always counts the whole box
/// on the barrier; what lies outside the tensor arrives as zeros. The innermost start is a multiple
/// of 16 bytes. The map is a __grid_constant__ parameter.
__device__ __forceinline__ void tensor_load_3d(void* shared, const CUtensorMap* map,
                                               std::uint64_t* barrier, int c0, int c1, int c2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(shared_address(shared)),
      "l"(map), "r"(shared_address(barrier)), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
}
__device__ __forceinline__ void tensor_load_4d(void* shared, const CUtensorMap* map,
                                               std::uint64_t* barrier, int c0, int c1, int c2,
                                               int c3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(shared_address(shared)),
      "l"(map), "r"(shared_address(barrier)), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
      : "memory");
}

/// `bytes` (a multiple of 16) of global memory that lie after each other, counted on the barrier.
__device__ __forceinline__ void bulk_load(void* shared, const void* from, unsigned bytes,
                                          std::uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(shared)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
}

/// 16 bytes to shared memory. Other threads' wgmma sees them after fence_proxy_async_shared() of
/// this thread, and an arrival.
__device__ __forceinline__ void store_shared_16(std::uint32_t address, const uint4& x) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(x.x), "r"(x.y),
               "r"(x.z), "r"(x.w)
               : "memory");
}
/// 16 bytes of global memory that other blocks read, but this one not again. Neither these nor the
/// stores above change their order, so that what is loaded early is loaded early.
__device__ __forceinline__ uint4 load_once_16(std::uint64_t address) {
  uint4 x;
  asm volatile("ld.global.L1::no_allocate.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "l"(address));
  return x;
}

/// The same of 4 bytes.
__device__ __forceinline__ std::uint32_t load_once_4(std::uint64_t address) {
  std::uint32_t x;
  asm volatile("ld.global.L1::no_allocate.b32 %0, [%1];" : "=r"(x) : "l"(address));
  return x;
}

/// All warps of a warpgroup execute these; the kernel has __launch_bounds__(threads, 1), and the
/// budgets of a block's warpgroups sum up to at most what they had at entry.
template <int kRegisters>
__device__ __forceinline__ void raise_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void drop_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

/// Barrier `name` (1 to 15; 0 is __syncthreads()) of kThreads threads, of which some wait and the
/// others only arrive; whole warps.
template <int kThreads>
__device__ __forceinline__ void named_barrier_wait(int name) {
  asm volatile("barrier.cta.sync.aligned %0, %1;" ::"r"(name), "n"(kThreads) : "memory");
}
template <int kThreads>
__device__ __forceinline__ void named_barrier_arrive(int name) {
  asm volatile("barrier.cta.arrive.aligned %0, %1;" ::"r"(name), "n"(kThreads) : "memory");
}

/// Four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8, and
/// holds row l / 4, columns 2 (l % 4) and + 1 of each.
__device__ __forceinline__ void store_matrix_x4(std::uint32_t address, std::uint32_t r0,
                                                std::uint32_t r1, std::uint32_t r2,
                                                std::uint32_t r3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
               "r"(r0), "r"(r1), "r"(r2), "r"(r3)
               : "memory");
}

}  // namespace attn::gpu
