#pragma once

#include "gpu/device/check.h"
#include "gpu/kernels/attention_launch.h"
#include "gpu/kernels/dependent_launch.cuh"

namespace attn::gpu {

/// `cluster`: blocks along z that are one cluster.
inline void launch_attention(void (*kernel)(AttentionArguments, Partials), dim3 grid, int cluster,
                             int threads, std::size_t shared, cudaStream_t stream,
                             const AttentionArguments& a, const Partials& partials) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shared)),
        "cudaFuncSetAttribute");
  launch_dependent(kernel, grid, cluster, threads, shared, stream, a, partials);
}

}  // namespace attn::gpu
