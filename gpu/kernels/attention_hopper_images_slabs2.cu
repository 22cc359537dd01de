#include "gpu/kernels/attention_hopper_images_instances.cuh"

namespace attn::gpu {

template void launch_hopper_images<2>(const CUtensorMap&, const HopperCall&, int, cudaStream_t);

}  // namespace attn::gpu
