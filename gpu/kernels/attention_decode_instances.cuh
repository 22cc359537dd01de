// Definitions behind attention_launch.h, for the files that instantiate the decode kernel.
#pragma once

#include "gpu/kernels/attention_decode.cuh"
#include "gpu/kernels/attention_launch.cuh"
#include "gpu/kernels/prefill_shape.h"

namespace attn::gpu {

template <typename T, typename C, int kHeadDim, int kRows>
void launch_decode_blocks(const AttentionArguments& a, const AttentionPlan& plan,
                          const Partials& partials, cudaStream_t stream) {
  constexpr DecodeBlockSize kSize = decode_block_size(kHeadDim, sizeof(C) == 1, kRows);
  using Shape = DecodeShape<kHeadDim, kSize.warps, kSize.slots, kRows, kSize.blocks_per_sm>;
  static_assert(sizeof(DecodeShared<C, Shape>) <= kMostSharedBytes);
  const dim3 grid(static_cast<unsigned>(plan.decode_items), 1, static_cast<unsigned>(plan.splits));
  launch_attention(attention_decode_kernel<T, C, Shape>, grid, plan.cluster ? plan.splits : 1,
                   Shape::kThreads, sizeof(DecodeShared<C, Shape>), stream, a, partials);
}

template <typename T, typename C, int kHeadDim>
void launch_decode_type(const AttentionArguments& a, const AttentionPlan& plan,
                        const Partials& partials, cudaStream_t stream) {
  if (plan.decode_rows <= 8) {
    launch_decode_blocks<T, C, kHeadDim, 8>(a, plan, partials, stream);
  } else {
    launch_decode_blocks<T, C, kHeadDim, 16>(a, plan, partials, stream);
  }
}

template <int kHeadDim>
void launch_decode(const AttentionArguments& a, const AttentionPlan& plan, const Partials& partials,
                   cudaStream_t stream) {
  if (a.type == Type::kBFloat16) {
    launch_decode_type<Bf16, Bf16, kHeadDim>(a, plan, partials, stream);
  } else {
    launch_decode_type<Half, Half, kHeadDim>(a, plan, partials, stream);
  }
}

template <int kHeadDim>
void launch_coded_decode(const AttentionArguments& a, const AttentionPlan& plan,
                         const Partials& partials, cudaStream_t stream) {
  if (a.type == Type::kBFloat16) {
    launch_decode_type<Bf16, E4m3, kHeadDim>(a, plan, partials, stream);
  } else {
    launch_decode_type<Half, E4m3, kHeadDim>(a, plan, partials, stream);
  }
}

}  // namespace attn::gpu
