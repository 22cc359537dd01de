#include "gpu/kernels/projection_hopper_instances.cuh"

namespace attn::gpu {

template void launch_projection<128>(const ProjectionMaps&, const ProjectionCall&, int,
                                     cudaStream_t);

}  // namespace attn::gpu
