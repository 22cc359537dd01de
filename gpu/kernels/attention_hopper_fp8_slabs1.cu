#include "gpu/kernels/attention_hopper_fp8_instances.cuh"

namespace attn::gpu {

template void launch_hopper_fp8<1>(const CUtensorMap&, const HopperCall&, int, cudaStream_t);

}  // namespace attn::gpu
