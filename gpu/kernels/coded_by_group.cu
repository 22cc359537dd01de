// Scales that groups of columns share. Integer codes meet activations that are codes themselves,
// which are float16 here; float codes meet these or activations as they come.
#include "gpu/kernels/coded_few.cuh"
#include "gpu/kernels/coded_launch.h"
#include "gpu/kernels/coded_many.cuh"

namespace attn::gpu {
namespace {

template <CodeKind kKind, typename T>
void launch(const CodedGemmArguments& a, bool few, cudaStream_t stream) {
  constexpr CodeScaling kScaling = CodeScaling::kGroup;
  if (!few) return launch_many<kKind, T, kScaling>(a, stream);
  launch_few<kKind, T, kScaling>(a, stream);
}

}  // namespace

void launch_coded_by_group(const CodedGemmArguments& a, bool few, cudaStream_t stream) {
  const bool half = a.x_type == Type::kFloat16;
  switch (a.w.kind) {
    case CodeKind::kU4:
      return launch<CodeKind::kU4, Half>(a, few, stream);
    case CodeKind::kU5:
      return launch<CodeKind::kU5, Half>(a, few, stream);
    case CodeKind::kU6:
      return launch<CodeKind::kU6, Half>(a, few, stream);
    case CodeKind::kI8:
      return launch<CodeKind::kI8, Half>(a, few, stream);
    case CodeKind::kE2m1:
      return half ? launch<CodeKind::kE2m1, Half>(a, few, stream)
                  : launch<CodeKind::kE2m1, Bf16>(a, few, stream);
    case CodeKind::kE4m3:
      return half ? launch<CodeKind::kE4m3, Half>(a, few, stream)
                  : launch<CodeKind::kE4m3, Bf16>(a, few, stream);
  }
}

}  // namespace attn::gpu
