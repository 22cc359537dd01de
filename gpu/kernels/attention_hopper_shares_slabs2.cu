#include "gpu/kernels/attention_hopper_instances.cuh"

namespace attn::gpu {

template void launch_hopper_shares<2>(const HopperMaps&, const HopperCall&, int, cudaStream_t);

}  // namespace attn::gpu
