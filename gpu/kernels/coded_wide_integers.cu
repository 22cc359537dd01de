#include "gpu/kernels/coded_launch.h"
#include "gpu/kernels/coded_wide.cuh"

namespace attn::gpu {
namespace {

template <CodeKind kKind>
void launch(const CodedGemmArguments& a, const CodedGemmPlan& plan, float* partials,
            unsigned* counters, cudaStream_t stream) {
  launch_wide<kKind, Half, CodeScaling::kGroup, 64>(a, plan, partials, counters, stream);
}

}  // namespace

void launch_wide_integers(const CodedGemmArguments& a, const CodedGemmPlan& plan, float* partials,
                          unsigned* counters, cudaStream_t stream) {
  switch (a.w.kind) {
    case CodeKind::kU4:
      return launch<CodeKind::kU4>(a, plan, partials, counters, stream);
    case CodeKind::kU5:
      return launch<CodeKind::kU5>(a, plan, partials, counters, stream);
    case CodeKind::kU6:
      return launch<CodeKind::kU6>(a, plan, partials, counters, stream);
    default:
      return launch<CodeKind::kI8>(a, plan, partials, counters, stream);
  }
}

}  // namespace attn::gpu
