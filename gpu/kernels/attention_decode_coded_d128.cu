#include "gpu/kernels/attention_decode_instances.cuh"

namespace attn::gpu {

template void launch_coded_decode<128>(const AttentionArguments&, const AttentionPlan&,
                                       const Partials&, cudaStream_t);

}  // namespace attn::gpu
