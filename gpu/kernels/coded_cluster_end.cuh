// What the parts of a product by clusters (coded_cluster.cuh) do when each has its sums: they leave
// each other those that the other finishes, and store what they finish.
#pragma once

#include "gpu/kernels/coded_cluster_shape.h"
#include "gpu/kernels/coded_store.cuh"
#include "gpu/kernels/mma.cuh"

namespace attn::gpu {

/// What a set of warpgroups has, the same for all its threads.
struct ClusterPart {
  int part, parts;
  int set, sets;
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

/// Gives the other parts what they finish, and adds up what this one does.
template <int kColumns>
__device__ __forceinline__ void exchange(const ClusterPart& part, float (&sum)[kColumns / 2]) {
  using Tile = ClusterTile<kColumns>;
  constexpr int kOf = Tile::kOfUnit;
  constexpr int kWidth = kOf < 4 ? kOf : 4;
  const int units = Tile::kUnits / part.parts;  // of a part
  const int thread = static_cast<int>(threadIdx.x) - part.set * part.threads;
  char* const left = part.memory + part.at.left;
#pragma unroll
  for (int unit = 0; unit < Tile::kUnits; ++unit) {
    const int owner = unit * part.parts / Tile::kUnits;
    if (owner == part.part) continue;
    const int from = part.part < owner ? part.part : part.part - 1;
    const int block = owner / part.sets;
    const char* const place =
        left + (owner - block * part.sets) * part.at.left_of_set +
        4 * left_floats<kColumns>(from, unit - owner * units, units, part.threads, thread);
    const std::uint32_t to = cluster_address(shared_address(place), static_cast<unsigned>(block));
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
  cluster_arrive();
  cluster_wait();
  const auto* const own = reinterpret_cast<const float*>(left + part.set * part.at.left_of_set);
#pragma unroll
  for (int unit = 0; unit < Tile::kUnits; ++unit) {
    const int owner = unit * part.parts / Tile::kUnits;
    if (owner != part.part) continue;
    float total[kOf] = {};
#pragma unroll 1
    for (int other = 0; other < part.parts; ++other) {
      const int from = other < part.part ? other : other - 1;
      const float* const given =
          own + left_floats<kColumns>(other == part.part ? 0 : from, unit - owner * units, units,
                                      part.threads, thread);
#pragma unroll
      for (int i = 0; i < kOf; ++i) {
        total[i] += other == part.part ? sum[unit * kOf + i]
                                       : given[i / kWidth * kWidth * part.threads + i % kWidth];
      }
    }
#pragma unroll
    for (int i = 0; i < kOf; ++i) sum[unit * kOf + i] = total[i];
  }
}

/// Sums that this part finishes, to y, which is of the type of x. `low`: what those of rows lane /
/// 4 are multiplied by.
template <typename T, int kColumns>
__device__ __forceinline__ void store_sums(const CodedGemmArguments& a, const ClusterPart& part,
                                           std::int64_t tile, float low,
                                           const float (&sum)[kColumns / 2]) {
  using Tile = ClusterTile<kColumns>;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const std::int64_t n = tile * kCodedTile + lane / 4;  // and + 8
  const std::int64_t m = part.first_row + 2 * (lane % 4);
  const bool there[2] = {n < a.n, n + 8 < a.n};
  const bool has_bias = a.bias != nullptr;
  float bias[2] = {};
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if (has_bias && there[h]) bias[h] = a.bias[n + 8 * h];
  }
  T* const y = static_cast<T*>(a.y) + m * a.y_stride + n;
  const int rows = static_cast<int>(a.m - m < kColumns ? a.m - m : kColumns);
#pragma unroll
  for (int i = 0; i < Tile::kSums; ++i) {
    if (i / Tile::kOfUnit * part.parts / Tile::kUnits != part.part) continue;
    const int row = i / 4 * 8 + i % 2;
    const int h = i / 2 % 2;
    const float whole = h == 0 ? sum[i] * low : sum[i];
    const float biased = has_bias ? whole + bias[h] : whole;
    if (row < rows && there[h]) {
      y[row * a.y_stride + 8 * h] = from_float<T>(held_within(biased, a.clip));
    }
  }
}

}  // namespace attn::gpu
