#pragma once

#include "harness/fuzz/construct.h"

namespace attn::harness {

/// Whether queries are wrong, seen past an output projection that may be wrong itself. Pairs of
/// sequences have the same attn_out: one through its queries, from keys and values of the cache,
/// the other from equal values whatever its queries are. An output projection that is a function of
/// a row gives both the same output; other outputs come from wrong queries. `change` is made to
/// both.
Outcome pairs_differ(const Constructs& layer, const Construct& change);

}  // namespace attn::harness
