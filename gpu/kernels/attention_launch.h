#pragma once

#include <cuda_runtime_api.h>

#include "gpu/kernels/attention.h"
#include "gpu/kernels/attention_mma.cuh"

namespace attn::gpu {

/// Launches of one head-size bucket; one source file instantiates each, so that they compile side
/// by side. kHeadDim: head sizes are rounded up to it with zeros.
template <int kHeadDim>
void launch_prefill(const AttentionArguments& a, const AttentionPlan& plan,
                    const Partials& partials, cudaStream_t stream);
template <int kHeadDim>
void launch_decode(const AttentionArguments& a, const AttentionPlan& plan, const Partials& partials,
                   cudaStream_t stream);
/// The same for caches of e4m3 codes.
template <int kHeadDim>
void launch_coded_prefill(const AttentionArguments& a, const AttentionPlan& plan,
                          const Partials& partials, cudaStream_t stream);
template <int kHeadDim>
void launch_coded_decode(const AttentionArguments& a, const AttentionPlan& plan,
                         const Partials& partials, cudaStream_t stream);

}  // namespace attn::gpu
