#pragma once

#include "reference/core/case.h"
#include "reference/stages/rounding.h"

namespace attn::reference {

/// What rotation and store leave of q, k and v.
struct RotatedQueries {
  Matrix q;       ///< [tokens, Hq*D]
  KvCache cache;  ///< the pool with the rotated k and with v at the new positions
};

/// The layer's two ways from q, k [tokens, Hkv*D] and v [tokens, Hkv*Dv] (after their norms) to
/// rotated queries and the filled cache, which agree bit for bit:
/// `rope_then_store` rotates all rows, and then stores them (_fuse_rope_and_store false);
/// `rope_and_store` goes through the rows once, rotates one and stores it (true).
RotatedQueries rope_then_store(const Case& c, const MatrixView& q, const MatrixView& k,
                               const MatrixView& v, Rounding r);
RotatedQueries rope_and_store(const Case& c, const MatrixView& q, const MatrixView& k,
                              const MatrixView& v, Rounding r);

}  // namespace attn::reference
