#include "gpu/device/check.h"
#include "gpu/kernels/attention_decode_lean_launch.h"
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

/// Head sizes are rounded up with zeros: to fewer sizes where reading the cache is most of the
/// work, which the zeros add nothing to.
void launch_any(const AttentionArguments& a, const AttentionPlan& plan, const Partials& partials,
                unsigned* counters, StreamHandle stream) {
#ifndef ATTN_FAULTY
  if (LeanDecode lean = lean_decode(a, plan); lean.k != nullptr) {
    if (plan.way.mail) lean.words = reinterpret_cast<std::uint64_t*>(counters);
    return launch_lean_decode(lean, a, plan, partials, stream);
  }
#endif
  const bool coded = a.cache.type == Type::kFloat8E4M3;
#ifdef ATTN_FAULTY
  if (plan.decode) {
    coded ? launch_coded_decode<64>(a, plan, partials, stream)
          : launch_decode<64>(a, plan, partials, stream);
  } else {
    coded ? launch_coded_prefill<64>(a, plan, partials, stream)
          : launch_prefill<64>(a, plan, partials, stream);
  }
#else
  const std::int64_t d = a.head_dim > a.head_dim_v ? a.head_dim : a.head_dim_v;
  if (plan.decode) {
    if (d <= 64) {
      coded ? launch_coded_decode<64>(a, plan, partials, stream)
            : launch_decode<64>(a, plan, partials, stream);
    } else if (d <= 128) {
      coded ? launch_coded_decode<128>(a, plan, partials, stream)
            : launch_decode<128>(a, plan, partials, stream);
    } else {
      coded ? launch_coded_decode<256>(a, plan, partials, stream)
            : launch_decode<256>(a, plan, partials, stream);
    }
    return;
  }
  if (coded) {
    if (d <= 64) return launch_coded_prefill<64>(a, plan, partials, stream);
    if (d <= 128) return launch_coded_prefill<128>(a, plan, partials, stream);
    return launch_coded_prefill<256>(a, plan, partials, stream);
  }
  if (d <= 32) return launch_prefill<32>(a, plan, partials, stream);
  if (d <= 64) return launch_prefill<64>(a, plan, partials, stream);
  if (d <= 80) return launch_prefill<80>(a, plan, partials, stream);
  if (d <= 96) return launch_prefill<96>(a, plan, partials, stream);
  if (d <= 128) return launch_prefill<128>(a, plan, partials, stream);
  launch_prefill<256>(a, plan, partials, stream);
#endif
}

}  // namespace

void attention_tensor_core(const AttentionArguments& a, const AttentionPlan& plan, float* memory,
                           unsigned* counters, float* mail, StreamHandle stream) {
  if (a.batch.tokens == 0) return;
  const std::int64_t rows = plan.splits * a.batch.tokens * a.num_heads;
  Partials partials;
  partials.splits = plan.splits;
  partials.cluster = plan.cluster;
  partials.group = static_cast<int>(a.num_heads / a.num_kv_heads);
  partials.planned_rows = static_cast<int>(plan.max_rows);
  partials.planned_keys = plan.max_keys;
  if (plan.splits > 1 && !plan.cluster) {
    partials.out = memory;
    partials.max = memory + rows * a.head_dim_v;
    partials.sum = partials.max + rows;
  }
  if (plan.splits > 1 && combines_in_kernel(plan)) partials.counters = counters;
  if (plan.way.mail) place_mail(partials, plan, mail);
  launch_any(a, plan, partials, counters, stream);
  if (plan.splits == 1 || combines_in_kernel(plan)) return;
  const auto blocks =
      static_cast<unsigned>((a.batch.tokens * a.num_heads + kCombineWarps - 1) / kCombineWarps);
  const auto combine = a.type == Type::kBFloat16 ? combine_kernel<Bf16> : combine_kernel<Half>;
  launch_dependent(combine, dim3(blocks), 1, 32 * kCombineWarps, 0, stream, a, partials);
}

}  // namespace attn::gpu
