// Definitions behind attention_launch.h, for the files that instantiate them.
#pragma once

#include "gpu/device/check.h"
#include "gpu/kernels/attention_decode.cuh"
#include "gpu/kernels/attention_launch.h"
#include "gpu/kernels/attention_prefill.cuh"
#include "gpu/kernels/dependent_launch.cuh"
#include "gpu/kernels/prefill_shape.h"

namespace attn::gpu {

template <typename... Parameters, typename... Arguments>
void launch_attention(void (*kernel)(Parameters...), dim3 grid, int threads, std::size_t shared,
                      cudaStream_t stream, const Arguments&... arguments) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shared)),
        "cudaFuncSetAttribute");
  launch_dependent(kernel, grid, threads, shared, stream, arguments...);
}

template <int kHeadDim, bool kSmall, bool kTransforms>
void launch_prefill_tiles(const AttentionArguments& a, const AttentionPlan& plan,
                          const Partials& partials, cudaStream_t stream) {
  constexpr PrefillTileSize kSize = prefill_tile_size(kHeadDim, kSmall);
  using Shape = PrefillShape<kHeadDim, kSize.warps, kSize.m_tiles, kSize.keys, kSize.blocks_per_sm,
                             kSize.stages, kTransforms>;
  const dim3 grid(static_cast<unsigned>(a.batch.batch * a.num_kv_heads),
                  static_cast<unsigned>(plan.row_tiles), static_cast<unsigned>(plan.splits));
  if (a.type == Type::kBFloat16) {
    launch_attention(attention_prefill_kernel<Bf16, Shape>, grid, Shape::kThreads,
                     sizeof(PrefillShared<Bf16, Shape>), stream, a, partials);
  } else {
    launch_attention(attention_prefill_kernel<Half, Shape>, grid, Shape::kThreads,
                     sizeof(PrefillShared<Half, Shape>), stream, a, partials);
  }
}

template <int kHeadDim>
void launch_prefill(const AttentionArguments& a, const AttentionPlan& plan,
                    const Partials& partials, cudaStream_t stream) {
  if (transforms_scores(a)) {
    if (plan.small_tiles) {
      launch_prefill_tiles<kHeadDim, true, true>(a, plan, partials, stream);
    } else {
      launch_prefill_tiles<kHeadDim, false, true>(a, plan, partials, stream);
    }
  } else if (plan.small_tiles) {
    launch_prefill_tiles<kHeadDim, true, false>(a, plan, partials, stream);
  } else {
    launch_prefill_tiles<kHeadDim, false, false>(a, plan, partials, stream);
  }
}

template <int kHeadDim, int kWarps>
void launch_decode_blocks(const AttentionArguments& a, const AttentionPlan& plan,
                          const Partials& partials, cudaStream_t stream) {
  using Shape = DecodeShape<kHeadDim, kWarps>;
  const dim3 grid(static_cast<unsigned>(a.batch.batch * a.num_kv_heads), 1,
                  static_cast<unsigned>(plan.splits));
  if (a.type == Type::kBFloat16) {
    launch_attention(attention_decode_kernel<Bf16, Shape>, grid, 32 * kWarps,
                     sizeof(DecodeShared<Bf16, Shape>), stream, a, partials);
  } else {
    launch_attention(attention_decode_kernel<Half, Shape>, grid, 32 * kWarps,
                     sizeof(DecodeShared<Half, Shape>), stream, a, partials);
  }
}

template <int kHeadDim>
void launch_decode(const AttentionArguments& a, const AttentionPlan& plan, const Partials& partials,
                   cudaStream_t stream) {
  if constexpr (has_wide_decode(kHeadDim)) {
    if (plan.wide) {
      return launch_decode_blocks<kHeadDim, kWideDecodeWarps>(a, plan, partials, stream);
    }
  }
  launch_decode_blocks<kHeadDim, kDecodeWarps>(a, plan, partials, stream);
}

}  // namespace attn::gpu
