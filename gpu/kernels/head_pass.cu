#include "gpu/device/check.h"
#include "gpu/kernels/head_pass_general.cuh"
#include "gpu/kernels/head_pass_plan.h"

namespace attn::gpu {
namespace {

template <typename T, typename C>
void launch(const HeadPassArguments& a, StreamHandle stream) {
  const std::int64_t jobs = a.batch.tokens * (a.num_heads + 2 * a.num_kv_heads);
  const auto blocks = static_cast<unsigned>((jobs + kHeadPassWarps - 1) / kHeadPassWarps);
  const std::size_t shared = static_cast<std::size_t>(kHeadPassWarps * a.head_dim) * sizeof(float);
#ifndef ATTN_FAULTY  // one of the two is enough to show a bug
  if (a.head_dim % 4 == 0) {
    head_pass_kernel<T, C, 4><<<blocks, 32 * kHeadPassWarps, shared, stream>>>(a);
    return check_launch("head_pass");
  }
#endif
  head_pass_kernel<T, C, 1><<<blocks, 32 * kHeadPassWarps, shared, stream>>>(a);
  check_launch("head_pass");
}

template <typename T>
void launch(const HeadPassArguments& a, StreamHandle stream) {
  switch (a.store ? a.cache.type : a.type) {
    case Type::kFloat32:
      return launch<T, float>(a, stream);
    case Type::kBFloat16:
      return launch<T, Bf16>(a, stream);
    case Type::kFloat16:
      return launch<T, Half>(a, stream);
    case Type::kFloat8E4M3:
      return launch<T, E4m3>(a, stream);
  }
}

}  // namespace

void head_pass_general(const HeadPassArguments& a, StreamHandle stream) {
  switch (a.type) {
    case Type::kFloat32:
      return launch<float>(a, stream);
    case Type::kBFloat16:
      return launch<Bf16>(a, stream);
    default:
      return launch<Half>(a, stream);
  }
}

}  // namespace attn::gpu
