// What the kernel for few rows does where: plain arithmetic that host and device share, and tests
// run without a device.
#pragma once

#include "gpu/kernels/host_device.h"

namespace attn::gpu {

/// A block has 16 rows of w (columns of y). Its warps share out the columns of w in pieces of a
/// cache line, and each has two such steps on their way: 16 KB a block and step. One warp more
/// finds out where the tokens belong.
inline constexpr int kGemvColumns = 16;
inline constexpr int kGemvWarps = 8;
/// Of a block of one tile, or of two.
ATTN_HOST_DEVICE constexpr int gemv_threads(int tiles) {
  return 32 * (kGemvWarps + (tiles == 1 ? 1 : 0));
}
inline constexpr int kGemvDepth = 64;  ///< columns of w of a warp's step
inline constexpr int kGemvAhead = 2;   ///< steps
inline constexpr int kGemvTokens = 8;
/// Blocks of a multiprocessor, of so many tiles each: 4096 -> 6144 is 384 of 396, or 192 of 264.
ATTN_HOST_DEVICE constexpr int gemv_blocks(int tiles) { return tiles == 1 ? 3 : 2; }

/// Of heads of up to 128 channels.
inline constexpr int kGemvMostParts = 8;

/// Tiles of 16 rows of w that a block has. Two for heads of 128 channels that are normalised: their
/// clusters would be of 8 blocks, of which an H200 seems to have 45 at a time where 48 heads want
/// 48, and the last ones' time is added; clusters of 4 such blocks it has 60.
ATTN_HOST_DEVICE constexpr int gemv_tiles(int head_dim, bool norm) {
  return norm && head_dim > 4 * kGemvColumns ? 2 : 1;
}

/// Blocks of a head, which are one cluster where the head's squares are summed.
ATTN_HOST_DEVICE constexpr int gemv_parts(int head_dim, int tiles) {
  return head_dim / (kGemvColumns * tiles);
}

/// Channel of a head that row i of a tile of its rows is: 8 neighbours and those half a head
/// further, so that both ends of a rotated pair are the tile's, whichever way they are paired.
ATTN_HOST_DEVICE int gemv_channel(int tile, int i, int head_dim) {
  return 8 * tile + i % 8 + i / 8 * (head_dim / 2);
}
/// The other end of its pair.
ATTN_HOST_DEVICE int gemv_partner(int i, bool interleaved) { return interleaved ? i ^ 1 : i ^ 8; }

/// First column of a warp's step.
ATTN_HOST_DEVICE int gemv_depth(int step, int warp) {
  return (step * kGemvWarps + warp) * kGemvDepth;
}
/// Steps of each warp, a multiple of those on their way.
ATTN_HOST_DEVICE int gemv_steps(int depth) {
  constexpr int kRound = kGemvAhead * kGemvWarps * kGemvDepth;
  return (depth + kRound - 1) / kRound * kGemvAhead;
}

}  // namespace attn::gpu
