#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include "gpu/kernels/coded_cluster.h"

namespace attn::gpu {

/// The instances, in sources that compile side by side. `x`: boxes of 64 columns of a tile's rows.
void launch_cluster_bf16(const CodedGemmArguments& a, const CodedClusterPlan& plan,
                         const CUtensorMap& x, cudaStream_t stream);
void launch_cluster_half(const CodedGemmArguments& a, const CodedClusterPlan& plan,
                         const CUtensorMap& x, cudaStream_t stream);
/// Clusters of `blocks` blocks, of all the shared memory that a block may have, that run at once.
int clusters_at_once(int blocks);

}  // namespace attn::gpu
