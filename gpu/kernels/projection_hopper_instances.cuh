// The definition behind projection_hopper_launch.h, for the files that instantiate the kernel.
#pragma once

#include "gpu/kernels/dependent_launch.cuh"
#include "gpu/kernels/prefill_shape.h"
#include "gpu/kernels/projection_hopper.cuh"
#include "gpu/kernels/shared_allowance.cuh"

namespace attn::gpu {

template <typename T, int kHeadDim>
void launch_projection_type(const ProjectionMaps& maps, const ProjectionCall& call, int blocks,
                            cudaStream_t stream) {
  static_assert(kProjectionSharedBytes<T> <= kMostSharedBytes);
  const auto kernel = projection_hopper_kernel<T, kHeadDim>;
  allow_dynamic_shared(reinterpret_cast<const void*>(kernel), kProjectionSharedBytes<T>);
  launch_dependent(kernel, dim3(static_cast<unsigned>(blocks)), 1, kProjectionThreads,
                   kProjectionSharedBytes<T>, stream, maps.x, maps.w, call);
}

template <int kHeadDim>
void launch_projection(const ProjectionMaps& maps, const ProjectionCall& call, int blocks,
                       cudaStream_t stream) {
  if (call.a.type == Type::kBFloat16) {
    launch_projection_type<Bf16, kHeadDim>(maps, call, blocks, stream);
  } else {
    launch_projection_type<Half, kHeadDim>(maps, call, blocks, stream);
  }
}

}  // namespace attn::gpu
