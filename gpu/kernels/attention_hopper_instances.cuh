// The definition behind attention_hopper_launch.h, for the files that instantiate the kernel.
#pragma once

#include "gpu/kernels/attention_hopper.cuh"
#include "gpu/kernels/dependent_launch.cuh"
#include "gpu/kernels/prefill_shape.h"
#include "gpu/kernels/shared_allowance.cuh"

namespace attn::gpu {

template <typename T, int kSlabs>
void launch_hopper_type(const HopperMaps& maps, const HopperCall& call, int blocks,
                        cudaStream_t stream) {
  constexpr std::size_t kBytes = kHopperSharedBytes<T, kSlabs>;
  static_assert(kBytes <= kMostSharedBytes);
  const auto kernel = attention_hopper_kernel<T, kSlabs>;
  allow_dynamic_shared(reinterpret_cast<const void*>(kernel), kBytes);
  launch_dependent(kernel, dim3(static_cast<unsigned>(blocks)), 1, kHopperThreads, kBytes, stream,
                   maps.q, maps.k, maps.v, call);
}

template <int kSlabs>
void launch_hopper(const HopperMaps& maps, const HopperCall& call, int blocks,
                   cudaStream_t stream) {
  if (call.a.type == Type::kBFloat16) {
    launch_hopper_type<Bf16, kSlabs>(maps, call, blocks, stream);
  } else {
    launch_hopper_type<Half, kSlabs>(maps, call, blocks, stream);
  }
}

}  // namespace attn::gpu
