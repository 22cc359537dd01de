#include "gpu/kernels/dependent_launch.cuh"
#include "gpu/kernels/gemv.cuh"

namespace attn::gpu {
namespace {

template <typename T, bool kHeads>
void launch(const GemvCall& call, int cluster, cudaStream_t stream) {
  const GemvGrid grid = gemv_grid(call, kHeads);
  launch_dependent(gemv_kernel<T, kHeads>,
                   dim3(static_cast<unsigned>(grid.x), 1, static_cast<unsigned>(grid.z)), cluster,
                   kGemvThreads, sizeof(GemvShared), stream, call);
}

template <typename T>
void launch(const GemvCall& call, bool heads, int cluster, cudaStream_t stream) {
  if (heads) return launch<T, true>(call, cluster, stream);
  launch<T, false>(call, cluster, stream);
}

}  // namespace

void launch_gemv(const GemvCall& call, bool heads, int cluster, cudaStream_t stream) {
  if (call.a.type == Type::kBFloat16) return launch<Bf16>(call, heads, cluster, stream);
  launch<Half>(call, heads, cluster, stream);
}

}  // namespace attn::gpu
