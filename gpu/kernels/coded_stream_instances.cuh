#pragma once

#include "gpu/kernels/coded_stream_bytes.cuh"
#include "gpu/kernels/coded_stream_launch.h"
#include "gpu/kernels/dependent_launch.cuh"
#include "gpu/kernels/shared_allowance.cuh"

namespace attn::gpu {

template <CodeKind kKind, bool kSuper>
void launch_stream(const CodedGemmArguments& a, const StreamImage& image, const void* image_from,
                   const CodedStreamPlan& plan, cudaStream_t stream) {
  const auto launch = [&](auto kernel) {
    allow_dynamic_shared(reinterpret_cast<const void*>(kernel), plan.shared_bytes);
    launch_dependent(kernel, static_cast<unsigned>(plan.blocks), 1, kStreamThreads,
                     plan.shared_bytes, stream, a, image, image_from, plan.tiles);
  };
  if constexpr (kKind != CodeKind::kU4 || !kSuper) {  // else coded_stream_one
    if (image.room == 1) return launch(coded_stream<kKind, kSuper, 1>);
  }
  if (image.room == 8) return launch(coded_stream<kKind, kSuper, 8>);
  launch(coded_stream<kKind, kSuper, 16>);
}

}  // namespace attn::gpu
