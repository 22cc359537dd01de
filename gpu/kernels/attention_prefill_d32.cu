#include "gpu/kernels/attention_prefill_instances.cuh"

namespace attn::gpu {

template void launch_prefill<32>(const AttentionArguments&, const AttentionPlan&, const Partials&,
                                 cudaStream_t);

}  // namespace attn::gpu
