#include "gpu/device/check.h"
#include "gpu/kernels/element.cuh"
#include "gpu/kernels/elementwise.h"

namespace attn::gpu {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kMostBlocks = 4096;  // the loops stride by the grid

int blocks_for(std::int64_t count) {
  const std::int64_t blocks = (count + kThreads - 1) / kThreads;
  return static_cast<int>(blocks < kMostBlocks ? blocks : kMostBlocks);
}

template <typename T>
__global__ void clip_kernel(T* data, std::int64_t count, float bound) {
  const float limit = to_float(from_float<T>(bound));
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    const float x = to_float(data[i]);
    // Comparisons, not fminf: NaN stays NaN.
    if (x > limit) data[i] = from_float<T>(limit);
    if (x < -limit) data[i] = from_float<T>(-limit);
  }
}

__global__ void convert_kernel(const void* from, Type from_type, void* to, Type to_type,
                               std::int64_t count) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    store_element(to, to_type, i, load_element(from, from_type, i));
  }
}

}  // namespace

void clip(void* data, Type type, std::int64_t count, float bound, StreamHandle stream) {
  if (count == 0) return;
  const int blocks = blocks_for(count);
  if (type == Type::kFloat32) {
    clip_kernel<<<blocks, kThreads, 0, stream>>>(static_cast<float*>(data), count, bound);
  } else if (type == Type::kBFloat16) {
    clip_kernel<<<blocks, kThreads, 0, stream>>>(static_cast<Bf16*>(data), count, bound);
  } else {
    clip_kernel<<<blocks, kThreads, 0, stream>>>(static_cast<Half*>(data), count, bound);
  }
  check_launch("clip");
}

void convert(const void* from, Type from_type, void* to, Type to_type, std::int64_t count,
             StreamHandle stream) {
  if (count == 0) return;
  convert_kernel<<<blocks_for(count), kThreads, 0, stream>>>(from, from_type, to, to_type, count);
  check_launch("convert");
}

void copy_on_device(const void* from, void* to, std::size_t bytes, StreamHandle stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream), "a copy on the device");
}

}  // namespace attn::gpu
