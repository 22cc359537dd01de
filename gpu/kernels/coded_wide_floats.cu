#include "gpu/kernels/coded_launch.h"
#include "gpu/kernels/coded_wide.cuh"

namespace attn::gpu {
namespace {

template <CodeKind kKind, typename T>
void launch(const CodedGemmArguments& a, const CodedGemmPlan& plan, float* partials,
            unsigned* counters, cudaStream_t stream) {
  launch_wide<kKind, T, CodeScaling::kGroup, 64>(a, plan, partials, counters, stream);
}

}  // namespace

void launch_wide_floats(const CodedGemmArguments& a, const CodedGemmPlan& plan, float* partials,
                        unsigned* counters, cudaStream_t stream) {
  const bool half = a.x_type == Type::kFloat16;
  if (a.w.kind == CodeKind::kE2m1) {
    return half ? launch<CodeKind::kE2m1, Half>(a, plan, partials, counters, stream)
                : launch<CodeKind::kE2m1, Bf16>(a, plan, partials, counters, stream);
  }
  half ? launch<CodeKind::kE4m3, Half>(a, plan, partials, counters, stream)
       : launch<CodeKind::kE4m3, Bf16>(a, plan, partials, counters, stream);
}

}  // namespace attn::gpu
