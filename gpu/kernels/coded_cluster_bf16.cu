#include "gpu/kernels/coded_cluster_instances.cuh"
#include "gpu/kernels/prefill_shape.h"

namespace attn::gpu {

void launch_cluster_bf16(const CodedGemmArguments& a, const CodedClusterPlan& plan,
                         const CUtensorMap& x, cudaStream_t stream) {
  launch_cluster_type<Bf16>(a, plan, x, stream);
}

int clusters_at_once(int blocks) {
  const auto kernel = coded_cluster_kernel<Bf16, 64>;
  allow_dynamic_shared(reinterpret_cast<const void*>(kernel), kMostSharedBytes);
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(1, 1, static_cast<unsigned>(blocks));
  config.blockDim = dim3(128 * ClusterTile<64>::kMostWarpgroups);
  config.dynamicSmemBytes = kMostSharedBytes;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = 1;
  attribute.val.clusterDim.y = 1;
  attribute.val.clusterDim.z = static_cast<unsigned>(blocks);
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = 0;
  check(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config),
        "cudaOccupancyMaxActiveClusters");
  return clusters;
}

}  // namespace attn::gpu
