#pragma once

#include <cuda_runtime_api.h>

#include "gpu/kernels/bound.h"
#include "gpu/kernels/head_pass.h"

namespace attn::gpu {

/// Parameters of the kernel.
struct GemvCall {
  HeadPassArguments a;  ///< of heads, without sources
  const void* x = nullptr;
  const void* w = nullptr;
  const float* bias = nullptr;  ///< [columns] or none
  void* y = nullptr;
  std::int64_t y_stride = 0;
  float bound = kNoBound;  ///< of |y|
  int tokens = 0;
  int columns = 0;  ///< rows of w
  int depth = 0;
  bool ahead = false;  ///< the block's rows of w to the L2 while the grid before still runs
};

/// Blocks along x (heads, or 16 rows of w) and along z (parts of a head).
struct GemvGrid {
  int x = 1;
  int z = 1;
};
GemvGrid gemv_grid(const GemvCall& call, bool heads);
/// Tiles of a block of heads: gemv_work.h.
int gemv_tiles(const GemvCall& call);

/// `cluster`: blocks of a cluster along z, of whole heads; 1 for no cluster.
void launch_gemv(const GemvCall& call, bool heads, int cluster, cudaStream_t stream);

}  // namespace attn::gpu
