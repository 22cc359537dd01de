#include "gpu/kernels/attention_decode_lean.cuh"
#include "gpu/kernels/attention_decode_lean_launch.h"
#include "gpu/kernels/attention_launch.cuh"
#include "gpu/kernels/prefill_shape.h"

namespace attn::gpu {
namespace {

template <typename T, typename C, int kSlots, int kBlocksPerSm>
void launch(const LeanDecode& l, const AttentionArguments& a, const AttentionPlan& plan,
            const Partials& partials, cudaStream_t stream) {
  using Shape = DecodeShape<kLeanHeadDim, kLeanWarps, kSlots, 8, kBlocksPerSm, true>;
  constexpr std::size_t kShared = sizeof(DecodeShared<C, Shape>);
  static_assert(kBlocksPerSm * (kShared + 1024) <= kMostSharedBytes + 1024);
  const auto kernel = attention_decode_lean_kernel<T, C, Shape>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(kShared)),
        "cudaFuncSetAttribute");
  const dim3 grid(static_cast<unsigned>(a.num_kv_heads), static_cast<unsigned>(a.batch.batch),
                  static_cast<unsigned>(plan.splits));
  launch_dependent(kernel, grid, plan.cluster ? plan.splits : 1, Shape::kThreads, kShared, stream,
                   l, a, partials);
}

template <typename T>
void launch_type(const LeanDecode& l, const AttentionArguments& a, const AttentionPlan& plan,
                 const Partials& partials, cudaStream_t stream) {
  if (a.cache.type == Type::kFloat8E4M3) {
    launch<T, E4m3, 4, 2>(l, a, plan, partials, stream);
  } else if (plan.way.two_blocks) {
    launch<T, T, 3, 2>(l, a, plan, partials, stream);
  } else {
    launch<T, T, 4, 1>(l, a, plan, partials, stream);
  }
}

}  // namespace

void launch_lean_decode(const LeanDecode& l, const AttentionArguments& a, const AttentionPlan& plan,
                        const Partials& partials, cudaStream_t stream) {
  if (a.type == Type::kBFloat16) {
    launch_type<Bf16>(l, a, plan, partials, stream);
  } else {
    launch_type<Half>(l, a, plan, partials, stream);
  }
}

}  // namespace attn::gpu
