#include "gpu/kernels/dependent_launch.cuh"

namespace attn::gpu {

bool has_dependent_launch() {
  int device = 0;
  int major = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
        "cudaDeviceGetAttribute");
  return major >= 9;
}

}  // namespace attn::gpu
