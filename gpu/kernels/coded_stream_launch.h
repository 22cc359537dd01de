#pragma once

#include <cuda_runtime.h>

#include "gpu/kernels/coded_stream.h"

namespace attn::gpu {

/// The instances, in sources that compile side by side: of the k-quants with mins, q6_k, the small
/// ones. `image_from`: the codes of x, or null where blocks make them.
void launch_stream_super(const CodedGemmArguments& a, const StreamImage& image,
                         const void* image_from, const CodedStreamPlan& plan, cudaStream_t stream);
void launch_stream_small(const CodedGemmArguments& a, const StreamImage& image,
                         const void* image_from, const CodedStreamPlan& plan, cudaStream_t stream);

void launch_stream_floats(const CodedGemmArguments& a, const CodedStreamPlan& plan,
                          cudaStream_t stream);
void launch_stream_weights(const CodedGemmArguments& a, const CodedStreamPlan& plan,
                           cudaStream_t stream);
void launch_stream_one(const CodedGemmArguments& a, const CodedStreamPlan& plan,
                       cudaStream_t stream);

}  // namespace attn::gpu
