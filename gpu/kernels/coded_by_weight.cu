// Scales that enter each weight (gptq), or only the result (float8 by tensor and by row).
#include "gpu/kernels/coded_few.cuh"
#include "gpu/kernels/coded_launch.h"
#include "gpu/kernels/coded_many.cuh"

namespace attn::gpu {
namespace {

template <CodeKind kKind, typename T, CodeScaling kScaling>
void launch(const CodedGemmArguments& a, bool few, cudaStream_t stream) {
  if (!few) return launch_many<kKind, T, kScaling>(a, stream);
  launch_few<kKind, T, kScaling>(a, stream);
}

template <typename T>
void launch_kind(const CodedGemmArguments& a, bool few, cudaStream_t stream) {
  if (a.w.scaling == CodeScaling::kRow) {
    launch<CodeKind::kE4m3, T, CodeScaling::kRow>(a, few, stream);
  } else if (a.w.kind == CodeKind::kU4) {
    launch<CodeKind::kU4, T, CodeScaling::kWeight>(a, few, stream);
  } else {
    launch<CodeKind::kI8, T, CodeScaling::kWeight>(a, few, stream);
  }
}

}  // namespace

void launch_coded_by_weight(const CodedGemmArguments& a, bool few, cudaStream_t stream) {
  if (a.x_type == Type::kFloat16) return launch_kind<Half>(a, few, stream);
  launch_kind<Bf16>(a, few, stream);
}

}  // namespace attn::gpu
