#include "gpu/device/check.h"
#include "gpu/kernels/attention_launch.h"

namespace attn::gpu {
namespace {

constexpr int kCombineWarps = 4;

/// One warp a row and head: adds up the parts of the keys in their order.
template <typename T>
__global__ void __launch_bounds__(32 * kCombineWarps)
    combine_kernel(const __grid_constant__ AttentionArguments a,
                   const __grid_constant__ Partials partials) {
  const std::int64_t vectors = a.batch.tokens * a.num_heads;
  const std::int64_t vector =
      static_cast<std::int64_t>(blockIdx.x) * kCombineWarps + threadIdx.x / 32;
  wait_for_previous_grid();
  if (vector >= vectors) return;
  const int lane = threadIdx.x % 32;
  float max = -INFINITY;
  for (int s = 0; s < partials.splits; ++s) max = fmaxf(max, partials.max[s * vectors + vector]);
  const float shift = max == -INFINITY ? 0.0f : max;
  float sum = 0.0f;
  for (int s = 0; s < partials.splits; ++s) {
    const float factor = exp2_approximate(partials.max[s * vectors + vector] - shift);
    sum = fmaf(partials.sum[s * vectors + vector], factor, sum);
  }
  const RowEnd end =
      end_row(max, sum, a.sinks != nullptr ? a.sinks + vector % a.num_heads : nullptr);
  if (lane == 0) a.lse[vector] = end.lse;
  for (int d = 2 * lane; d < a.head_dim_v; d += 64) {
    float2 o = {0.0f, 0.0f};
#pragma unroll 4
    for (int s = 0; s < partials.splits; ++s) {
      const std::int64_t part = s * vectors + vector;
      const float factor = exp2_approximate(partials.max[part] - shift);
      const float2 x = *reinterpret_cast<const float2*>(partials.out + part * a.head_dim_v + d);
      o.x = fmaf(x.x, factor, o.x);
      o.y = fmaf(x.y, factor, o.y);
    }
    *reinterpret_cast<std::uint32_t*>(static_cast<T*>(a.out) + vector * a.head_dim_v + d) =
        pack2<T>(o.x * end.factor, o.y * end.factor);
  }
}

/// Compute capability 9.0 and up.
bool has_dependent_launch() {
  int device = 0;
  int major = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
        "cudaDeviceGetAttribute");
  return major >= 9;
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
                           StreamHandle stream) {
  if (a.batch.tokens == 0) return;
  const std::int64_t rows = plan.splits * a.batch.tokens * a.num_heads;
  Partials partials;
  partials.splits = plan.splits;
  if (plan.splits > 1)
    partials = {memory, memory + rows * a.head_dim_v, memory + rows * (a.head_dim_v + 1),
                plan.splits};
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
  if (plan.splits == 1) return;
  const auto combine = a.type == Type::kBFloat16 ? combine_kernel<Bf16> : combine_kernel<Half>;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(
      static_cast<unsigned>((a.batch.tokens * a.num_heads + kCombineWarps - 1) / kCombineWarps));
  config.blockDim = dim3(32 * kCombineWarps);
  config.stream = stream;
  // Its launch overlaps the attention kernel's end; it waits for the whole grid before it reads.
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = has_dependent_launch() ? 1 : 0;
  check(cudaLaunchKernelEx(&config, combine, a, partials), "combine");
}

}  // namespace attn::gpu
