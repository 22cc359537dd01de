#include <algorithm>

#include "gpu/kernels/coded_gemm.cuh"

namespace attn::gpu {

void launch_coded_float16(const CodedGemmArguments& a, int scale_every, cudaStream_t stream) {
  launch_coded_kind<Half>(a, scale_every, stream);
}

void coded_gemm(const CodedGemmArguments& a, StreamHandle stream) {
  if (a.m == 0 || a.n == 0) return;
  int columns = a.w.group_shift < 6 ? 1 << a.w.group_shift : kCodedChunk;
  if (a.x_scale != nullptr) columns = std::min(columns, a.x_group);
  const int scale_every = columns / kCodedStep;
  // grid.y ends at 65535.
  constexpr std::int64_t kMostRows = 65535LL * kManyRows;
  for (std::int64_t first = 0; first < a.m; first += kMostRows) {
    CodedGemmArguments part = a;
    part.x = static_cast<const char*>(a.x) + first * a.k * size_of(a.x_type);
    if (a.x_scale != nullptr) part.x_scale = a.x_scale + first * (a.k / kCodedStep);
    part.y = static_cast<char*>(a.y) + first * a.y_stride * size_of(a.out_type);
    part.m = std::min(a.m - first, kMostRows);
    if (a.x_type == Type::kFloat16) {
      launch_coded_float16(part, scale_every, stream);
    } else {
      launch_coded_bfloat16(part, scale_every, stream);
    }
  }
}

}  // namespace attn::gpu
