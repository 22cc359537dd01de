#pragma once

#include <cuda_runtime.h>

#include <utility>

#include "gpu/device/check.h"
#include "gpu/device/device.h"

namespace attn::gpu {

/// Launches a kernel that may start while the one before it in the stream ends; it must
/// wait_for_previous_grid() before it reads or writes memory. `cluster`: blocks along z that are
/// one cluster (only where runs_hopper_code()), at most 8.
template <typename... Parameters, typename... Arguments>
void launch_dependent(void (*kernel)(Parameters...), dim3 grid, int cluster, int threads,
                      std::size_t shared, cudaStream_t stream, Arguments&&... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = 1;
  attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = static_cast<unsigned>(cluster);
  config.attrs = attributes;
  config.numAttrs = !runs_hopper_code() ? 0 : cluster > 1 ? 2 : 1;
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), "launch");
}

}  // namespace attn::gpu
