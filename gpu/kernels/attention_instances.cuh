// Definitions behind attention_launch.h, for the files that instantiate them.
#pragma once

#include "gpu/device/check.h"
#include "gpu/kernels/attention_decode.cuh"
#include "gpu/kernels/attention_launch.h"
#include "gpu/kernels/attention_prefill.cuh"
#include "gpu/kernels/prefill_shape.h"

namespace attn::gpu {

template <typename Kernel>
void launch_attention(Kernel kernel, dim3 grid, int threads, std::size_t shared,
                      const AttentionArguments& a, const Partials& partials, cudaStream_t stream) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shared)),
        "cudaFuncSetAttribute");
  kernel<<<grid, threads, shared, stream>>>(a, partials);
  check_launch("attention");
}

template <int kHeadDim, bool kSmall>
void launch_prefill_tiles(const AttentionArguments& a, const AttentionPlan& plan,
                          const Partials& partials, cudaStream_t stream) {
  constexpr PrefillTileSize kSize = prefill_tile_size(kHeadDim, kSmall);
  using Shape = PrefillShape<kHeadDim, kSize.warps, kSize.m_tiles, kSize.keys, kSize.blocks_per_sm>;
  const dim3 grid(static_cast<unsigned>(a.batch.batch * a.num_kv_heads),
                  static_cast<unsigned>(plan.row_tiles), static_cast<unsigned>(plan.splits));
  if (a.type == Type::kBFloat16) {
    launch_attention(attention_prefill_kernel<Bf16, Shape>, grid, Shape::kThreads,
                     sizeof(PrefillShared<Bf16, Shape>), a, partials, stream);
  } else {
    launch_attention(attention_prefill_kernel<Half, Shape>, grid, Shape::kThreads,
                     sizeof(PrefillShared<Half, Shape>), a, partials, stream);
  }
}

template <int kHeadDim>
void launch_prefill(const AttentionArguments& a, const AttentionPlan& plan,
                    const Partials& partials, cudaStream_t stream) {
  if (plan.small_tiles) {
    launch_prefill_tiles<kHeadDim, true>(a, plan, partials, stream);
  } else {
    launch_prefill_tiles<kHeadDim, false>(a, plan, partials, stream);
  }
}

template <int kHeadDim>
void launch_decode(const AttentionArguments& a, const AttentionPlan& plan, const Partials& partials,
                   cudaStream_t stream) {
  using Shape = DecodeShape<kHeadDim>;
  const dim3 grid(static_cast<unsigned>(a.batch.batch * a.num_kv_heads), 1,
                  static_cast<unsigned>(plan.splits));
  constexpr int kThreads = 32 * Shape::kWarps;
  if (a.type == Type::kBFloat16) {
    launch_attention(attention_decode_kernel<Bf16, Shape>, grid, kThreads,
                     sizeof(DecodeShared<Bf16, Shape>), a, partials, stream);
  } else {
    launch_attention(attention_decode_kernel<Half, Shape>, grid, kThreads,
                     sizeof(DecodeShared<Half, Shape>), a, partials, stream);
  }
}

}  // namespace attn::gpu
