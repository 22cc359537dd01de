#include "gpu/device/check.h"
#include "gpu/kernels/attention_launch.h"
#include "gpu/kernels/dependent_launch.cuh"

namespace attn::gpu {
namespace {

constexpr int kCombineWarps = 4;

/// One warp a row and head: adds up the parts of the keys in their order.
template <typename T>
__global__ void __launch_bounds__(32 * kCombineWarps)
    combine_kernel(const __grid_constant__ AttentionArguments a,
                   const __grid_constant__ Partials partials) {
  const std::int64_t vector =
      static_cast<std::int64_t>(blockIdx.x) * kCombineWarps + threadIdx.x / 32;
  wait_for_previous_grid();
  const std::int64_t vectors = end_of_rows(a.batch) * a.num_heads;  // none of the padding
  if (vector < vectors) combine_parts<T>(a, partials, vector);
}

template <int kHeadDim>
void launch(const AttentionArguments& a, const AttentionPlan& plan, const Partials& partials,
            StreamHandle stream) {
  if (plan.decode) {
    launch_decode<kHeadDim>(a, plan, partials, stream);
  } else {
    launch_prefill<kHeadDim>(a, plan, partials, stream);
  }
}

}  // namespace

void attention_tensor_core(const AttentionArguments& a, const AttentionPlan& plan, float* memory,
                           unsigned* counters, StreamHandle stream) {
  if (a.batch.tokens == 0) return;
  const std::int64_t rows = plan.splits * a.batch.tokens * a.num_heads;
  Partials partials;
  partials.splits = plan.splits;
  if (plan.splits > 1) {
    partials.out = memory;
    partials.max = memory + rows * a.head_dim_v;
    partials.sum = partials.max + rows;
    if (combines_in_kernel(plan)) partials.counters = counters;
  }
#ifdef ATTN_FAULTY
  launch<64>(a, plan, partials, stream);
#else
  const std::int64_t d = a.head_dim > a.head_dim_v ? a.head_dim : a.head_dim_v;
  if (d <= 32) {
    launch<32>(a, plan, partials, stream);
  } else if (d <= 64) {
    launch<64>(a, plan, partials, stream);
  } else if (d <= 80) {
    launch<80>(a, plan, partials, stream);
  } else if (d <= 96) {
    launch<96>(a, plan, partials, stream);
  } else if (d <= 128) {
    launch<128>(a, plan, partials, stream);
  } else {
    launch<256>(a, plan, partials, stream);
  }
#endif
  if (plan.splits == 1 || partials.counters != nullptr) return;
  const auto blocks =
      static_cast<unsigned>((a.batch.tokens * a.num_heads + kCombineWarps - 1) / kCombineWarps);
  const auto combine = a.type == Type::kBFloat16 ? combine_kernel<Bf16> : combine_kernel<Half>;
  launch_dependent(combine, dim3(blocks), 32 * kCombineWarps, 0, stream, a, partials);
}

}  // namespace attn::gpu
