// float32 activations with gguf's weights.
#include "gpu/kernels/coded_stream_floats.cuh"
#include "gpu/kernels/coded_stream_launch.h"
#include "gpu/kernels/dependent_launch.cuh"
#include "gpu/kernels/shared_allowance.cuh"

namespace attn::gpu {
namespace {

template <CodeKind kKind, bool kSuper>
void launch_kind(const CodedGemmArguments& a, const CodedStreamPlan& plan, cudaStream_t stream) {
  const auto launch = [&](auto kernel) {
    allow_dynamic_shared(reinterpret_cast<const void*>(kernel), plan.shared_bytes);
    launch_dependent(kernel, static_cast<unsigned>(plan.blocks), 1, kStreamThreads,
                     plan.shared_bytes, stream, a, float_stream_units(a.k), plan.tiles);
  };
  if (a.m == 1) return launch(coded_stream_floats<kKind, kSuper, 1>);
  launch(coded_stream_floats<kKind, kSuper, kMostFloatStreamRows>);
}

}  // namespace

void launch_stream_floats(const CodedGemmArguments& a, const CodedStreamPlan& plan,
                          cudaStream_t stream) {
  const bool is_super = a.w.outer.bytes > 0;
  switch (a.w.kind) {
    case CodeKind::kU4:
      return is_super ? launch_kind<CodeKind::kU4, true>(a, plan, stream)
                      : launch_kind<CodeKind::kU4, false>(a, plan, stream);
    case CodeKind::kU5:
      return launch_kind<CodeKind::kU5, true>(a, plan, stream);
    case CodeKind::kU6:
      return launch_kind<CodeKind::kU6, true>(a, plan, stream);
    default:
      return launch_kind<CodeKind::kI8, false>(a, plan, stream);
  }
}

}  // namespace attn::gpu
