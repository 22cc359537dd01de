#pragma once

#include <cuda_runtime.h>

#include <utility>

#include "gpu/device/check.h"
#include "gpu/device/device.h"

namespace attn::gpu {

struct LaunchForm {
  /// Blocks along z that are one cluster (only where runs_hopper_code()), at most 8.
  int cluster = 1;
  /// Only when all blocks fit on the device at once: they may wait for each other.
  bool together = false;
};

/// Launches a kernel that may start while the one before it in the stream ends; it must
/// wait_for_previous_grid() before it reads or writes memory.
template <typename... Parameters, typename... Arguments>
void launch_dependent_as(const LaunchForm& form, void (*kernel)(Parameters...), dim3 grid,
                         int threads, std::size_t shared, cudaStream_t stream,
                         Arguments&&... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  cudaLaunchAttribute attributes[3] = {};
  unsigned count = 0;
  if (runs_hopper_code()) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
    if (form.cluster > 1) {
      attributes[count].id = cudaLaunchAttributeClusterDimension;
      attributes[count].val.clusterDim.x = 1;
      attributes[count].val.clusterDim.y = 1;
      attributes[count++].val.clusterDim.z = static_cast<unsigned>(form.cluster);
    }
  }
  if (form.together) {
    attributes[count].id = cudaLaunchAttributeCooperative;
    attributes[count++].val.cooperative = 1;
  }
  config.attrs = attributes;
  config.numAttrs = count;
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), "launch");
}

/// The same of blocks that wait for none but those of their cluster.
template <typename... Parameters, typename... Arguments>
void launch_dependent(void (*kernel)(Parameters...), dim3 grid, int cluster, int threads,
                      std::size_t shared, cudaStream_t stream, Arguments&&... arguments) {
  launch_dependent_as(LaunchForm{cluster, false}, kernel, grid, threads, shared, stream,
                      std::forward<Arguments>(arguments)...);
}

}  // namespace attn::gpu
