#pragma once

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
/// Blocks of the decoding kernel that share an SM: what shared memory and registers allow.
constexpr int decode_blocks_per_sm(int head_dim) { return head_dim <= 128 ? 2 : 1; }

inline constexpr int kDecodeWarps = 4;
/// Of a decode block that has an SM to itself.
inline constexpr int kWideDecodeWarps = 8;
constexpr bool has_wide_decode(int head_dim) { return head_dim <= 128; }

constexpr int prefill_rows(int head_dim, bool small) {
  const PrefillTileSize size = prefill_tile_size(head_dim, small);
  return 16 * size.m_tiles * size.warps;
}

}  // namespace attn::gpu
