// What the Hopper projection kernel does where: its tiles, their order, and its ring of stages.
// Plain arithmetic that host and device share: tests run it without a device.
#pragma once

#include "gpu/kernels/host_device.h"

namespace attn::gpu {

/// A tile of q, k and v: rows of the batch (half of them each consumer warpgroup's), columns that
/// are whole heads, and the columns of x and w that a stage holds of it.
inline constexpr int kProjectionRows = 128;
inline constexpr int kProjectionColumns = 256;
inline constexpr int kProjectionDepth = 64;
inline constexpr int kProjectionStages = 4;
/// A producer warpgroup and two consumers.
inline constexpr int kProjectionThreads = 384;
/// Row tiles that are walked together, so that the x and w of blocks at work meet in the L2.
inline constexpr int kProjectionGroup = 16;

struct ProjectionPlace {
  int row_tile = 0;
  int column_tile = 0;
};

/// Tile `index` of row_tiles * column_tiles: groups of row tiles; in a group column tiles, of each
/// all its row tiles.
ATTN_HOST_DEVICE ProjectionPlace projection_place(int index, int row_tiles, int column_tiles) {
  const int first = index / (kProjectionGroup * column_tiles) * kProjectionGroup;
  const int rows = row_tiles - first < kProjectionGroup ? row_tiles - first : kProjectionGroup;
  const int rest = index - first * column_tiles;
  ProjectionPlace place;
  place.row_tile = first + rest % rows;
  place.column_tile = rest / rows;
  return place;
}

/// Stage of position `position` (steps of all tiles so far), and the parity that its readers wait
/// for; its filler waits for the other.
ATTN_HOST_DEVICE int projection_stage(int position) { return position % kProjectionStages; }
ATTN_HOST_DEVICE unsigned projection_parity(int position) {
  return static_cast<unsigned>(position / kProjectionStages % 2);
}

/// Warps of consumers: a lane of each frees a stage.
inline constexpr int kProjectionReaders = 8;

/// Positions of rows that have none: no sequence owns the row, or the batch ends before it.
inline constexpr int kPaddingRow = -1;
inline constexpr int kNoRow = -2;

}  // namespace attn::gpu
