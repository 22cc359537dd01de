// Scales of 32 columns alone: q4_0, q8_0. And what all have in common.
#include "gpu/kernels/coded_stream_instances.cuh"

namespace attn::gpu {

void launch_stream_small(const CodedGemmArguments& a, const StreamImage& image,
                         const void* image_from, const CodedStreamPlan& plan, cudaStream_t stream) {
  if (a.w.kind == CodeKind::kI8) {
    return launch_stream<CodeKind::kI8, false>(a, image, image_from, plan, stream);
  }
  launch_stream<CodeKind::kU4, false>(a, image, image_from, plan, stream);
}

std::size_t shared_memory_limit() {
  int device = 0;
  int bytes = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "shared memory of a block");
  return static_cast<std::size_t>(bytes);
}

void coded_stream(const CodedGemmArguments& a, const CodedStreamPlan& plan, void* image_memory,
                  StreamHandle stream) {
  if (a.m == 0 || a.n == 0) return;
  if (plan.one_row) return launch_stream_one(a, plan, stream);
  if (a.w.scaling == CodeScaling::kWeight) return launch_stream_weights(a, plan, stream);
  if (plan.floats) return launch_stream_floats(a, plan, stream);
  const StreamImage image = stream_image_of(a.w, a.m, a.k);
  const void* image_from = nullptr;
  if (!plan.fused) {
    constexpr int kWarps = 4;
    const auto blocks = static_cast<unsigned>((image.rows * image.units + kWarps - 1) / kWarps);
    launch_dependent(stream_codes<kWarps>, blocks, 1, 32 * kWarps, 0, stream, a, image,
                     static_cast<char*>(image_memory));
    image_from = image_memory;
  }
  if (a.w.outer.bytes > 0) return launch_stream_super(a, image, image_from, plan, stream);
  launch_stream_small(a, image, image_from, plan, stream);
}

}  // namespace attn::gpu
