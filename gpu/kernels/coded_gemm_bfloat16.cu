#include "gpu/kernels/coded_gemm.cuh"

namespace attn::gpu {

void launch_coded_bfloat16(const CodedGemmArguments& a, int scale_every, cudaStream_t stream) {
  launch_coded_kind<Bf16>(a, scale_every, stream);
}

}  // namespace attn::gpu
