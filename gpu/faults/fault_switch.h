// Switches of planted bugs in the sources of gpu/. ATTN_FAULT(id) stands where the mistake would be
// made and is true while that bug is switched on; a second argument says when the mistake makes a
// difference, and only then does it count as reached:
//
//   if (ATTN_FAULT(window_one_too_wide, r.begin > 0)) --r.begin;
//
// ATTN_IF_FAULT(id, statement) is for host code that needs something of the fault build. Ordinary
// builds have none of it: `false`, and nothing. Only attn_faulty_cuda, the same sources compiled
// with ATTN_FAULTY, holds the switches. One bug is on at a time, in the whole process.
#pragma once

#ifndef ATTN_FAULTY

#define ATTN_FAULT(...) false
#define ATTN_IF_FAULT(...) static_cast<void>(0)

#else

#include "gpu/faults/fault_list.h"

namespace attn::gpu {

enum class FaultId : unsigned {
  none,
#define ATTN_GPU_FAULT_ENUMERATOR(id) id,
  ATTN_GPU_FAULTS(ATTN_GPU_FAULT_ENUMERATOR)
#undef ATTN_GPU_FAULT_ENUMERATOR
};

/// Of the host's code. On the device each source file has its own.
struct FaultState {
  FaultId on = FaultId::none;
  unsigned reached = 0;
};
FaultState& host_fault_state();

/// Registers the state of a source file on the device, before main.
struct DeviceFaultSymbols {
  DeviceFaultSymbols(const void* on, const void* reached);
};

#ifdef __CUDACC__

namespace {

__constant__ FaultId attn_fault_on;
__device__ unsigned attn_fault_reached;

template <typename On, typename Reached>
DeviceFaultSymbols symbols_of(const On& on, const Reached& reached) {
  return DeviceFaultSymbols(&on, &reached);
}
const DeviceFaultSymbols kDeviceFaultSymbols = symbols_of(attn_fault_on, attn_fault_reached);

__host__ __device__ __forceinline__ bool fault_is_on(FaultId id) {
#ifdef __CUDA_ARCH__
  return attn_fault_on == id;
#else
  return host_fault_state().on == id;
#endif
}

__host__ __device__ __forceinline__ bool fault_reached(bool when = true) {
  if (!when) return false;
#ifdef __CUDA_ARCH__
  attn_fault_reached = 1;
#else
  ++host_fault_state().reached;
#endif
  return true;
}

}  // namespace

#else

inline bool fault_is_on(FaultId id) { return host_fault_state().on == id; }

inline bool fault_reached(bool when = true) {
  if (when) ++host_fault_state().reached;
  return when;
}

#endif

}  // namespace attn::gpu

#define ATTN_FAULT(id, ...) \
  (::attn::gpu::fault_is_on(::attn::gpu::FaultId::id) && ::attn::gpu::fault_reached(__VA_ARGS__))
#define ATTN_IF_FAULT(id, ...)                                \
  do {                                                        \
    if (::attn::gpu::fault_is_on(::attn::gpu::FaultId::id)) { \
      __VA_ARGS__;                                            \
    }                                                         \
  } while (false)

#ifndef __CUDACC__
#include "gpu/faults/fault_control.h"
#endif

#endif
