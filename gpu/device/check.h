#pragma once

#include <cuda_runtime_api.h>

namespace attn::gpu {

/// Throws Error(kInternal) with the runtime's name of the failure when `status` is one. `what` says
/// what was being done, in a few words.
void check(cudaError_t status, const char* what);

/// Reports a failed launch. Launch errors are sticky in the runtime until read, so every launcher
/// ends with this.
inline void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

}  // namespace attn::gpu
