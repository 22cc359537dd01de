#include "gpu/kernels/coded_cluster_instances.cuh"

namespace attn::gpu {

void launch_cluster_half(const CodedGemmArguments& a, const CodedClusterPlan& plan,
                         const CUtensorMap& x, cudaStream_t stream) {
  launch_cluster_type<Half>(a, plan, x, stream);
}

}  // namespace attn::gpu
