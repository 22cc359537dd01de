// How a consuming warpgroup of the Hopper prefill kernels writes a tile: included by
// attention_hopper_consumer.cuh, whose class it is of.
#pragma once

#include "gpu/kernels/attention_hopper_consumer.cuh"

namespace attn::gpu {

template <typename T, int kSlabs, int kWay>
__device__ __forceinline__ void HopperConsumer<T, kSlabs, kWay>::write(const HopperTile& t,
                                                                       int slot,
                                                                       float (&o)[kOutputs]) {
  const AttentionArguments& a = call_.a;
  float factor[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    sum_[h] += __shfl_xor_sync(0xffffffffu, sum_[h], 1);
    sum_[h] += __shfl_xor_sync(0xffffffffu, sum_[h], 2);
    constexpr float kUnit = 1.0f / (1 << kHopperFp8ProbabilityLog2);
    if constexpr (kFp8) sum_[h] *= kUnit;
    const int row = t.first_row + row_of(h);
    const float* const sink =
        a.sinks != nullptr ? a.sinks + t.unit * call_.pack + call_.head_of(row) : nullptr;
    const RowEnd end = end_row(shift_[h], sum_[h], sink);
    factor[h] = end.factor;
    if constexpr (kCoded) factor[h] *= shared_.scales[slot].y;
    if constexpr (kFp8) factor[h] *= kUnit;
    if (row < t.rows && lane_ % 4 == 0) a.lse[vector_of(t, row)] = end.lse;
  }
  constexpr int kOutSlabs = Shared::kOutSlabs;
  const int thread =
      hoist_none(static_cast<int>(threadIdx.x));  // or addresses fill the loop's registers
  const int warp = thread / 32 - 4;
  const int first_row = t.first_row + 16 * warp;
  const int columns = static_cast<int>(a.head_dim_v);
  const std::uint32_t out = shared_address(shared_.out[warp]);
  // Four of the warp's rows at a time; null behind the sequence's last.
  T* rows[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = first_row + output_row(thread, i);
    rows[i] = row < t.rows ? static_cast<T*>(a.out) + vector_of(t, row) * columns : nullptr;
  }
#pragma unroll
  for (int first = 0; first < kSlabs; first += kOutSlabs) {
    if (first > 0) __syncwarp();  // the slabs before have left
#pragma unroll
    for (int i = first * 4; i < (first + kOutSlabs) * 4; ++i) {
      const float* const x = o + 8 * i;
      store_matrix_x4(out + (i / 4 - first) * 2048 + output_store_byte(thread, i),
                      pack2<T>(x[0] * factor[0], x[1] * factor[0]),
                      pack2<T>(x[2] * factor[1], x[3] * factor[1]),
                      pack2<T>(x[4] * factor[0], x[5] * factor[0]),
                      pack2<T>(x[6] * factor[1], x[7] * factor[1]));
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (rows[i] == nullptr) continue;
#pragma unroll
      for (int slab = 0; slab < kOutSlabs; ++slab) {
        const int column = (first + slab) * kSlabColumns + output_chunk(thread) * 8;
        if (column >= columns) continue;
        *reinterpret_cast<uint4*>(rows[i] + column) = *reinterpret_cast<const uint4*>(
            reinterpret_cast<const unsigned char*>(shared_.out[warp][slab]) +
            swizzle_128(output_row(thread, i), output_chunk(thread) * 16));
      }
    }
  }
  __syncwarp();
}

}  // namespace attn::gpu
