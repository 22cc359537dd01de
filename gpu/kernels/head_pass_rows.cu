#include "gpu/device/check.h"
#include "gpu/kernels/head_pass_plan.h"
#include "gpu/kernels/head_pass_rows.cuh"

namespace attn::gpu {
namespace {

template <typename T, typename C>
void launch(const HeadPassArguments& a, int warps, StreamHandle stream) {
  const auto rows = static_cast<unsigned>(a.batch.tokens);
  const auto threads = static_cast<unsigned>(32 * warps);
  if (a.head_dim == 64) {
    head_rows_kernel<T, C, 64><<<rows, threads, 0, stream>>>(a, warps);
  } else if (a.head_dim == 128) {
    head_rows_kernel<T, C, 128><<<rows, threads, 0, stream>>>(a, warps);
  } else {
    head_rows_kernel<T, C, 256><<<rows, threads, 0, stream>>>(a, warps);
  }
  check_launch("head_pass_rows");
}

template <typename T>
void launch_type(const HeadPassArguments& a, int warps, StreamHandle stream) {
  const bool codes = a.store && a.cache.type == Type::kFloat8E4M3;
  codes ? launch<T, E4m3>(a, warps, stream) : launch<T, T>(a, warps, stream);
}

}  // namespace

void head_pass_rows(const HeadPassArguments& a, int warps, StreamHandle stream) {
  if (a.type == Type::kBFloat16) return launch_type<Bf16>(a, warps, stream);
  launch_type<Half>(a, warps, stream);
}

}  // namespace attn::gpu
