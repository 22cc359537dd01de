#include "gpu/kernels/coded_launch.h"
#include "gpu/kernels/coded_wide.cuh"

namespace attn::gpu {
namespace {

template <typename T>
void launch(const CodedGemmArguments& a, const CodedGemmPlan& plan, float* partials,
            unsigned* counters, cudaStream_t stream) {
  constexpr CodeKind kKind = CodeKind::kE4m3;
  constexpr CodeScaling kScaling = CodeScaling::kRow;
  switch (plan.tile) {
    case 32:
      return launch_wide<kKind, T, kScaling, 32>(a, plan, partials, counters, stream);
    case 64:
      return launch_wide<kKind, T, kScaling, 64>(a, plan, partials, counters, stream);
    default:
      return launch_wide<kKind, T, kScaling, 128>(a, plan, partials, counters, stream);
  }
}

}  // namespace

void launch_wide_rows(const CodedGemmArguments& a, const CodedGemmPlan& plan, float* partials,
                      unsigned* counters, cudaStream_t stream) {
  if (a.x_type == Type::kFloat16) return launch<Half>(a, plan, partials, counters, stream);
  launch<Bf16>(a, plan, partials, counters, stream);
}

}  // namespace attn::gpu
