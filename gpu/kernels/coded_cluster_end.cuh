// What the parts of a product by clusters (coded_cluster.cuh) do when each has its sums: they leave
// each other those that the other finishes, and store what they finish.
#pragma once

#include "gpu/kernels/coded_cluster_shape.h"
#include "gpu/kernels/coded_store.cuh"
#include "gpu/kernels/mma.cuh"

namespace attn::gpu {

/// What a set of warpgroups has, the same for all its threads.
struct ClusterPart {
  int part, parts, parts_shift;
  int set, sets_shift;
  int first, chunks, pairs;  ///< chunks from `first` on, an even one
  int stages;
  int threads;             ///< of the set
  std::int64_t first_row;  ///< of x
  ClusterMemory at;
  char* memory;

  __device__ __forceinline__ char* x(int stage_bytes) const {
    return memory + set * stages * stage_bytes;
  }
  __device__ __forceinline__ std::uint64_t* full(int stage) const {
    return reinterpret_cast<std::uint64_t*>(memory + at.barriers + set * kClusterBarrierBytes) +
           stage;
  }
  __device__ __forceinline__ std::uint64_t* empty(int stage) const {
    return full(kMostClusterStages + stage);
  }
};

/// Where a thread's floats of a unit lie of what part `from` left for another; both count: `unit`
/// among the finisher's, `from` among the others.
template <int kColumns>
__device__ __forceinline__ int left_floats(int from, int unit, int units, int threads, int thread) {
  constexpr int kOf = ClusterTile<kColumns>::kOfUnit;
  constexpr int kWidth = kOf < 4 ? kOf : 4;
  return ((from * units + unit) * (kOf / kWidth) * threads + thread) * kWidth;
}

/// Gives the other parts what they finish.
template <int kColumns>
__device__ __forceinline__ void leave_sums(const ClusterPart& part,
                                           const float (&sum)[kColumns / 2]) {
  using Tile = ClusterTile<kColumns>;
  constexpr int kOf = Tile::kOfUnit;
  constexpr int kWidth = kOf < 4 ? kOf : 4;
  const int units = Tile::kUnits >> part.parts_shift;  // of a part
  const int thread = static_cast<int>(threadIdx.x) - part.set * part.threads;
  const std::uint32_t left = shared_address(part.memory + part.at.left);
#pragma unroll
  for (int unit = 0; unit < Tile::kUnits; ++unit) {
    const int owner = unit * part.parts / Tile::kUnits;
    if (owner == part.part) continue;
    const int from = part.part < owner ? part.part : part.part - 1;
    const int block = owner >> part.sets_shift;
    const int floats =
        left_floats<kColumns>(from, unit - owner * units, units, part.threads, thread);
    const std::uint32_t to = cluster_address(
        left + static_cast<std::uint32_t>(
                   (owner - (block << part.sets_shift)) * part.at.left_of_set + 4 * floats),
        static_cast<unsigned>(block));
#pragma unroll
    for (int v = 0; v < kOf; v += kWidth) {
      const float* const s = sum + unit * kOf + v;
      const std::uint32_t at = to + static_cast<std::uint32_t>(4 * v * part.threads);
      if constexpr (kWidth == 4) {
        cluster_store(at, make_float4(s[0], s[1], s[2], s[3]));
      } else {
        cluster_store(at, make_float2(s[0], s[1]));
      }
    }
  }
}

/// All parts' sums of what this one finishes, in their order, to y, which is of the type of x.
/// `low`: what those of rows lane / 4 are multiplied by. A loop: each instruction of the end is
/// waited for that is not in the instruction cache.
template <typename T, int kColumns>
__device__ __forceinline__ void finish_sums(const CodedGemmArguments& a, const ClusterPart& part,
                                            std::int64_t tile, float low,
                                            const float (&sum)[kColumns / 2]) {
  using Tile = ClusterTile<kColumns>;
  constexpr int kOf = Tile::kOfUnit;
  constexpr int kWidth = kOf < 4 ? kOf : 4;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int thread = static_cast<int>(threadIdx.x) - part.set * part.threads;
  const int units = Tile::kUnits >> part.parts_shift;
  const auto* const left =
      reinterpret_cast<const float*>(part.memory + part.at.left + part.set * part.at.left_of_set);
  const std::int64_t n = tile * kCodedTile + lane / 4;  // and + 8
  const bool there[2] = {n < a.n, n + 8 < a.n};
  const bool has_bias = a.bias != nullptr;
  float bias[2] = {};
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if (has_bias && there[h]) bias[h] = a.bias[n + 8 * h];
  }
  const std::int64_t rows_left = a.m - part.first_row;
  const int rows = static_cast<int>(rows_left < kColumns ? rows_left : kColumns);
  T* const y = static_cast<T*>(a.y) + part.first_row * a.y_stride + n;
#pragma unroll 1
  for (int u = 0; u < units; ++u) {
    const int unit = part.part * units + u;
    float own[kOf] = {};
#pragma unroll
    for (int which = 0; which < Tile::kUnits; ++which) {
#pragma unroll
      for (int i = 0; i < kOf; ++i) own[i] = which == unit ? sum[which * kOf + i] : own[i];
    }
    float total[kOf] = {};
#pragma unroll 1
    for (int other = 0; other < part.parts; ++other) {
      const int from = other < part.part ? other : other == part.part ? 0 : other - 1;
      const float* const given = left + left_floats<kColumns>(from, u, units, part.threads, thread);
#pragma unroll
      for (int i = 0; i < kOf; ++i) {
        float theirs = own[i];
        if (other != part.part) theirs = given[i / kWidth * kWidth * part.threads + i % kWidth];
        total[i] += theirs;
      }
    }
#pragma unroll
    for (int i = 0; i < kOf; ++i) {
      const int at = unit * kOf + i;  // as the sums of a thread lie
      const int row = at / 4 * 8 + 2 * (lane % 4) + i % 2;
      const int h = at / 2 % 2;
      const float whole = h == 0 ? total[i] * low : total[i];
      const float biased = has_bias ? whole + (h == 0 ? bias[0] : bias[1]) : whole;
      if (row < rows && (h == 0 ? there[0] : there[1])) {
        y[row * a.y_stride + 8 * h] = from_float<T>(held_within(biased, a.clip));
      }
    }
  }
}

}  // namespace attn::gpu
