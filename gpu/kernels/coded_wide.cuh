// Products of many rows of x with weights that stay codes, by wgmma: W is A, decoded in registers
// while the tensor cores work on the chunk before, x is B in shared memory. Four warps copy, a
// chunk each in turn: a warp must wait for its copies before it lets the tensor cores see them, so
// it asks for its next chunk or two first. Blocks share out the chunks of all tiles evenly, so
// that none is idle where tiles are few; the last block that a tile has adds up its parts in order.
// Compute capability 9.0a only; elsewhere the kernel is empty.
#pragma once

#include "gpu/kernels/coded_decode.cuh"
#include "gpu/kernels/dependent_launch.cuh"
#include "gpu/kernels/shared_allowance.cuh"
#include "gpu/kernels/wgmma_narrow.cuh"

namespace attn::gpu {

constexpr int kWideThreads = 256;  // that multiply: two warpgroups of 64 rows of W
constexpr int kWideCopyWarps = 4;
constexpr int kWideAllThreads = kWideThreads + 32 * kWideCopyWarps;
constexpr int kWideTiles = 8;  // of W, a block: one for each warp
constexpr int kWideRowsOfW = kCodedTile * kWideTiles;
// Rows of y that leave through shared memory at a time, so that rows are written whole.
constexpr int kWideStaged = 32;
constexpr int kWideStagedStride = kWideRowsOfW + 8;  // other banks for the row after the next

/// Sizes in shared memory, of one stage of a block's ring: x, then the records of its eight tiles,
/// then scales and sums of x's rows.
struct WideStage {
  int tile_bytes = 0;
  int x_scales = 0;
  int bytes = 0;
};

template <CodeKind kKind, typename T, CodeScaling kScaling, int kColumns>
struct WideShape {
  static constexpr int kStages =
      kKind == CodeKind::kU4 && kScaling == CodeScaling::kWeight && kColumns <= 64 ? 16 : 8;
  /// Groups of copies that a copying warp has under way behind the one that it waits for.
  static constexpr int kPending = kStages == 16 ? 2 : 1;
  static constexpr int kXBytes = kColumns * 2 * kCodedChunk;
  static constexpr int kStagedBytes = kWideStaged * kWideStagedStride * 2;

  static __host__ __device__ WideStage stage(const CodedGemmArguments& a) {
    WideStage s;
    s.tile_bytes = record_offsets(a.w, kScaling != CodeScaling::kRow).end;
    s.x_scales = kXBytes + kWideTiles * s.tile_bytes;
    s.bytes = s.x_scales;
    if (kScaling == CodeScaling::kGroup) {
      s.bytes += kColumns * 16 * ((a.x_scale != nullptr) + (a.x_sum != nullptr));
    }
    s.bytes = (s.bytes + 1023) / 1024 * 1024;  // the swizzle's period
    return s;
  }
  static std::size_t shared_bytes(const CodedGemmArguments& a) {
    return static_cast<std::size_t>(stage(a).bytes) * kStages + kStagedBytes + 1024;
  }
};

/// How chunks of tiles are shared out: unit u is chunk u % chunks of tile u / chunks; the blocks
/// have runs of units, or of whole tiles where these are many.
struct WideWork {
  int chunks = 0;
  int tiles_of_x = 0;
  int tiles = 0;  ///< tiles * chunks is an int
  bool whole_tiles = false;
  int blocks = 0;

  __device__ int begin(int block) const {
    if (whole_tiles)
      return static_cast<int>(static_cast<std::int64_t>(block) * tiles / blocks) * chunks;
    return static_cast<int>(static_cast<std::int64_t>(block) * tiles * chunks / blocks);
  }
  /// Where whole_tiles is false.
  __device__ int block_of(int unit) const {
    return static_cast<int>((static_cast<std::int64_t>(unit + 1) * blocks - 1) / (tiles * chunks));
  }
};

/// A number that all threads have, so that the compiler sees that they do.
__device__ __forceinline__ int uniform(int x) { return __shfl_sync(0xffffffffu, x, 0); }

template <CodeKind kKind, typename T, CodeScaling kScaling, int kColumns>
struct Wide {
  using Shape = WideShape<kKind, T, kScaling, kColumns>;
  static constexpr int kStages = Shape::kStages;
  static constexpr bool kMayBeSmall = kKind == CodeKind::kU4 && kScaling == CodeScaling::kWeight &&
                                      TypeOf<T>::value == Type::kBFloat16;

  const CodedGemmArguments& a;
  const WideStage s;
  const WideWork work;
  char* const ring;
  char* const staged;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const RecordOffsets at;

  __device__ Wide(const CodedGemmArguments& arguments, const WideWork& units, char* shared)
      : a(arguments),
        s(Shape::stage(arguments)),
        work(units),
        ring(shared),
        staged(shared + kStages * s.bytes),
        at(record_offsets(a.w, kScaling != CodeScaling::kRow)) {}

  __device__ std::int64_t first_row(int tile) const {  // of x
    return static_cast<std::int64_t>(tile % work.tiles_of_x) * kColumns;
  }
  /// Tile i of W of eight; the last one again where there is none.
  __device__ std::int64_t tile_of_w(int tile, int i) const {
    const std::int64_t own = static_cast<std::int64_t>(tile / work.tiles_of_x) * kWideTiles + i;
    const std::int64_t last = a.w.rows / kCodedTile - 1;
    return own < last ? own : last;
  }

  /// What a copying warp keeps from unit to unit of a tile.
  struct Source {
    int tile = -1;
    TileCopy<kKind> weights[kWideTiles];
    const T* x = nullptr;  // this lane's 16 bytes of its first row, chunk 0
    std::int64_t first = 0;
    int last_row = 0;
  };
  __device__ __forceinline__ void seek(int tile, const RecordPiece& piece, Source& source) const {
    if (tile == source.tile) return;
    source.tile = tile;
#pragma unroll
    for (int i = 0; i < kWideTiles; ++i) {
      source.weights[i] = TileCopy<kKind>(a.w, piece, tile_of_w(tile, i), lane);
    }
    source.first = first_row(tile);
    source.x = static_cast<const T*>(a.x) + (source.first + lane / 8) * a.x_stride + 8 * (lane % 8);
    source.last_row =
        static_cast<int>(a.m - source.first < kColumns ? a.m - source.first : kColumns) - 1;
  }

  /// By one warp.
  __device__ __forceinline__ void copy_weight(const Source& source, int chunk, int stage,
                                              const RecordPiece& piece) const {
    const std::uint32_t to = shared_address(ring + stage * s.bytes) + Shape::kXBytes + 16 * lane;
#pragma unroll
    for (int i = 0; i < kWideTiles; ++i) {
      source.weights[i](piece, chunk, to + i * s.tile_bytes);
    }
  }
  /// By one warp. Rows past the last are the last again: they are never stored.
  __device__ __forceinline__ void copy_x(const Source& source, int chunk, int stage) const {
    const std::uint32_t to = shared_address(ring + stage * s.bytes);
    const int row = lane / 8;
    const std::uint32_t even = to + 128 * row + 16 * (lane % 8 ^ row);
    const std::uint32_t odd = to + 128 * row + 16 * (lane % 8 ^ (row + 4));
    if (source.last_row == kColumns - 1 && (chunk + 1) * kCodedChunk <= a.k) {
      const T* from = source.x + chunk * kCodedChunk;
      const std::int64_t step = 4 * a.x_stride;
#pragma unroll
      for (int i = 0; i < kColumns / 4; ++i) {
        copy_16((i % 2 == 0 ? even : odd) + 512 * i, from);
        from += step;
      }
    } else {
      const bool valid = chunk * kCodedChunk + 8 * (lane % 8) < a.k;
#pragma unroll 4
      for (int i = 0; i < kColumns / 4; ++i) {
        const int r = row + 4 * i < source.last_row ? 4 * i : source.last_row - row;
        copy_async_16(
            (i % 2 == 0 ? even : odd) + 512 * i,
            valid ? source.x + chunk * kCodedChunk + r * a.x_stride : static_cast<const T*>(a.x),
            valid);
      }
    }
    if constexpr (kScaling == CodeScaling::kGroup) {
      const std::uint32_t scales_to = to + s.x_scales;
#pragma unroll
      for (int i = 0; i < kColumns / 32; ++i) {
        const int r = lane + 32 * i;
        const std::int64_t own = source.first + (r < source.last_row ? r : source.last_row);
        const std::int64_t step = (own * a.w.chunks + chunk) * 4;
        if (a.x_scale != nullptr) copy_16(scales_to + 16 * r, a.x_scale + step);
        if (a.x_sum != nullptr) copy_16(scales_to + 16 * (kColumns + r), a.x_sum + step);
      }
    }
  }

  /// Codes of a stage; `a.w.high` beside them.
  __device__ __forceinline__ const char* records(int stage) const {
    return ring + stage * s.bytes + Shape::kXBytes + warp * s.tile_bytes;
  }

  /// One chunk without groups. Its codes are decoded while the tensor cores work on the chunk
  /// before; what they read is made after that, by one instruction each: nothing may write to
  /// operands of wgmma while any is under way, or the compiler has each wait for the one before.
  /// `before()` says that the chunk before is done with.
  template <typename Before>
  __device__ __forceinline__ void multiply(int stage, bool first, const Before& before,
                                           float (&sum)[kColumns / 2]) const {
    const char* const own = records(stage);
    const std::uint64_t x = wgmma_descriptor(shared_address(ring + stage * s.bytes));
    const int shift = step_shift(a.w);
    const std::uint32_t zero = ChunkCodes<kKind>::template zero_of<T>(a.w);
    ChunkCodes<kKind> codes;
    codes.load(own, own + at.high, lane);
    std::uint32_t w[4][4];
    std::uint32_t scale[4] = {};
    if constexpr (kMayBeSmall) {
      if (a.w.small_scales && shift == 2) {
        return multiply_small(codes, own, x, first, before, sum);
      }
    }
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      codes.template decode<T>(step, zero, w[step]);
      if constexpr (kScaling == CodeScaling::kWeight) {
        scale[step] =
            reinterpret_cast<const std::uint32_t*>(own + at.inner)[(step >> shift) * 8 + lane / 4];
      }
      pin(w[step]);
    }
    pin(scale);
    wgmma_wait<0>();
    before();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      if constexpr (kScaling == CodeScaling::kWeight) {
        scale_fragment<T>(scale[step], w[step]);
      } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) w[step][i] ^= a.zero;
      }
      pin(w[step]);
    }
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      wgmma<T, kColumns>(sum, w[step], x + 2 * step, !first || step > 0);
    }
    wgmma_commit();
  }

  /// The same of small scales: one instruction less for each two weights.
  template <typename Before>
  __device__ __forceinline__ void multiply_small(const ChunkCodes<kKind>& codes, const char* own,
                                                 std::uint64_t x, bool first, const Before& before,
                                                 float (&sum)[kColumns / 2]) const {
    const std::uint32_t words[4] = {codes.low.x, codes.low.y, codes.low.z, codes.low.w};
    const SmallScales scales(reinterpret_cast<const std::uint32_t*>(own + at.inner)[lane / 4]);
    std::uint32_t w[4][4];
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      SmallScales::codes_of(words[step], w[step]);
      pin(w[step]);
    }
    wgmma_wait<0>();
    before();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        w[step][i] = fma_bf16_pair(w[step][i], scales.scale[i % 2], scales.eight[i % 2]);
      }
      pin(w[step]);
    }
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      wgmma<T, kColumns>(sum, w[step], x + 2 * step, !first || step > 0);
    }
    wgmma_commit();
  }

  /// One chunk whose columns have scales of their own, `every` steps a time.
  __device__ __forceinline__ void multiply_groups(int stage, float (&sum)[kColumns / 2]) const {
    const char* const own = records(stage);
    const ChunkRecords places{own + at.inner, own + at.inner_min, own + at.outer,
                              own + at.outer_min};
    const auto* const x_scales =
        reinterpret_cast<const float*>(ring + stage * s.bytes + s.x_scales);
    const std::uint64_t x = wgmma_descriptor(shared_address(ring + stage * s.bytes));
    const int every = columns_together(a) / kCodedStep;
    const std::uint32_t zero = ChunkCodes<kKind>::template zero_of<T>(a.w);
    ChunkCodes<kKind> codes;
    codes.load(own, own + at.high, lane);
    std::uint32_t w[4][4];
    float part[kColumns / 2];
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      codes.template decode<T>(step, zero, w[step]);
      pin(w[step]);
    }
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      wgmma_fence();
      wgmma<T, kColumns>(part, w[step], x + 2 * step, (step & (every - 1)) != 0);
      wgmma_commit();
      if (((step + 1) & (every - 1)) != 0) continue;
      const RowScales scales = row_scales(a.w, places, step, lane);
      wgmma_wait<0>();
      pin(part);
#pragma unroll
      for (int i = 0; i < kColumns / 2; ++i) {
        const int r = i / 4 * 8 + 2 * (lane % 4) + i % 2;
        const float x_scale = a.x_scale != nullptr ? x_scales[4 * r + step] : 1.0f;
        float x_sum = 0.0f;
        if constexpr (kMayHaveMin<kKind>) {
          if (a.x_sum != nullptr) x_sum = sum_of_group(x_scales + 4 * (kColumns + r) + step, every);
        }
        sum[i] = add_group(sum[i], part[i], x_sum, x_scale, scales, i / 2 % 2);
      }
    }
  }

  /// The threads that multiply wait for each other.
  static __device__ __forceinline__ void meet() {
    asm volatile("bar.sync 1, %0;" ::"n"(kWideThreads) : "memory");
  }

  /// Sums to y. All threads that multiply; the ring is not touched.
  __device__ void store(int tile, float (&sum)[kColumns / 2]) const {
    const std::int64_t column0 = static_cast<std::int64_t>(tile / work.tiles_of_x) * kWideRowsOfW;
    const std::int64_t row0 = first_row(tile);
    if constexpr (kScaling == CodeScaling::kRow) {
      const float2 scale =
          reinterpret_cast<const float2*>(record_of(a.w.inner, tile_of_w(tile, warp), 0))[lane / 4];
#pragma unroll
      for (int i = 0; i < kColumns / 2; ++i) {
        sum[i] *= (i / 2 % 2 == 0 ? scale.x : scale.y) * a.w.global;
        if (a.x_scale == nullptr) continue;
        const std::int64_t m = row0 + i / 4 * 8 + 2 * (lane % 4) + i % 2;
        if (m < a.m) sum[i] *= a.x_scale[m * a.w.chunks * 4];
      }
    }
    auto* const rows = reinterpret_cast<std::uint16_t*>(staged);
    const bool whole = a.out_type != Type::kFloat32 && a.y_stride % 8 == 0 && a.n % 8 == 0 &&
                       reinterpret_cast<std::uintptr_t>(a.y) % 16 == 0;
#pragma unroll
    for (int pass = 0; pass < kColumns / kWideStaged; ++pass) {
      if (row0 + pass * kWideStaged >= a.m) break;
      meet();  // the rows before have left
#pragma unroll
      for (int j = 0; j < kWideStaged / 2; ++j) {
        const int r = j / 4 * 8 + 2 * (lane % 4) + j % 2;
        const int c = warp * kCodedTile + lane / 4 + 8 * (j / 2 % 2);
        const std::int64_t m = row0 + pass * kWideStaged + r;
        const float value = sum[pass * (kWideStaged / 2) + j];
        if (!whole) {
          if (m < a.m && column0 + c < a.n) store_result(a, m, column0 + c, value);
          continue;
        }
        if (column0 + c >= a.n) continue;
        store_element(rows, a.out_type, r * kWideStagedStride + c,
                      finish_coded(a, column0 + c, value));
      }
      if (!whole) continue;
      meet();
      constexpr int kPieces = kWideRowsOfW / 8;
      for (int i = threadIdx.x; i < kWideStaged * kPieces; i += kWideThreads) {
        const std::int64_t m = row0 + pass * kWideStaged + i / kPieces;
        const std::int64_t c = column0 + i % kPieces * 8;
        if (m >= a.m || c >= a.n) continue;
        *reinterpret_cast<uint4*>(static_cast<std::uint16_t*>(a.y) + m * a.y_stride + c) =
            *reinterpret_cast<const uint4*>(rows + i / kPieces * kWideStagedStride +
                                            i % kPieces * 8);
      }
    }
  }

  /// Where the part of a tile that `block` has lies among the partial sums.
  __device__ std::int64_t part_of(int block, int tile) const {
    const bool begins = work.begin(block) / work.chunks == tile;
    return (2 * static_cast<std::int64_t>(block) + (begins ? 0 : 1)) * (kColumns / 2) *
           kWideThreads;
  }

  /// The end of this block's units of a tile. True: `sum` is all of it.
  __device__ bool gather(int tile, float* partials, unsigned* counters, int* is_last,
                         float (&sum)[kColumns / 2]) const {
    if (work.whole_tiles) return true;
    const int first = work.block_of(tile * work.chunks);
    const int last = work.block_of((tile + 1) * work.chunks - 1);
    if (first == last) return true;
    float* const own = partials + part_of(static_cast<int>(blockIdx.x), tile);
#pragma unroll
    for (int i = 0; i < kColumns / 2; ++i) own[i * kWideThreads + threadIdx.x] = sum[i];
    __threadfence();
    meet();
    if (threadIdx.x == 0) {
      *is_last = atomicAdd(counters + tile, 1u) == static_cast<unsigned>(last - first);
    }
    meet();
    if (uniform(*is_last) == 0) return false;
    __threadfence();
    if (threadIdx.x == 0) counters[tile] = 0;
#pragma unroll
    for (int i = 0; i < kColumns / 2; ++i) sum[i] = 0.0f;
    for (int block = first; block <= last; ++block) {
      const float* const part = partials + part_of(block, tile);
#pragma unroll
      for (int i = 0; i < kColumns / 2; ++i) {
        sum[i] += __ldcg(part + i * kWideThreads + threadIdx.x);
      }
    }
    return true;
  }
};

template <CodeKind kKind, typename T, CodeScaling kScaling, int kColumns>
__global__ void __launch_bounds__(kWideAllThreads, 1)
    coded_wide(const __grid_constant__ CodedGemmArguments a, const WideWork work,
               float* const partials, unsigned* const counters) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Block = Wide<kKind, T, kScaling, kColumns>;
  constexpr int kStages = Block::kStages;
  constexpr int kPending = Block::Shape::kPending;
  // A warp waits for room before it announces: what it waits for must be announced already.
  static_assert(kWideCopyWarps * (kPending + 1) <= kStages);
  extern __shared__ char shared[];
  // A stage has landed; all warps are done with it.
  __shared__ std::uint64_t landed[kStages];
  __shared__ std::uint64_t left[kStages];
  __shared__ int is_last;
  char* const aligned = shared + ((1024 - shared_address(shared) % 1024) % 1024);
  const Block block(a, work, aligned);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      barrier_init(&landed[i], 32);
      barrier_init(&left[i], kWideThreads);
    }
  }
  __syncthreads();
  const int begin = uniform(work.begin(static_cast<int>(blockIdx.x)));
  const int end = uniform(work.begin(static_cast<int>(blockIdx.x) + 1));
  allow_dependent_launch();
  if (block.warp >= kWideTiles) {
    const RecordPiece piece = record_piece(a.w, kScaling != CodeScaling::kRow, block.lane);
    const int first = block.warp - kWideTiles;
    int stage = first;
    unsigned round = 0;
    typename Block::Source source;
    const auto announce = [&](int landed_stage) {
      fence_shared_for_wgmma();
      barrier_arrive(&landed[landed_stage < 0 ? landed_stage + kStages : landed_stage]);
    };
    for (int unit = begin + first; unit < end; unit += kWideCopyWarps) {
      const int tile = unit / work.chunks;
      const int chunk = unit - tile * work.chunks;
      block.seek(tile, piece, source);
      if (round > 0) barrier_wait(&left[stage], (round - 1) & 1);
      block.copy_weight(source, chunk, stage, piece);
      // Weights do not depend on the kernel before this one; x does.
      if (unit == begin + first) wait_for_previous_grid();
      block.copy_x(source, chunk, stage);
      copy_async_commit();
      if (unit >= begin + first + kWideCopyWarps * kPending) {
        copy_async_wait<kPending>();
        announce(stage - kWideCopyWarps * kPending);
      }
      stage += kWideCopyWarps;
      if (stage >= kStages) {
        stage -= kStages;
        ++round;
      }
    }
    copy_async_wait<0>();
    const int own = (end - begin - first + kWideCopyWarps - 1) / kWideCopyWarps;  // or fewer: none
#pragma unroll
    for (int i = kPending; i > 0; --i) {
      if (own >= i) announce(stage - kWideCopyWarps * i);
    }
    return;
  }
  wait_for_previous_grid();
  float sum[kColumns / 2];
  int stage = 0;
  unsigned round = 0;
  for (int unit = begin; unit < end;) {
    const int tile = unit / work.chunks;
    const int first = unit;  // of this block's units of the tile
    const int stop = end < (tile + 1) * work.chunks ? end : (tile + 1) * work.chunks;
    if constexpr (kScaling == CodeScaling::kGroup) {
#pragma unroll
      for (int i = 0; i < kColumns / 2; ++i) sum[i] = 0.0f;
    }
    for (; unit < stop; ++unit) {
      barrier_wait(&landed[stage], round & 1);
      if constexpr (kScaling == CodeScaling::kGroup) {
        block.multiply_groups(stage, sum);
        barrier_arrive(&left[stage]);
      } else {
        block.multiply(
            stage, unit == first,
            [&] {
              if (unit != first) barrier_arrive(&left[stage == 0 ? kStages - 1 : stage - 1]);
            },
            sum);
      }
      if (++stage == kStages) {
        stage = 0;
        ++round;
      }
    }
    wgmma_wait<0>();
    pin(sum);
    if (kScaling != CodeScaling::kGroup) {
      barrier_arrive(&left[stage == 0 ? kStages - 1 : stage - 1]);
    }
    if (block.gather(tile, partials, counters, &is_last, sum)) block.store(tile, sum);
  }
#endif
}

template <CodeKind kKind, typename T, CodeScaling kScaling, int kColumns>
void launch_wide(const CodedGemmArguments& a, const CodedGemmPlan& plan, float* partials,
                 unsigned* counters, cudaStream_t stream) {
  const auto kernel = coded_wide<kKind, T, kScaling, kColumns>;
  const std::size_t shared = WideShape<kKind, T, kScaling, kColumns>::shared_bytes(a);
  allow_dynamic_shared(reinterpret_cast<const void*>(kernel), shared);
  WideWork work;
  work.chunks = static_cast<int>(a.w.chunks);
  work.tiles_of_x = static_cast<int>((a.m + kColumns - 1) / kColumns);
  work.tiles = static_cast<int>((a.w.rows + kWideRowsOfW - 1) / kWideRowsOfW) * work.tiles_of_x;
  work.whole_tiles = plan.partial_bytes == 0;
  work.blocks = plan.blocks;
  launch_dependent(kernel, dim3(static_cast<unsigned>(plan.blocks)), 1, kWideAllThreads, shared,
                   stream, a, work, partials, counters);
}

}  // namespace attn::gpu
