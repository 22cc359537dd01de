// The definition behind attention_hopper_launch.h, for the files that instantiate the kernel.
#pragma once

#include "gpu/kernels/attention_hopper_fp8.cuh"
#include "gpu/kernels/attention_hopper_images_instances.cuh"

namespace attn::gpu {

template <typename T, int kSlabs>
void launch_hopper_fp8_type(const CUtensorMap& map_k, const HopperCall& call, int blocks,
                            cudaStream_t stream) {
  constexpr std::size_t kBytes = kHopperFp8SharedBytes<kSlabs>;
  static_assert(kBytes <= kMostSharedBytes);
  launch_dependent(turn_images_kernel<kSlabs>, image_grid(call), 1, kTurnThreads,
                   hopper_turned_bytes(kSlabs), stream, call);
  const auto kernel = attention_hopper_fp8_kernel<T, kSlabs>;
  allow_dynamic_shared(reinterpret_cast<const void*>(kernel), kBytes);
  launch_dependent(kernel, dim3(static_cast<unsigned>(blocks)), 1, kHopperThreads, kBytes, stream,
                   map_k, call);
}

template <int kSlabs>
void launch_hopper_fp8(const CUtensorMap& map_k, const HopperCall& call, int blocks,
                       cudaStream_t stream) {
  if (call.a.type == Type::kBFloat16) {
    launch_hopper_fp8_type<Bf16, kSlabs>(map_k, call, blocks, stream);
  } else {
    launch_hopper_fp8_type<Half, kSlabs>(map_k, call, blocks, stream);
  }
}

}  // namespace attn::gpu
