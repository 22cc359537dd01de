#include "gpu/kernels/dependent_launch.cuh"
#include "gpu/kernels/gemv.cuh"

namespace attn::gpu {
namespace {

template <typename T, bool kHeads, int kTiles>
void launch(const GemvCall& call, int cluster, cudaStream_t stream) {
  const GemvGrid grid = gemv_grid(call, kHeads);
  launch_dependent(gemv_kernel<T, kHeads, kTiles>,
                   dim3(static_cast<unsigned>(grid.x), 1, static_cast<unsigned>(grid.z)), cluster,
                   gemv_threads(kTiles), sizeof(GemvShared<kTiles>), stream, call);
}

template <typename T>
void launch(const GemvCall& call, bool heads, int cluster, cudaStream_t stream) {
  if (!heads) return launch<T, false, 1>(call, cluster, stream);
  if (gemv_tiles(call) == 1) return launch<T, true, 1>(call, cluster, stream);
  launch<T, true, 2>(call, cluster, stream);
}

}  // namespace

void launch_gemv(const GemvCall& call, bool heads, int cluster, cudaStream_t stream) {
  if (call.a.type == Type::kBFloat16) return launch<Bf16>(call, heads, cluster, stream);
  launch<Half>(call, heads, cluster, stream);
}

}  // namespace attn::gpu
