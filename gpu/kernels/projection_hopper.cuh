// The projection to q, k and v for compute capability 9.0a, with all that head_pass does to them
// behind the products: wgmma on tiles that the copy engine (TMA) brings, one producer warpgroup and
// two consumers.
//
// A tile is 128 rows and 256 columns, whole heads; each consumer warpgroup has 64 rows of it.
// Blocks stay and take every gridDim-th tile. Of the producer warpgroup, a thread of warp 0 loads x
// and w, four stages ahead, on into the next tile while this one is finished; warp 1 finds out
// whose rows a tile's are: position, page and slot.
//
// A row of a head lies in four lanes, 8 j + 2 (lane % 4) and + 1 of its columns in each. So the
// norm's sum is two shuffles, and both ends of a rotated pair are registers of one thread:
// neighbours when interleaved, else head_dim / 2 columns apart, the whole head rotating. Values are
// rounded where head_pass rounds them. They leave through shared memory, a warp its own 16 rows, in
// rows of whole cache lines.
//
// Budget: 128 registers of sums, of 232; 192 KB of stages and 32 KB on their way out.
#pragma once

#include "gpu/kernels/hopper_ptx.cuh"
#include "gpu/kernels/hopper_wgmma.cuh"
#include "gpu/kernels/hopper_work.h"
#include "gpu/kernels/projection_hopper_launch.h"
#include "gpu/kernels/projection_work.h"
#include "gpu/kernels/token_place.cuh"

namespace attn::gpu {

template <typename T>
struct ProjectionShared {
  static constexpr int kOutSlab = 16 * kSlabColumns;  // of a warp's rows
  // In the swizzle of swizzle_128.
  T x[kProjectionStages][kProjectionRows * kProjectionDepth];
  T w[kProjectionStages][kProjectionColumns * kProjectionDepth];
  T out[kProjectionReaders][2][kOutSlab];
  std::uint64_t full[kProjectionStages], empty[kProjectionStages];
  std::uint64_t full_rows, empty_rows;
  TokenPlace rows[kProjectionRows];
};
/// With room to begin at a multiple of 1024.
template <typename T>
inline constexpr std::size_t kProjectionSharedBytes = sizeof(ProjectionShared<T>) + 1024;

template <typename Shared>
__device__ __forceinline__ void init_projection_barriers(Shared& shared) {
  for (int i = 0; i < kProjectionStages; ++i) {
    barrier_init(&shared.full[i], 1);
    barrier_init(&shared.empty[i], kProjectionReaders);
  }
  // Every lane that writes or reads rows says so itself.
  barrier_init(&shared.full_rows, 32);
  barrier_init(&shared.empty_rows, 32 * kProjectionReaders);
  fence_barrier_init();
}

/// One thread: x and w of all steps of the block's tiles.
template <typename Shared>
__device__ __forceinline__ void load_operands(Shared& shared, const CUtensorMap* map_x,
                                              const CUtensorMap* map_w,
                                              const ProjectionCall& call) {
  const int tiles = call.row_tiles * call.column_tiles;
  int position = 0;
  for (int index = static_cast<int>(blockIdx.x); index < tiles;
       index += static_cast<int>(gridDim.x)) {
    const ProjectionPlace place = projection_place(index, call.row_tiles, call.column_tiles);
#pragma unroll 1
    for (int step = 0; step < call.steps; ++step, ++position) {
      const int stage = projection_stage(position);
      barrier_wait(&shared.empty[stage], projection_parity(position) ^ 1);
      barrier_arrive_bytes(&shared.full[stage], sizeof(shared.x[0]) + sizeof(shared.w[0]));
      tensor_load_3d(shared.x[stage], map_x, &shared.full[stage], step * kProjectionDepth,
                     place.row_tile * kProjectionRows, 0);
      tensor_load_3d(shared.w[stage], map_w, &shared.full[stage], step * kProjectionDepth,
                     place.column_tile * kProjectionColumns, 0);
    }
  }
}

/// One warp: the rows of the block's tiles.
template <typename Shared>
__device__ __forceinline__ void find_rows(Shared& shared, const ProjectionCall& call) {
  const int tiles = call.row_tiles * call.column_tiles;
  unsigned turn = 0;
  for (int index = static_cast<int>(blockIdx.x); index < tiles;
       index += static_cast<int>(gridDim.x), ++turn) {
    const ProjectionPlace place = projection_place(index, call.row_tiles, call.column_tiles);
    barrier_wait(&shared.empty_rows, turn % 2 ^ 1);
#pragma unroll 1
    for (int r = static_cast<int>(threadIdx.x % 32); r < kProjectionRows; r += 32) {
      shared.rows[r] =
          place_of_token(call.a, static_cast<std::int64_t>(place.row_tile) * kProjectionRows + r);
    }
    barrier_arrive(&shared.full_rows);
  }
}

/// Where rows of one head go.
template <typename T>
struct ProjectionTarget {
  T* base = nullptr;  ///< null: nowhere
  std::int64_t page_stride = 0;
  std::int64_t row_stride = 0;  ///< of a slot, or of a row of the batch
  bool paged = false;
  T* zeros = nullptr;  ///< for rows that no sequence owns, laid out likewise, or null
};

/// A warpgroup with its 64 rows of each tile.
template <typename T, int kHeadDim>
class ProjectionConsumer {
 public:
  using Shared = ProjectionShared<T>;
  static constexpr int kSums = kProjectionColumns / 2;  // registers of a thread
  static constexpr int kHeads = kProjectionColumns / kHeadDim;
  static constexpr int kHeadSums = kHeadDim / 2;

  __device__ ProjectionConsumer(const ProjectionCall& call, Shared& shared)
      : call_(call),
        a_(call.a),
        shared_(shared),
        warp_(static_cast<int>(threadIdx.x) / 32 - 4),
        lane_(static_cast<int>(threadIdx.x % 32)) {}

  __device__ __forceinline__ void run();

 private:
  /// What a head's values have behind them when they leave.
  enum Exit { kProjected, kNormed, kRoped, kStored, kExits };

  __device__ __forceinline__ void multiply(float (&d)[kSums]);
  __device__ __forceinline__ void finish(float (&d)[kSums], const ProjectionPlace& place);
  __device__ __forceinline__ void add_bias(float (&d)[kSums], int first_head) const;
  __device__ __forceinline__ void normalise(float (&d)[kSums], int first_head) const;
  __device__ __forceinline__ void rotate_neighbours(float (&d)[kSums], int first_head) const;
  __device__ __forceinline__ void rotate_halves(float (&d)[kSums], int first_head) const;
  __device__ __forceinline__ ProjectionTarget<T> target_of(int exit, int head) const;
  __device__ __forceinline__ void write(const float* x, const ProjectionTarget<T>& target,
                                        std::int64_t first_row) const;

  __device__ __forceinline__ int q_heads() const { return static_cast<int>(a_.num_heads); }
  __device__ __forceinline__ int kv_heads() const { return static_cast<int>(a_.num_kv_heads); }
  __device__ __forceinline__ bool is_q(int head) const { return head < q_heads(); }
  /// Of q or k: heads that are normalised and rotated.
  __device__ __forceinline__ bool turns(int head) const { return head < q_heads() + kv_heads(); }
  __device__ __forceinline__ static float rounded(float x) { return to_float(from_float<T>(x)); }
  /// The rotation of the row of sums 2 h and 2 h + 1, or null.
  __device__ __forceinline__ const float* angles_of(int h) const {
    const int position = shared_.rows[16 * warp_ + lane_ / 4 + 8 * h].position;
    return position < 0 ? nullptr : a_.freqs_cis + position * a_.rotary_dim;
  }
  __device__ __forceinline__ void release(int position) const {
    if (lane_ == 0) barrier_arrive(&shared_.empty[projection_stage(position)]);
  }

  const ProjectionCall& call_;
  const HeadPassArguments& a_;
  Shared& shared_;
  int warp_;  ///< of both warpgroups
  int lane_;
  int position_ = 0;  ///< steps so far
};

template <typename T, int kHeadDim>
__device__ __forceinline__ void ProjectionConsumer<T, kHeadDim>::multiply(float (&d)[kSums]) {
  const int group = warp_ / 4;
#pragma unroll 1
  for (int step = 0; step < call_.steps; ++step, ++position_) {
    const int stage = projection_stage(position_);
    barrier_wait(&shared_.full[stage], projection_parity(position_));
    const std::uint64_t x = slab_descriptor(
        shared_address(shared_.x[stage] + group * kProjectionRows / 2 * kProjectionDepth));
    const std::uint64_t w = slab_descriptor(shared_address(shared_.w[stage]));
    pin_registers(d);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kProjectionDepth / 16; ++i) {
      wgmma_scores<T, kProjectionColumns>(d, x + 32 / 16 * i, w + 32 / 16 * i,
                                          step > 0 || i > 0 ? 1 : 0);
    }
    wgmma_commit();
    pin_registers(d);
    wgmma_wait<1>();  // the step before has been read
    if (step > 0) release(position_ - 1);
  }
  wgmma_wait<0>();
  pin_registers(d);
  release(position_ - 1);
}

/// The projection's own end: bias, clip, rounding.
template <typename T, int kHeadDim>
__device__ __forceinline__ void ProjectionConsumer<T, kHeadDim>::add_bias(float (&d)[kSums],
                                                                          int first_head) const {
  const int heads = q_heads() + 2 * kv_heads();
  if (call_.bias != nullptr) {
#pragma unroll
    for (int n = 0; n < kHeads; ++n) {
      if (first_head + n >= heads) continue;
      const float* const bias =
          call_.bias + static_cast<std::int64_t>(first_head + n) * kHeadDim + 2 * (lane_ % 4);
#pragma unroll
      for (int j = 0; j < kHeadDim / 8; ++j) {
        const float2 b = *reinterpret_cast<const float2*>(bias + 8 * j);
        float* const x = d + n * kHeadSums + 4 * j;
        x[0] = __fadd_rn(x[0], b.x);
        x[1] = __fadd_rn(x[1], b.y);
        x[2] = __fadd_rn(x[2], b.x);
        x[3] = __fadd_rn(x[3], b.y);
      }
    }
  }
  const float bound = call_.clip;
  if (bound < kNoBound) {
#pragma unroll
    for (int i = 0; i < kSums; ++i) d[i] = fabsf(d[i]) > bound ? copysignf(bound, d[i]) : d[i];
  }
#pragma unroll
  for (int i = 0; i < kSums; ++i) d[i] = rounded(d[i]);
}

/// x / sqrt(mean(x^2) + eps) * gamma of each head of q and k.
template <typename T, int kHeadDim>
__device__ __forceinline__ void ProjectionConsumer<T, kHeadDim>::normalise(float (&d)[kSums],
                                                                           int first_head) const {
#pragma unroll
  for (int n = 0; n < kHeads; ++n) {
    if (!turns(first_head + n)) continue;
    float* const x = d + n * kHeadSums;
    float inverse[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = 0.0f;
#pragma unroll
      for (int i = 0; i < kHeadSums / 2; ++i) {
        const float value = x[i / 2 * 4 + 2 * h + i % 2];
        sum = __fmaf_rn(value, value, sum);
      }
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      const float mean = __fdiv_rn(sum, static_cast<float>(kHeadDim));
      inverse[h] = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, a_.eps)));
    }
    const float* const gamma = (is_q(first_head + n) ? a_.q_gamma : a_.k_gamma) + 2 * (lane_ % 4);
#pragma unroll
    for (int j = 0; j < kHeadDim / 8; ++j) {
      const float2 g = *reinterpret_cast<const float2*>(gamma + 8 * j);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& value = x[4 * j + i];
        value = rounded(__fmul_rn(__fmul_rn(value, inverse[i / 2]), i % 2 == 0 ? g.x : g.y));
      }
    }
  }
}

/// Pairs (2 i, 2 i + 1) of the first or last rotary_dim channels.
template <typename T, int kHeadDim>
__device__ __forceinline__ void ProjectionConsumer<T, kHeadDim>::rotate_neighbours(
    float (&d)[kSums], int first_head) const {
  const int rotary = static_cast<int>(a_.rotary_dim);
  const int first = a_.rotate_last ? kHeadDim - rotary : 0;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float* const angles = angles_of(h);
    if (angles == nullptr) continue;
#pragma unroll
    for (int j = 0; j < kHeadDim / 8; ++j) {
      const int column = 8 * j + 2 * (lane_ % 4) - first;
      if (column < 0 || column >= rotary) continue;
      const float2 turn = *reinterpret_cast<const float2*>(angles + column);
#pragma unroll
      for (int n = 0; n < kHeads; ++n) {
        if (!turns(first_head + n)) continue;
        float& x = d[n * kHeadSums + 4 * j + 2 * h];
        float& y = d[n * kHeadSums + 4 * j + 2 * h + 1];
        const float turned = __fmaf_rn(x, turn.x, -__fmul_rn(y, turn.y));
        y = rounded(__fmaf_rn(x, turn.y, __fmul_rn(y, turn.x)));
        x = rounded(turned);
      }
    }
  }
}

/// Pairs (i, i + head_dim / 2); every channel rotates.
template <typename T, int kHeadDim>
__device__ __forceinline__ void ProjectionConsumer<T, kHeadDim>::rotate_halves(
    float (&d)[kSums], int first_head) const {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float* const angles = angles_of(h);
    if (angles == nullptr) continue;
#pragma unroll
    for (int j = 0; j < kHeadDim / 16; ++j) {
      // Of this column and the next.
      const float4 two = *reinterpret_cast<const float4*>(angles + 2 * (8 * j + 2 * (lane_ % 4)));
#pragma unroll
      for (int n = 0; n < kHeads; ++n) {
        if (!turns(first_head + n)) continue;
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const float c = e == 0 ? two.x : two.z;
          const float s = e == 0 ? two.y : two.w;
          float& x = d[n * kHeadSums + 4 * j + 2 * h + e];
          float& y = d[n * kHeadSums + 4 * (j + kHeadDim / 16) + 2 * h + e];
          const float turned = __fmaf_rn(x, c, -__fmul_rn(y, s));
          y = rounded(__fmaf_rn(x, s, __fmul_rn(y, c)));
          x = rounded(turned);
        }
      }
    }
  }
}

template <typename T, int kHeadDim>
__device__ __forceinline__ ProjectionTarget<T> ProjectionConsumer<T, kHeadDim>::target_of(
    int exit, int head) const {
  ProjectionTarget<T> target;
  const bool q = is_q(head);
  const bool v = !turns(head);
  const int heads = q ? q_heads() : kv_heads();
  const int h = q ? head : v ? head - q_heads() - kv_heads() : head - q_heads();
  void* base = nullptr;
  std::int64_t offset = static_cast<std::int64_t>(h) * kHeadDim;
  target.row_stride = static_cast<std::int64_t>(heads) * kHeadDim;
  if (h >= heads) return target;  // columns behind those of w
  if (exit == kProjected) {
    base = call_.qkv;
    offset = static_cast<std::int64_t>(head) * kHeadDim;
    target.row_stride = static_cast<std::int64_t>(q_heads() + 2 * kv_heads()) * kHeadDim;
  } else if (exit == kNormed && !v) {
    base = q ? a_.q_normed : a_.k_normed;
  } else if (exit == kRoped && !v) {
    base = q ? a_.q_roped : a_.k_roped;
    if (q && a_.padding_zeros != nullptr) {
      target.zeros = static_cast<T*>(a_.padding_zeros) + offset;
    }
  } else if (exit == kStored && !q) {
    base = v ? a_.cache.v : a_.cache.k;
    offset = h * (v ? a_.cache.v_head_stride : a_.cache.k_head_stride);
    target.paged = true;
    target.page_stride = v ? a_.cache.v_page_stride : a_.cache.k_page_stride;
    target.row_stride = v ? a_.cache.v_token_stride : a_.cache.k_token_stride;
  }
  if (base != nullptr) target.base = static_cast<T*>(base) + offset;
  return target;
}

/// The sums of one head, which are values of T by now. `first_row`: of the tile, in the batch.
template <typename T, int kHeadDim>
__device__ __forceinline__ void ProjectionConsumer<T, kHeadDim>::write(
    const float* x, const ProjectionTarget<T>& target, std::int64_t first_row) const {
  if (target.base == nullptr) return;
  const auto& out = shared_.out[warp_];
#pragma unroll
  for (int i = 0; i < kHeadDim / 16; ++i) {  // 16 columns
    const float* const s = x + 8 * i;
    store_matrix_x4(shared_address(out[i / 4]) + output_store_byte(lane_, i), pack2<T>(s[0], s[1]),
                    pack2<T>(s[2], s[3]), pack2<T>(s[4], s[5]), pack2<T>(s[6], s[7]));
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kHeadDim / 16; ++i) {  // four rows of a slab
    const int r = output_row(lane_, i);
    const int column = i / 4 * kSlabColumns + output_chunk(lane_) * 8;
    const uint4 values = *reinterpret_cast<const uint4*>(
        reinterpret_cast<const unsigned char*>(out[i / 4]) +
        swizzle_128(static_cast<std::uint32_t>(r),
                    static_cast<std::uint32_t>(output_chunk(lane_) * 16)));
    const TokenPlace row = shared_.rows[16 * warp_ + r];
    const std::int64_t index = first_row + 16 * warp_ + r;
    if (row.position >= 0) {
      const std::int64_t at = target.paged
                                  ? static_cast<std::int64_t>(row.page) * target.page_stride +
                                        row.slot * target.row_stride
                                  : index * target.row_stride;
      *reinterpret_cast<uint4*>(target.base + at + column) = values;
    } else if (row.position == kPaddingRow && target.zeros != nullptr) {
      *reinterpret_cast<uint4*>(target.zeros + index * target.row_stride + column) =
          make_uint4(0, 0, 0, 0);
    }
  }
  __syncwarp();  // before the next head's values come
}

template <typename T, int kHeadDim>
__device__ __forceinline__ void ProjectionConsumer<T, kHeadDim>::finish(
    float (&d)[kSums], const ProjectionPlace& place) {
  const int first_head = place.column_tile * kHeads;
  const std::int64_t first_row = static_cast<std::int64_t>(place.row_tile) * kProjectionRows;
#pragma unroll 1
  for (int exit = kProjected; exit < kExits; ++exit) {
    if (exit == kProjected) {
      add_bias(d, first_head);
    } else if (exit == kNormed) {
      if (!a_.norm) continue;
      normalise(d, first_head);
    } else if (exit == kRoped) {
      if (a_.interleaved) {
        rotate_neighbours(d, first_head);
      } else {
        rotate_halves(d, first_head);
      }
    }
#pragma unroll
    for (int n = 0; n < kHeads; ++n) {
      write(d + n * kHeadSums, target_of(exit, first_head + n), first_row);
    }
  }
}

template <typename T, int kHeadDim>
__device__ __forceinline__ void ProjectionConsumer<T, kHeadDim>::run() {
  const int tiles = call_.row_tiles * call_.column_tiles;
  unsigned turn = 0;
  float d[kSums];
#pragma unroll 1
  for (int index = static_cast<int>(blockIdx.x); index < tiles;
       index += static_cast<int>(gridDim.x), ++turn) {
    multiply(d);
    barrier_wait(&shared_.full_rows, turn % 2);
    finish(d, projection_place(index, call_.row_tiles, call_.column_tiles));
    barrier_arrive(&shared_.empty_rows);
  }
}

/// grid: blocks that stay.
template <typename T, int kHeadDim>
__global__ void __launch_bounds__(kProjectionThreads, 1)
    projection_hopper_kernel(const __grid_constant__ CUtensorMap map_x,
                             const __grid_constant__ CUtensorMap map_w,
                             const __grid_constant__ ProjectionCall call) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Shared = ProjectionShared<T>;
  extern __shared__ unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared*>(memory + (1024 - shared_address(memory) % 1024) % 1024);
  if (threadIdx.x == 0) {
    prefetch_tensor_map(&map_x);
    prefetch_tensor_map(&map_w);
    init_projection_barriers(shared);
  }
  __syncthreads();
  allow_dependent_launch();
  wait_for_previous_grid();
  fence_proxy_async();
  if (threadIdx.x < 128) {
    drop_registers<40>();
    if (threadIdx.x == 0) {
      load_operands(shared, &map_x, &map_w, call);
    } else if (threadIdx.x >= 32 && threadIdx.x < 64) {
      find_rows(shared, call);
    }
  } else {
    raise_registers<232>();
    ProjectionConsumer<T, kHeadDim>(call, shared).run();
  }
#endif
}

}  // namespace attn::gpu
