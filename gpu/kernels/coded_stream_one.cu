// One row of x: q4_k's weights and gptq's of 4 bits.
#include "gpu/kernels/coded_stream_launch.h"
#include "gpu/kernels/coded_stream_one_codes.cuh"
#include "gpu/kernels/coded_stream_one_weights.cuh"
#include "gpu/kernels/dependent_launch.cuh"
#include "gpu/kernels/shared_allowance.cuh"

namespace attn::gpu {

void launch_stream_one(const CodedGemmArguments& a, const CodedStreamPlan& plan,
                       cudaStream_t stream) {
  const auto launch = [&](auto kernel) {
    allow_dynamic_shared(reinterpret_cast<const void*>(kernel), plan.shared_bytes);
    launch_dependent(kernel, static_cast<unsigned>(plan.blocks), 1, kStreamThreads,
                     plan.shared_bytes, stream, a, plan.tiles, plan.early);
  };
  if (a.w.scaling == CodeScaling::kGroup) return launch(coded_stream_one_codes);
  if (a.x_type == Type::kFloat16) return launch(coded_stream_one_weights<Half, false>);
  if (a.w.small_scales) return launch(coded_stream_one_weights<Bf16, true>);
  launch(coded_stream_one_weights<Bf16, false>);
}

}  // namespace attn::gpu
