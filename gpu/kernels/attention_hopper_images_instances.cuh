// The definition behind attention_hopper_launch.h, for the files that instantiate the kernel.
#pragma once

#include "gpu/kernels/attention_hopper_images.cuh"
#include "gpu/kernels/dependent_launch.cuh"
#include "gpu/kernels/prefill_shape.h"
#include "gpu/kernels/shared_allowance.cuh"

namespace attn::gpu {

/// Of a pass that makes images.
inline dim3 image_grid(const HopperCall& call) {
  return {static_cast<unsigned>(call.image_steps), static_cast<unsigned>(call.a.num_kv_heads),
          static_cast<unsigned>(call.a.batch.batch)};
}

template <typename T, int kSlabs>
void launch_hopper_images_type(const CUtensorMap& map_q, const HopperCall& call, int blocks,
                               cudaStream_t stream) {
  constexpr std::size_t kBytes = kHopperImagesBytes<T, kSlabs>;
  static_assert(kBytes <= kMostSharedBytes);
  launch_dependent(widen_images_kernel<T, kSlabs>, image_grid(call), 1, kWidenThreads, 0, stream,
                   call);
  const auto kernel = attention_hopper_images_kernel<T, kSlabs>;
  allow_dynamic_shared(reinterpret_cast<const void*>(kernel), kBytes);
  launch_dependent(kernel, dim3(static_cast<unsigned>(blocks)), 1, kHopperThreads, kBytes, stream,
                   map_q, call);
}

template <int kSlabs>
void launch_hopper_images(const CUtensorMap& map_q, const HopperCall& call, int blocks,
                          cudaStream_t stream) {
  if (call.a.type == Type::kBFloat16) {
    launch_hopper_images_type<Bf16, kSlabs>(map_q, call, blocks, stream);
  } else {
    launch_hopper_images_type<Half, kSlabs>(map_q, call, blocks, stream);
  }
}

}  // namespace attn::gpu
