#pragma once

#include <cuda_runtime_api.h>

#include "gpu/kernels/attention_decode_lean.h"
#include "gpu/kernels/attention_mma.cuh"

namespace attn::gpu {

/// Of the lean decode kernel: `mail` is mail_floats() zeros.
inline void place_mail(Partials& partials, const AttentionPlan& plan, float* mail) {
  const int units = partials.group * kLeanHeadDim / 4;
  partials.share = (units + plan.splits - 1) / plan.splits;
  partials.share_inverse = (65'536 + partials.share - 1) / partials.share;
  partials.mail_out = reinterpret_cast<float4*>(mail);
  partials.mail_end = reinterpret_cast<float2*>(
      partials.mail_out + plan.decode_items * plan.splits * plan.splits * partials.share);
}

/// `l`: lean_decode() of both.
void launch_lean_decode(const LeanDecode& l, const AttentionArguments& a, const AttentionPlan& plan,
                        const Partials& partials, cudaStream_t stream);

}  // namespace attn::gpu
