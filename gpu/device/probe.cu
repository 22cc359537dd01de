#include <cuda_runtime_api.h>

#include "gpu/device/probe.h"

namespace attn::gpu {
namespace {

__global__ void probe_kernel() {}

}  // namespace

int probe_kernel_image() {
  cudaFuncAttributes attributes;
  const cudaError_t status = cudaFuncGetAttributes(&attributes, probe_kernel);
  cudaGetLastError();  // a failed query must not show up as the next launch's error
  return static_cast<int>(status);
}

bool probe_hopper_code() {
  cudaFuncAttributes attributes;
  const cudaError_t status = cudaFuncGetAttributes(&attributes, probe_kernel);
  cudaGetLastError();
  return status == cudaSuccess && attributes.ptxVersion >= 90;
}

}  // namespace attn::gpu
