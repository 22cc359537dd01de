#pragma once

// Stands in for gpu/kernels/named_barrier.cuh.

#include "tests/gpu/emulator/device.h"

namespace attn::gpu {

inline void named_barrier_sync(int barrier, int threads) { emulator::named_sync(barrier, threads); }
inline void named_barrier_arrive(int barrier, int threads) {
  emulator::named_arrive(barrier, threads);
}

}  // namespace attn::gpu
