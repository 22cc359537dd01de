// The definition behind coded_cluster_launch.h, for the files that instantiate the kernel.
#pragma once

#include "gpu/kernels/coded_cluster.cuh"
#include "gpu/kernels/coded_cluster_launch.h"
#include "gpu/kernels/dependent_launch.cuh"
#include "gpu/kernels/shared_allowance.cuh"

namespace attn::gpu {

template <typename T, int kColumns>
void launch_cluster(const CodedGemmArguments& a, const CodedClusterPlan& plan, const CUtensorMap& x,
                    cudaStream_t stream) {
  const auto kernel = coded_cluster_kernel<T, kColumns>;
  allow_dynamic_shared(reinterpret_cast<const void*>(kernel), plan.shared_bytes);
  const dim3 grid(static_cast<unsigned>(plan.tiles), static_cast<unsigned>(plan.tiles_of_x),
                  static_cast<unsigned>(plan.blocks));
  launch_dependent(kernel, grid, plan.blocks, 128 * plan.groups * plan.sets, plan.shared_bytes,
                   stream, a, x, plan.groups, plan.sets_shift(), plan.parts_shift(), plan.stages);
}

template <typename T>
void launch_cluster_type(const CodedGemmArguments& a, const CodedClusterPlan& plan,
                         const CUtensorMap& x, cudaStream_t stream) {
  switch (plan.columns) {
    case 16:
      return launch_cluster<T, 16>(a, plan, x, stream);
    case 32:
      return launch_cluster<T, 32>(a, plan, x, stream);
    case 64:
      return launch_cluster<T, 64>(a, plan, x, stream);
    default:
      return launch_cluster<T, 128>(a, plan, x, stream);
  }
}

}  // namespace attn::gpu
