// One row of x and weights that stay codes, with warps that have nothing in common before the sums
// at the end: x is brought by each warp for itself, and a lane multiplies the codes that it has
// copied. What a job is is in coded_stream_one_codes.cuh and coded_stream_one_weights.cuh.
#pragma once

#include "gpu/kernels/coded_stream.cuh"

namespace attn::gpu {

/// threadIdx.x, that the compiler keeps in a register: reading it anew takes longer than a load
/// from shared memory.
__device__ __forceinline__ int kept_thread(const CodedGemmArguments& a) {
  return static_cast<int>(threadIdx.x | a.zero);
}

/// A job in shared memory: each lane's 16 bytes of codes of four chunks, and words behind them.
/// What a lane copies no other reads.
__device__ __forceinline__ void copy_job_codes(std::uint32_t slot, int lane, const char* from,
                                               int chunk) {
  copy_async_16(slot + 16 * lane + 512 * chunk, from, true);
}
__device__ __forceinline__ void copy_job_word(std::uint32_t slot, int lane, int word,
                                              const char* from) {
  copy_async_small<4>(slot + 2048 + 128 * word + 4 * lane, from, true);
}
__device__ __forceinline__ uint4 job_codes(const char* slot, int lane, int chunk) {
  return reinterpret_cast<const uint4*>(slot + 512 * chunk)[lane];
}
__device__ __forceinline__ std::uint32_t job_word(const char* slot, int lane, int word) {
  return reinterpret_cast<const std::uint32_t*>(slot + 2048 + 128 * word)[lane];
}

/// Where a tile begins in a plane. Both factors have 32 bits: one instruction.
__device__ __forceinline__ const char* tile_of(const CodedPlane& plane, int tile) {
  return static_cast<const char*>(plane.data) +
         static_cast<std::uint64_t>(static_cast<std::uint32_t>(tile)) *
             static_cast<std::uint32_t>(plane.tile_bytes);
}

/// Asks the L2 for all that the tiles [first, first + tiles) are made of.
__device__ __forceinline__ void ask_for_tiles(const CodedMatrix& w, int first, int tiles) {
  const auto ask = [&](const CodedPlane& plane) {
    if (plane.bytes == 0) return;
    prefetch_stretch_to_l2(tile_of(plane, first), static_cast<unsigned>(tiles * plane.tile_bytes));
  };
  ask(w.codes);
  ask(w.inner);
  ask(w.inner_min);
  ask(w.outer);
  ask(w.outer_min);
}

/// A block's product. copy(slot, tile, stage) asks for a job, fetch(stage) for x of a stage, which
/// bring() makes what add(slot, to) multiplies with: added to 16 sums. `early`: so many blocks come
/// early, and ask the L2 for the weights of the others.
template <typename Product>
__device__ __forceinline__ void one_row_product(const CodedGemmArguments& a, Product& product,
                                                int thread, char* ring, float* sums,
                                                int tiles_of_block, int early) {
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int all_tiles = static_cast<int>(a.w.rows / kCodedTile);
  const int first_tile = static_cast<int>(blockIdx.x) * tiles_of_block;
  const int tiles = min(all_tiles - first_tile, tiles_of_block);
  const int stages = static_cast<int>(a.w.chunks) / 4;
  const int begin = first_stream_job(tiles * stages, warp);
  const int end = first_stream_job(tiles * stages, warp + 1);
  StreamPlace place = {begin, 0};
  if (tiles > 1) {  // a division is a routine
    const auto first = static_cast<unsigned>(begin);
    place.stage = static_cast<int>(tiles == 2 ? first / 2 : first / static_cast<unsigned>(tiles));
    place.tile = begin - place.stage * tiles;
  }
  StreamPlace next = place;
  char* const own_ring = ring + warp * (kOneRowDepth * Product::kJobBytes);
  product.start(first_tile);
  const auto copy_next = [&](int slot) {
    product.copy(shared_address(own_ring + slot * Product::kJobBytes), next.tile, next.stage);
    next.advance(tiles);
  };
  // Weights do not depend on the kernel before this one.
#pragma unroll
  for (int i = 0; i < kOneRowDepth; ++i) {
    if (begin + i < end) copy_next(i);
    copy_async_commit();
  }
  if (static_cast<int>(blockIdx.x) < early && thread == 0) {
#pragma unroll 1
    for (int tile = first_tile + early * tiles_of_block; tile < all_tiles;
         tile += early * tiles_of_block) {
      ask_for_tiles(a.w, tile, min(all_tiles - tile, tiles_of_block));
    }
  }
  allow_dependent_launch();
#pragma unroll 1
  for (int tile = 0; tile < tiles; ++tile) {
    if (lane < kCodedTile) sums[(tile * kStreamWarps + warp) * kCodedTile + lane] = 0.0f;
  }
  __syncwarp();  // other lanes add to them
  wait_for_previous_grid();
  if (begin < end) product.fetch(place.stage);
  int stage = -1;  // that x is of
  int slot = 0;
#pragma unroll 1
  for (int job = begin; job < end; ++job) {
    if (place.stage != stage) {
      stage = place.stage;
      product.bring();
      if (job + tiles - place.tile < end) product.fetch(stage + 1);
    }
    copy_async_wait<kOneRowDepth - 1>();
    product.add(own_ring + slot * Product::kJobBytes,
                sums + (place.tile * kStreamWarps + warp) * kCodedTile);
    if (job + kOneRowDepth < end) copy_next(slot);
    copy_async_commit();
    slot = slot + 1 == kOneRowDepth ? 0 : slot + 1;
    place.advance(tiles);
  }
  __syncthreads();
  store_stream(a, 1, sums, first_tile, tiles);
}

}  // namespace attn::gpu
