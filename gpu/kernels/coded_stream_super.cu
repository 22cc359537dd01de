// Scales of 256 columns and of groups in them: q4_k, q5_k, q6_k.
#include "gpu/kernels/coded_stream_instances.cuh"

namespace attn::gpu {

void launch_stream_super(const CodedGemmArguments& a, const StreamImage& image,
                         const void* image_from, const CodedStreamPlan& plan, cudaStream_t stream) {
  if (a.w.kind == CodeKind::kU4) {
    return launch_stream<CodeKind::kU4, true>(a, image, image_from, plan, stream);
  }
  if (a.w.kind == CodeKind::kU5) {
    return launch_stream<CodeKind::kU5, true>(a, image, image_from, plan, stream);
  }
  launch_stream<CodeKind::kU6, true>(a, image, image_from, plan, stream);
}

}  // namespace attn::gpu
