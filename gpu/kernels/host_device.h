#pragma once

// Functions that kernels and host code share, so that tests without a device run what kernels do.
#ifdef __CUDACC__
#define ATTN_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define ATTN_HOST_DEVICE inline
#endif
