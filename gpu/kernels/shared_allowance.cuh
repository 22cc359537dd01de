#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <map>
#include <mutex>
#include <utility>

#include "gpu/device/check.h"

namespace attn::gpu {

/// Lets a kernel have so much dynamic shared memory on the current device. The attribute is one
/// number for all host threads, and calls of other shapes want other amounts: it is only ever
/// raised, so that no thread takes away what another is about to launch with.
inline void allow_dynamic_shared(const void* kernel, std::size_t bytes) {
  static std::mutex mutex;
  static std::map<std::pair<int, const void*>, std::size_t> allowed;
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  const std::lock_guard lock(mutex);
  std::size_t& most = allowed[{device, kernel}];
  if (bytes <= most) return;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes)),
        "shared memory of a kernel");
  most = bytes;
}

}  // namespace attn::gpu
