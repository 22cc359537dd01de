#pragma once

// Internal to harness/compare: a token's keys or values in the paged cache, scales applied.

#include <cstdint>
#include <span>

#include "reference/core/case.h"

namespace attn::harness {

/// Scale of the codes of sequence b's token p, key head `head`; 1 where the cache has none.
double cached_scale(const KvCache& cache, bool keys, std::int64_t b, std::int64_t p,
                    std::int64_t head);

/// Keys (or values) of one token and key head, decoded: code * scale, exact.
void read_cached(const KvCache& cache, bool keys, std::int64_t b, std::int64_t p, std::int64_t head,
                 std::span<double> out);

}  // namespace attn::harness
