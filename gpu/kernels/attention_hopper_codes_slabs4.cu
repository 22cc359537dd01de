#include "gpu/kernels/attention_hopper_codes_instances.cuh"

namespace attn::gpu {

template void launch_hopper_codes<4>(const CUtensorMap&, const HopperCall&, int, cudaStream_t);

}  // namespace attn::gpu
