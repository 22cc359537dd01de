// Scales that enter each weight: gptq's of 4 bits.
#include "gpu/kernels/coded_stream_launch.h"
#include "gpu/kernels/coded_stream_weights.cuh"
#include "gpu/kernels/dependent_launch.cuh"
#include "gpu/kernels/shared_allowance.cuh"

namespace attn::gpu {

void launch_stream_weights(const CodedGemmArguments& a, const CodedStreamPlan& plan,
                           cudaStream_t stream) {
  const auto launch = [&](auto kernel) {
    allow_dynamic_shared(reinterpret_cast<const void*>(kernel), plan.shared_bytes);
    launch_dependent(kernel, static_cast<unsigned>(plan.blocks), 1, kStreamThreads,
                     plan.shared_bytes, stream, a, plan.tiles);
  };
  const bool one_scale = a.w.group_shift >= 6;
  const auto launch_type = [&](auto type) {
    using T = decltype(type);
    if (a.m > kMostUnheldRows) {
      return one_scale ? launch(coded_stream_weights<T, true, 2>)
                       : launch(coded_stream_weights<T, false, 2>);
    }
    return one_scale ? launch(coded_stream_weights<T, true, 1>)
                     : launch(coded_stream_weights<T, false, 1>);
  };
  if (a.x_type == Type::kFloat16) return launch_type(Half{});
  launch_type(Bf16{});
}

}  // namespace attn::gpu
