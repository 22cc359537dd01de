#pragma once

#include "reference/core/case.h"
#include "reference/stages/rounding.h"

namespace attn::reference {

/// The cache as attention reads it: whole sequences after the call, back to back in logical order.
struct LogicalCache {
  Tensor k;  ///< [keys, Hkv, D] float64
  Tensor v;  ///< [keys, Hkv, Dv] float64
};

/// The case's pool with the new rows k [tokens, Hkv*D] and v [tokens, Hkv*Dv] written at positions
/// cached .. of each sequence, through the page table, in the case's layer, encoded to the cache's
/// type. Every other bit of the pool is kept.
///
/// A float8 cache with scales stores e4m3(value / scale). Where they are per token and head, the
/// new row of a head gets the scale float32(max|value| / 448), 1 when it is all zero, which is
/// written beside it. The layer as it runs divides in float32.
KvCache store(const Case& c, const MatrixView& k, const MatrixView& v, Rounding r);

/// The cache decoded: code * scale, rounded to float32 by the layer as it runs.
LogicalCache read_cache(const Case& c, const KvCache& cache, Rounding r);

/// Stages cache_k and cache_v: the pool after `store`, read by read_cache. The exact function does
/// not round to a 16- or 32-bit cache type: its new rows are k and v themselves. To a float8 cache
/// it does.
LogicalCache read_back(const Case& c, const KvCache& after, const MatrixView& k,
                       const MatrixView& v, Rounding r);

}  // namespace attn::reference
