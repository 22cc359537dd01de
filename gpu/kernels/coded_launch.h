// The coded products' instances, in a few files that compile side by side.
#pragma once

#include <cuda_runtime.h>

#include "gpu/kernels/coded_gemm.h"

namespace attn::gpu {

/// mma.sync, up to 16 rows of x at a time and 64. a.w.scaling says which of the two.
void launch_coded_by_weight(const CodedGemmArguments& a, bool few, cudaStream_t stream);
void launch_coded_by_group(const CodedGemmArguments& a, bool few, cudaStream_t stream);

/// wgmma, by plan.tile.
void launch_wide_4bit(const CodedGemmArguments& a, const CodedGemmPlan& plan, float* partials,
                      unsigned* counters, cudaStream_t stream);
void launch_wide_8bit(const CodedGemmArguments& a, const CodedGemmPlan& plan, float* partials,
                      unsigned* counters, cudaStream_t stream);
void launch_wide_rows(const CodedGemmArguments& a, const CodedGemmPlan& plan, float* partials,
                      unsigned* counters, cudaStream_t stream);
void launch_wide_integers(const CodedGemmArguments& a, const CodedGemmPlan& plan, float* partials,
                          unsigned* counters, cudaStream_t stream);
void launch_wide_floats(const CodedGemmArguments& a, const CodedGemmPlan& plan, float* partials,
                        unsigned* counters, cudaStream_t stream);

/// True when this build has wgmma kernels for the current device.
bool has_wide_kernels();

}  // namespace attn::gpu
