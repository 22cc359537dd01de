#pragma once

// Stands in for gpu/kernels/mma_s8.cuh.

#include "tests/gpu/emulator/device.h"

namespace attn::gpu {

template <bool kUnsigned>
void mma_bytes_32(int (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  emulator::multiply_bytes(c, {a[0], a[1], a[2], a[3]}, {b0, b1}, 32, kUnsigned);
}
template <bool kUnsigned>
void mma_bytes_16(int (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t b) {
  emulator::multiply_bytes(c, {a0, a1, 0, 0}, {b, 0}, 16, kUnsigned);
}
inline std::uint32_t largest_of_warp(std::uint32_t x) {
  for (int by = 1; by < 32; by *= 2) {
    const auto other = static_cast<std::uint32_t>(emulator::shuffle(x, emulated_lane() ^ by));
    x = other > x ? other : x;
  }
  return x;
}

}  // namespace attn::gpu
