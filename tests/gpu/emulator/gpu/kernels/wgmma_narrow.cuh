#pragma once

// Stands in for gpu/kernels/wgmma_narrow.cuh and what it includes.

#include "gpu/kernels/mma.cuh"

namespace attn::gpu {

inline std::uint32_t wgmma_lower(std::uint32_t address) {
  return (address & 0x3ffffU) >> 4 | std::uint32_t{1} << 16;
}
template <int kCount>
void pin(float (&)[kCount]) {}
inline void pin(std::uint32_t (&)[4]) {}
inline void wgmma_fence() {}
inline void wgmma_commit() { emulator::products_commit(); }
template <int kPending>
void wgmma_wait() {
  emulator::products_wait(kPending);
}
template <typename T, int kColumns>
void wgmma_narrow(float (&d)[kColumns / 2], const std::uint32_t (&a)[4], std::uint32_t lower) {
  emulator::Product p;
  p.d = d;
  p.columns = kColumns;
  p.half = TypeOf<T>::value == Type::kFloat16;
  p.a_held = true;  // registers: the compiler keeps them
  p.a_values = {a[0], a[1], a[2], a[3]};
  p.b = lower | std::uint64_t{1024 >> 4} << 32 | std::uint64_t{1} << 62;
  emulator::product(p);
}

}  // namespace attn::gpu
