#pragma once

// Tiles and blocks of the tensor-core attention kernels.

namespace attn::gpu {

/// The tile of the prefill kernel for a head-size bucket: rows 16 * m_tiles * warps, keys a step.
struct PrefillTileSize {
  int warps;
  int m_tiles;
  int keys;
  int blocks_per_sm;
  int stages;
};

/// Measured at 128 on an H200 (TFLOP/s at 4096 causal, 4096 full): 256 rows of one block, three
/// stages 316, 334; two blocks of 128 rows, two stages 312, 315. With a barrier a step: 280, 290,
/// and less with 16 rows a warp or 32 keys a step. Outputs take m_tiles * head_dim / 2 registers a
/// thread: two row tiles a warp up to 128 channels, one beyond, where eight warps keep the block at
/// 128 rows.
/// Small tiles are for calls that would leave multiprocessors idle or most of a tile empty.
constexpr PrefillTileSize prefill_tile_size(int head_dim, bool small) {
  if (small)
    return head_dim <= 128 ? PrefillTileSize{4, 1, 64, 3, 2} : PrefillTileSize{4, 1, 64, 1, 2};
  if (head_dim <= 64) return {4, 2, 64, 2, 3};
  if (head_dim <= 128) return {8, 2, 64, 1, 3};
  return {8, 1, 64, 1, 2};
}
/// The block of the decoding kernel for a head-size bucket. Slots are of each warp's ring: more of
/// them on their way than an H200 needs to cover its latency, so that they outlast the end of a
/// row. `coded`: a cache of 8-bit codes; half the bytes, and widening them wants more warps on an
/// SM.
struct DecodeBlockSize {
  int warps;
  int slots;
  int blocks_per_sm;
};
constexpr DecodeBlockSize decode_block_size(int head_dim, bool coded, int rows) {
  if (coded) {
    if (head_dim <= 128) return rows == 8 ? DecodeBlockSize{8, 4, 2} : DecodeBlockSize{8, 6, 1};
    return rows == 8 ? DecodeBlockSize{8, 4, 1} : DecodeBlockSize{4, 6, 1};
  }
  if (head_dim <= 64) return {8, 8, 1};
  if (head_dim <= 128) return {8, 4, 1};
  return {4, rows == 8 ? 5 : 4, 1};
}

/// Shared memory that a block of compute capability 9.0 may have.
inline constexpr int kMostSharedBytes = 227 * 1024;

constexpr int prefill_rows(int head_dim, bool small) {
  const PrefillTileSize size = prefill_tile_size(head_dim, small);
  return 16 * size.m_tiles * size.warps;
}

}  // namespace attn::gpu
