// Definitions behind attention_launch.h, for the files that instantiate the tiled kernel.
#pragma once

#include "gpu/kernels/attention_launch.cuh"
#include "gpu/kernels/attention_prefill.cuh"
#include "gpu/kernels/prefill_shape.h"

namespace attn::gpu {

template <typename T, typename C, int kHeadDim, bool kSmall, bool kTransforms>
void launch_prefill_tiles(const AttentionArguments& a, const AttentionPlan& plan,
                          const Partials& partials, cudaStream_t stream) {
  constexpr PrefillTileSize kSize = prefill_tile_size(kHeadDim, kSmall);
  using Shape = PrefillShape<kHeadDim, kSize.warps, kSize.m_tiles, kSize.keys, kSize.blocks_per_sm,
                             kSize.stages, kTransforms>;
  static_assert(sizeof(PrefillShared<T, C, Shape>) <= kMostSharedBytes);
  const dim3 grid(static_cast<unsigned>(a.batch.batch * a.num_kv_heads),
                  static_cast<unsigned>(plan.row_tiles), static_cast<unsigned>(plan.splits));
  launch_attention(attention_prefill_kernel<T, C, Shape>, grid, 1, Shape::kThreads,
                   sizeof(PrefillShared<T, C, Shape>), stream, a, partials);
}

template <typename T, typename C, int kHeadDim>
void launch_prefill_type(const AttentionArguments& a, const AttentionPlan& plan,
                         const Partials& partials, cudaStream_t stream) {
  if (transforms_scores(a)) {
    if (plan.small_tiles) {
      launch_prefill_tiles<T, C, kHeadDim, true, true>(a, plan, partials, stream);
    } else {
      launch_prefill_tiles<T, C, kHeadDim, false, true>(a, plan, partials, stream);
    }
  } else if (plan.small_tiles) {
    launch_prefill_tiles<T, C, kHeadDim, true, false>(a, plan, partials, stream);
  } else {
    launch_prefill_tiles<T, C, kHeadDim, false, false>(a, plan, partials, stream);
  }
}

template <int kHeadDim>
void launch_prefill(const AttentionArguments& a, const AttentionPlan& plan,
                    const Partials& partials, cudaStream_t stream) {
  if (a.type == Type::kBFloat16) {
    launch_prefill_type<Bf16, Bf16, kHeadDim>(a, plan, partials, stream);
  } else {
    launch_prefill_type<Half, Half, kHeadDim>(a, plan, partials, stream);
  }
}

template <int kHeadDim>
void launch_coded_prefill(const AttentionArguments& a, const AttentionPlan& plan,
                          const Partials& partials, cudaStream_t stream) {
  if (a.type == Type::kBFloat16) {
    launch_prefill_type<Bf16, E4m3, kHeadDim>(a, plan, partials, stream);
  } else {
    launch_prefill_type<Half, E4m3, kHeadDim>(a, plan, partials, stream);
  }
}

}  // namespace attn::gpu
