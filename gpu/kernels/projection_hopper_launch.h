#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "gpu/kernels/bound.h"
#include "gpu/kernels/head_pass.h"

namespace attn::gpu {

/// Parameters of the kernel beside its tensor maps.
struct ProjectionCall {
  HeadPassArguments a;          ///< without sources
  const float* bias = nullptr;  ///< [(heads of q, k and v) * head_dim] or none
  float clip = kNoBound;        ///< bound of the sums
  void* qkv = nullptr;          ///< dense, or null: not kept
  int row_tiles = 0;
  int column_tiles = 0;
  int steps = 0;  ///< of kProjectionDepth columns of x and w
};

/// x [tokens, hidden] in boxes of 128 rows and w [columns, hidden] in boxes of 256, both of 64
/// columns.
struct ProjectionMaps {
  CUtensorMap x;
  CUtensorMap w;
};

/// Launches of one head_dim; one source file instantiates each.
template <int kHeadDim>
void launch_projection(const ProjectionMaps& maps, const ProjectionCall& call, int blocks,
                       cudaStream_t stream);

}  // namespace attn::gpu
