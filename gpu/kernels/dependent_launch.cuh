#pragma once

#include <cuda_runtime.h>

#include <utility>

#include "gpu/device/check.h"

namespace attn::gpu {

/// Compute capability 9.0 and up, of the current device.
bool has_dependent_launch();

/// Launches a kernel that may start while the one before it in the stream ends; it must
/// wait_for_previous_grid() before it reads or writes memory.
template <typename... Parameters, typename... Arguments>
void launch_dependent(void (*kernel)(Parameters...), dim3 grid, int threads, std::size_t shared,
                      cudaStream_t stream, Arguments&&... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = has_dependent_launch() ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), "launch");
}

}  // namespace attn::gpu
