#pragma once

#include "gpu/kernels/attention.h"
#include "gpu/kernels/batch.cuh"

namespace attn::gpu {

/// Keys begin .. end - 1; empty when end <= begin.
struct KeyRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

__device__ __forceinline__ std::int64_t position_of(const AttentionArguments& a, const Sequence& s,
                                                    std::int64_t i) {
  return a.top_left ? i : s.keys - s.rows + i;
}

/// The keys that the query at `position` sees. Every mask lets a query see one run of keys, and
/// both its ends move forward with the position, so a tile's range is begin of its first row to end
/// of its last.
__device__ __forceinline__ KeyRange visible_keys(const AttentionArguments& a, std::int64_t keys,
                                                 std::int64_t position) {
  KeyRange r{0, keys};
  const bool looks_back_only = a.mask != MaskKind::kNone && a.mask != MaskKind::kLookback;
  if (looks_back_only && position + 1 < keys) r.end = position + 1;
  if (a.mask == MaskKind::kChunked && position > 0) r.begin = position / a.span * a.span;
  if (a.mask == MaskKind::kWindow || a.mask == MaskKind::kLookback) {
    r.begin = position - a.span + 1 > 0 ? position - a.span + 1 : 0;
  }
  return r;
}

}  // namespace attn::gpu
