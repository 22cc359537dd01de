#pragma once

#include <cstdint>

#include "reference/core/case.h"

namespace attn::harness::cpu {

enum class CachePart { kKeys, kValues };

/// One kv head of position p of sequence b: what an element is stored as, times its scale (fp8
/// caches with scales), rounded to float32.
void load_head(const KvCache& cache, CachePart part, std::int64_t b, std::int64_t p,
               std::int64_t head, float* values);

/// The inverse. Plain float types round to nearest even; e4m3fn stores e4m3(value / scale), chosen
/// as in float64 and saturating. With a scale for each token and head that scale is made here:
/// float32(amax / 448), 1 for a row of zeros.
void store_head(const float* values, CachePart part, std::int64_t b, std::int64_t p,
                std::int64_t head, KvCache& cache);

}  // namespace attn::harness::cpu
