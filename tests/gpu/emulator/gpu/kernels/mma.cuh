#pragma once

// Stands in for gpu/kernels/mma.cuh: what the Hopper prefill kernel uses of it.

#include "gpu/faults/fault_switch.h"
#include "gpu/kernels/element.cuh"
#include "tests/gpu/emulator/device.h"

namespace attn::gpu {

inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(static_cast<const unsigned char*>(p) - memory);
}
template <typename T>
std::uint32_t pack2(float low, float high) {
  const T pair[2] = {from_float<T>(low), from_float<T>(high)};
  std::uint32_t r = 0;
  std::memcpy(&r, pair, 4);
  return r;
}
inline void barrier_init(std::uint64_t* barrier, unsigned count) {
  emulator::barrier_init(barrier, count);
}
inline void barrier_arrive(std::uint64_t* barrier) { emulator::barrier_arrive(barrier, 0); }
inline void barrier_wait(std::uint64_t* barrier, unsigned parity) {
  emulator::barrier_wait(barrier, parity);
}
inline void allow_dependent_launch() {}
inline void wait_for_previous_grid() {}
inline float exp2_approximate(float x) { return std::exp2(x); }

}  // namespace attn::gpu
