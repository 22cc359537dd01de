#pragma once

namespace attn::gpu {

/// The tile of the prefill kernel for a head-size bucket: rows 16 * m_tiles * warps, keys a step.
struct PrefillTileSize {
  int warps;
  int m_tiles;
  int keys;
  int blocks_per_sm;
};

/// Outputs take m_tiles * head_dim / 2 registers a thread: two row tiles a warp up to 128 channels,
/// one beyond, where eight warps keep the block at 128 rows.
constexpr PrefillTileSize prefill_tile_size(int head_dim) {
  return head_dim <= 128 ? PrefillTileSize{4, 2, 64, 2} : PrefillTileSize{8, 1, 64, 1};
}
/// Blocks of the decoding kernel that share an SM: what shared memory and registers allow.
constexpr int decode_blocks_per_sm(int head_dim) { return head_dim <= 128 ? 2 : 1; }

constexpr int prefill_rows(int head_dim) {
  return 16 * prefill_tile_size(head_dim).m_tiles * prefill_tile_size(head_dim).warps;
}

}  // namespace attn::gpu
