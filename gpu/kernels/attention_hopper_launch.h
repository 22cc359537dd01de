#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "gpu/kernels/attention.h"
#include "gpu/kernels/host_device.h"

namespace attn::gpu {

/// Parameters of the kernel beside its tensor maps.
struct HopperCall {
  AttentionArguments a;
  unsigned* counter = nullptr;  ///< of tiles that blocks have drawn
  int pack = 1;                 ///< heads of a unit, a power of two
  int pack_log2 = 0;
  int units = 1;  ///< q tiles that share rows: num_heads / pack
  int section = 1;
  int piece = 8;  ///< keys of a box
  // Images of steps, `image_steps` for each kv head of each sequence: hopper_image().
  unsigned char* key_images = nullptr;
  unsigned char* value_images = nullptr;
  int image_steps = 0;

  /// Query of a packed row of a sequence, and its head of the unit.
  ATTN_HOST_DEVICE int query_of(int row) const { return row >> pack_log2; }
  ATTN_HOST_DEVICE int head_of(int row) const { return row & (pack - 1); }
};

/// q [tokens, num_heads, head_dim] in boxes of 64 rows (64 / pack queries), k and v
/// [pages, kv heads, slots, head_dim] in boxes of `piece` slots, all of 64 columns.
struct HopperMaps {
  CUtensorMap q;
  CUtensorMap k;
  CUtensorMap v;
};

/// Launches of one number of slabs (64 columns) a row; one source file instantiates each.
template <int kSlabs>
void launch_hopper(const HopperMaps& maps, const HopperCall& call, int blocks, cudaStream_t stream);
/// The same of caches of e4m3 codes, which come without a map; of 1, 2 and 4 slabs.
template <int kSlabs>
void launch_hopper_codes(const CUtensorMap& map_q, const HopperCall& call, int blocks,
                         cudaStream_t stream);
/// The same from images, which a pass before it makes.
template <int kSlabs>
void launch_hopper_images(const CUtensorMap& map_q, const HopperCall& call, int blocks,
                          cudaStream_t stream);
/// Products of codes, whose keys come in boxes of `piece` slots, a row of 128 bytes each, and whose
/// values are turned by a pass before; of 1 and 2 slabs.
template <int kSlabs>
void launch_hopper_fp8(const CUtensorMap& map_k, const HopperCall& call, int blocks,
                       cudaStream_t stream);

}  // namespace attn::gpu
