#include <cuda_runtime_api.h>

#include <vector>

#include "gpu/device/check.h"
#include "gpu/device/scratch.h"

namespace attn::gpu {
namespace {

constexpr int kThreads = 1024;
constexpr unsigned kNan = 0xffffffffu;  // in every float type
constexpr int kLocalWords = 256;

/// All shared memory that a block can have, so that one fills a multiprocessor.
__global__ void __launch_bounds__(kThreads) fill_kernel(int words, int which, unsigned* sink) {
  extern __shared__ unsigned shared[];
  for (int i = threadIdx.x; i < words; i += kThreads) shared[i] = kNan;
  unsigned local[kLocalWords];  // indexed at run time: it lies in memory
  for (int i = 0; i < kLocalWords; ++i) local[i] = kNan;
  __syncthreads();
  // Read back, so that the writes are not left out; `which` is never there.
  if (local[(which + threadIdx.x) % kLocalWords] != kNan || shared[which % words] != kNan) {
    *sink = 0;
  }
}

void fill_free_memory(cudaStream_t stream) {
  // Free blocks are found by size: a few of each.
  constexpr std::size_t kSmallest = std::size_t{1} << 12;
  constexpr std::size_t kLargest = std::size_t{1} << 25;
  std::vector<void*> blocks;
  for (std::size_t size = kSmallest; size <= kLargest; size *= 2) {
    for (int i = 0; i < 2; ++i) {
      void* block = nullptr;
      if (cudaMalloc(&block, size) != cudaSuccess) {
        cudaGetLastError();  // a full device is as dirty as it gets
        continue;
      }
      blocks.push_back(block);
      check(cudaMemsetAsync(block, 0xff, size, stream), "cudaMemset");
    }
  }
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  for (void* block : blocks) check(cudaFree(block), "cudaFree");
}

}  // namespace

void dirty_scratch(const Stream& stream) {
  fill_free_memory(stream.get());
  int device = 0;
  int bytes = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "cudaDeviceGetAttribute");
  check(cudaFuncSetAttribute(fill_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "cudaFuncSetAttribute");
  // Twice as many blocks as multiprocessors: none is left out when the first ones end early.
  fill_kernel<<<2 * multiprocessor_count(), kThreads, static_cast<std::size_t>(bytes),
                stream.get()>>>(bytes / 4, 0, nullptr);
  check_launch("dirty_scratch");
}

}  // namespace attn::gpu
