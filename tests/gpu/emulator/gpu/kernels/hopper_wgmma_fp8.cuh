#pragma once

// Stands in for gpu/kernels/hopper_wgmma_fp8.cuh.

#include "gpu/kernels/hopper_wgmma.cuh"

namespace attn::gpu {

inline std::uint32_t pack_codes(float x0, float x1, float x2, float x3) {
  std::uint32_t codes = 0;
  int at = 0;
  for (const float x : {x0, x1, x2, x3}) {
    codes |= std::uint32_t{__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3)} << 8 * at++;
  }
  return codes;
}
template <int kColumns>
void wgmma_scores_fp8(float (&d)[kColumns / 2], std::uint64_t a, std::uint64_t b, int accumulate) {
  emulator::product({d, kColumns, false, accumulate != 0, a, nullptr, b, false, true});
}
template <int kColumns>
void wgmma_values_fp8(float (&d)[kColumns / 2], const std::uint32_t* a, std::uint64_t b) {
  emulator::product({d, kColumns, false, true, 0, a, b, false, true});
}

}  // namespace attn::gpu
