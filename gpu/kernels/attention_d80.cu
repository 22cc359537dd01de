#include "gpu/kernels/attention_instances.cuh"

namespace attn::gpu {

template void launch_prefill<80>(const AttentionArguments&, const AttentionPlan&, const Partials&,
                                 cudaStream_t);
template void launch_decode<80>(const AttentionArguments&, const AttentionPlan&, const Partials&,
                                cudaStream_t);

}  // namespace attn::gpu
