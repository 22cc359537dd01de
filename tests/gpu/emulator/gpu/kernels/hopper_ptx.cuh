#pragma once

// Stands in for gpu/kernels/hopper_ptx.cuh.

#include "gpu/kernels/mma.cuh"

namespace attn::gpu {

inline void fence_barrier_init() {}
inline void barrier_arrive_bytes(std::uint64_t* barrier, unsigned bytes) {
  emulator::barrier_arrive(barrier, bytes);
}
inline void fence_proxy_async() {}
inline void fence_proxy_async_shared() { emulator::fence_shared(); }
inline void store_shared_16(std::uint32_t address, const uint4& x) {
  emulator::store_shared(address, x);
}
inline uint4 load_once_16(std::uint64_t address) {
  if (address % 16 != 0) emulator::fail("a load of 16 bytes that begins within them");
  uint4 x;
  std::memcpy(&x, reinterpret_cast<const void*>(address), 16);
  return x;
}
inline std::uint32_t load_once_4(std::uint64_t address) {
  if (address % 4 != 0) emulator::fail("a load of 4 bytes that begins within them");
  std::uint32_t x = 0;
  std::memcpy(&x, reinterpret_cast<const void*>(address), 4);
  return x;
}
inline void prefetch_tensor_map(const CUtensorMap*) {}
inline void tensor_load_3d(void* shared, const CUtensorMap* map, std::uint64_t* barrier, int c0,
                           int c1, int c2) {
  const int start[3] = {c0, c1, c2};
  emulator::tensor_load(shared, map, barrier, start, 3);
}
inline void tensor_load_4d(void* shared, const CUtensorMap* map, std::uint64_t* barrier, int c0,
                           int c1, int c2, int c3) {
  const int start[4] = {c0, c1, c2, c3};
  emulator::tensor_load(shared, map, barrier, start, 4);
}
inline void bulk_load(void* shared, const void* from, unsigned bytes, std::uint64_t* barrier) {
  emulator::bulk_load(shared, from, bytes, barrier);
}
template <int kThreads>
void named_barrier_wait(int name) {
  emulator::named_barrier(name, kThreads, true);
}
template <int kThreads>
void named_barrier_arrive(int name) {
  emulator::named_barrier(name, kThreads, false);
}
template <int>
void raise_registers() {}
template <int>
void drop_registers() {}
inline void store_matrix_x4(std::uint32_t address, std::uint32_t r0, std::uint32_t r1,
                            std::uint32_t r2, std::uint32_t r3) {
  emulator::store_matrix(address, {r0, r1, r2, r3});
}

}  // namespace attn::gpu
