#pragma once

// Stands in for gpu/kernels/hopper_wgmma.cuh. Descriptors are the kernel's own: bits as there.

#include "gpu/kernels/mma.cuh"

namespace attn::gpu {

inline std::uint64_t slab_descriptor(std::uint32_t address) {
  return static_cast<std::uint64_t>((address & 0x3ffffU) >> 4) | std::uint64_t{1} << 16 |
         std::uint64_t{1024 >> 4} << 32 | std::uint64_t{1} << 62;
}
inline std::uint64_t slab_descriptor_transposed(std::uint32_t address, std::uint32_t slab_bytes) {
  return static_cast<std::uint64_t>((address & 0x3ffffU) >> 4) |
         static_cast<std::uint64_t>(slab_bytes >> 4) << 16 | std::uint64_t{1024 >> 4} << 32 |
         std::uint64_t{1} << 62;
}
inline std::uint64_t hoist_none(std::uint64_t x) { return x; }
inline int hoist_none(int x) { return x; }
inline std::uint32_t copy_register(std::uint32_t x) { return x; }
template <int kCount>
void pin_registers(float (&)[kCount]) {}
inline void wgmma_fence() {}
inline void wgmma_commit() { emulator::products_commit(); }
template <int kPending>
void wgmma_wait() {
  emulator::products_wait(kPending);
}
template <typename T, int kColumns>
void wgmma_scores(float (&d)[kColumns / 2], std::uint64_t a, std::uint64_t b, int accumulate) {
  emulator::product(
      {d, kColumns, TypeOf<T>::value == Type::kFloat16, accumulate != 0, a, nullptr, b, false});
}
template <typename T, int kColumns>
void wgmma_values(float (&d)[kColumns / 2], const std::uint32_t* a, std::uint64_t b) {
  emulator::product({d, kColumns, TypeOf<T>::value == Type::kFloat16, true, 0, a, b, true});
}

}  // namespace attn::gpu
