// Thin wrappers over the sm_80 PTX that the tensor-core kernels are made of. Fragment layouts (lane
// l, g = l / 4, t = l % 4), from the PTX manual's figures for m16n8k16:
//   A 16x16: a0 = (g, 2t), a1 = (g + 8, 2t), a2 = (g, 2t + 8), a3 = (g + 8, 2t + 8), pairs along k
//   B 16x8:  b0 = (2t, g), b1 = (2t + 8, g), pairs along k
//   C 16x8:  c0 c1 = (g, 2t) (g, 2t + 1), c2 c3 = the same columns of row g + 8
#pragma once

#include <cstdint>

#include "gpu/faults/fault_switch.h"
#include "gpu/kernels/element.cuh"

namespace attn::gpu {

__device__ __forceinline__ std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

/// Four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrix_x4(std::uint32_t (&r)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

__device__ __forceinline__ void load_matrix_x4_transposed(std::uint32_t (&r)[4],
                                                          std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

/// An 8x8 matrix of 16-bit elements whose row l / 4 has columns 2 (l % 4) and + 1 in lane l, and
/// the same of its transpose.
__device__ __forceinline__ std::uint32_t transpose_matrix(std::uint32_t x) {
  std::uint32_t y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

template <typename T>
__device__ __forceinline__ void mma_16x8x16(float (&c)[4], const std::uint32_t (&a)[4],
                                            std::uint32_t b0, std::uint32_t b1);
template <>
__device__ __forceinline__ void mma_16x8x16<Bf16>(float (&c)[4], const std::uint32_t (&a)[4],
                                                  std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void mma_16x8x16<Half>(float (&c)[4], const std::uint32_t (&a)[4],
                                                  std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Two floats as one register of 16-bit elements, the first in the lower half.
template <typename T>
__device__ __forceinline__ std::uint32_t pack2(float low, float high);
template <>
__device__ __forceinline__ std::uint32_t pack2<Bf16>(float low, float high) {
  std::uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
template <>
__device__ __forceinline__ std::uint32_t pack2<Half>(float low, float high) {
  std::uint32_t r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

/// 16 bytes that nobody else of the multiprocessor reads and no kernel of the stream writes; zeros
/// when !valid.
__device__ __forceinline__ uint4 load_once(const uint4* p, bool valid) {
  uint4 x;
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %5, 0;\n"
      "mov.b32 %0, 0;\nmov.b32 %1, 0;\nmov.b32 %2, 0;\nmov.b32 %3, 0;\n"
      "@p ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n}"
      : "=&r"(x.x), "=&r"(x.y), "=&r"(x.z), "=&r"(x.w)
      : "l"(p), "r"(static_cast<int>(valid)));
  return x;
}

/// 16 bytes from global to shared memory without registers, or 16 zero bytes when !valid (the
/// address must still be a legal one).
__device__ __forceinline__ void copy_async_16(std::uint32_t shared, const void* global,
                                              bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global),
               "r"(bytes)
               : "memory");
}
/// The same of 8 or 4 bytes.
template <int kBytes>
__device__ __forceinline__ void copy_async_small(std::uint32_t shared, const void* global,
                                                 bool valid) {
  static_assert(kBytes == 8 || kBytes == 4);
  const int bytes = valid ? kBytes : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared), "l"(global),
               "n"(kBytes), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void copy_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}
/// Waits for all copies of this thread, committed or not.
__device__ __forceinline__ void copy_async_wait_all() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

/// Barriers in shared memory that count arrivals: a phase ends when `count` have come, and waiting
/// for the end of phase p is waiting for parity p % 2.
__device__ __forceinline__ void barrier_init(std::uint64_t* barrier, unsigned count) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count)
               : "memory");
}
__device__ __forceinline__ void barrier_arrive(std::uint64_t* barrier) {
  asm volatile(
      "{\n.reg .b64 state;\n"
      "mbarrier.arrive.shared.b64 state, [%0];\n}" ::"r"(shared_address(barrier))
      : "memory");
}
/// Arrives when this thread's copies so far have landed.
__device__ __forceinline__ void copy_async_arrive(std::uint64_t* barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(barrier))
               : "memory");
}
__device__ __forceinline__ void barrier_wait(std::uint64_t* barrier, unsigned parity) {
  unsigned done = 0;
  while (done == 0) {
    asm volatile(
        "{\n.reg .pred p;\n"
#if __CUDA_ARCH__ >= 900
        "mbarrier.try_wait.parity.shared.b64 p, [%1], %2;\n"
#else
        "mbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n"
#endif
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
  }
}

/// Lets the next kernel of the stream start before this one ends, where it was launched so; it must
/// wait_for_previous_grid() before it reads what this grid writes. Nothing before sm_90.
__device__ __forceinline__ void allow_dependent_launch() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ __forceinline__ void wait_for_previous_grid() {
  if (ATTN_FAULT(dependent_launch_not_waited)) return;
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Blocks of a cluster (sm_90) see each other's shared memory. Arriving releases what a thread
/// wrote, waiting acquires it; `relaxed` orders nothing. A warp's lanes must come together.
__device__ __forceinline__ void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void cluster_arrive_relaxed() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void cluster_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
/// The address of `shared` (of this block) in block `rank` of the cluster.
__device__ __forceinline__ std::uint32_t cluster_address(std::uint32_t shared, unsigned rank) {
  std::uint32_t address = shared;
#if __CUDA_ARCH__ >= 900
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared), "r"(rank));
#endif
  return address;
}
__device__ __forceinline__ void cluster_store(std::uint32_t address, float4 x) {
#if __CUDA_ARCH__ >= 900
  asm volatile("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address), "f"(x.x),
               "f"(x.y), "f"(x.z), "f"(x.w)
               : "memory");
#endif
}
__device__ __forceinline__ void cluster_store(std::uint32_t address, float2 x) {
#if __CUDA_ARCH__ >= 900
  asm volatile("st.shared::cluster.v2.f32 [%0], {%1, %2};" ::"r"(address), "f"(x.x), "f"(x.y)
               : "memory");
#endif
}
__device__ __forceinline__ void cluster_store(std::uint32_t address, float x) {
#if __CUDA_ARCH__ >= 900
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(address), "f"(x) : "memory");
#endif
}

/// Adds one and returns what was there; what this thread has seen written is released, what the
/// other threads that added released is seen after.
__device__ __forceinline__ unsigned count_arrival(unsigned* counter) {
  unsigned before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;"
               : "=r"(before)
               : "l"(counter)
               : "memory");
  return before;
}

/// Adds `x` and returns what was there; orders nothing else.
__device__ __forceinline__ std::uint64_t count_relaxed(std::uint64_t* counter, std::uint64_t x) {
  std::uint64_t before;
  asm volatile("atom.relaxed.gpu.global.add.u64 %0, [%1], %2;"
               : "=l"(before)
               : "l"(counter), "l"(x)
               : "memory");
  return before;
}

/// Floats between blocks that run at the same time, through the L2. A word's bits lie there
/// inverted, so that it is zero only until it has come (a NaN of all ones becomes another NaN);
/// taking one leaves zero. False: not all have come, and none is taken.
__device__ __forceinline__ std::uint32_t mail_word(float x) {
  const std::uint32_t bits = ~__float_as_uint(x);
  return bits != 0 ? bits : 1u;
}
__device__ __forceinline__ float of_mail(std::uint32_t word) { return __uint_as_float(~word); }
__device__ __forceinline__ void store_mail(float4* to, float4 x) {
  asm volatile("st.relaxed.gpu.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to),
               "r"(mail_word(x.x)), "r"(mail_word(x.y)), "r"(mail_word(x.z)), "r"(mail_word(x.w))
               : "memory");
}
__device__ __forceinline__ void store_mail(float2* to, float2 x) {
  asm volatile("st.relaxed.gpu.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(mail_word(x.x)),
               "r"(mail_word(x.y))
               : "memory");
}
/// The same without taking it.
__device__ __forceinline__ bool see_mail(const float2* from, float2& x) {
  uint2 b;
  asm volatile("ld.relaxed.gpu.global.v2.b32 {%0, %1}, [%2];"
               : "=r"(b.x), "=r"(b.y)
               : "l"(from)
               : "memory");
  x = float2{of_mail(b.x), of_mail(b.y)};
  return b.x != 0 && b.y != 0;
}
__device__ __forceinline__ bool take_mail(float4* from4, float2* from2, float4& x4, float2& x2) {
  uint4 a;
  uint2 b;
  asm volatile("ld.relaxed.gpu.global.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(a.x), "=r"(a.y), "=r"(a.z), "=r"(a.w)
               : "l"(from4)
               : "memory");
  asm volatile("ld.relaxed.gpu.global.v2.b32 {%0, %1}, [%2];"
               : "=r"(b.x), "=r"(b.y)
               : "l"(from2)
               : "memory");
  if (a.x == 0 || a.y == 0 || a.z == 0 || a.w == 0 || b.x == 0 || b.y == 0) return false;
  x4 = float4{of_mail(a.x), of_mail(a.y), of_mail(a.z), of_mail(a.w)};
  x2 = float2{of_mail(b.x), of_mail(b.y)};
  *reinterpret_cast<uint4*>(from4) = uint4{0, 0, 0, 0};
  *reinterpret_cast<uint2*>(from2) = uint2{0, 0};
  return true;
}

__device__ __forceinline__ void prefetch_to_l2(const void* p) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

/// The same of a stretch of memory, 16-byte aligned and a multiple of 16 bytes. Nothing before
/// sm_90.
__device__ __forceinline__ void prefetch_stretch_to_l2(const void* p, unsigned bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(p), "r"(bytes) : "memory");
#endif
}

/// 2^x, relative error below 2^-22; -inf gives 0.
__device__ __forceinline__ float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace attn::gpu
