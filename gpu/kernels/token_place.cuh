// Where a row of a batch belongs in the paged cache.
#pragma once

#include "gpu/kernels/batch.cuh"
#include "gpu/kernels/head_pass.h"
#include "gpu/kernels/projection_work.h"

namespace attn::gpu {

/// Of a row: kPaddingRow, kNoRow, or its position with page and slot.
struct TokenPlace {
  int position = kNoRow;
  unsigned page = 0;
  int slot = 0;
};

__device__ __forceinline__ TokenPlace place_of_token(const HeadPassArguments& a, std::int64_t row) {
  TokenPlace r;
  if (row >= a.batch.tokens) return r;
  r.position = kPaddingRow;
  if (row >= end_of_rows(a.batch)) return r;
  const std::int64_t b = sequence_of(a.batch, row);
  const std::int64_t position = a.batch.cache_lengths[b] + (row - a.batch.row_offsets[b]);
  r.position = static_cast<int>(position);
  r.page = static_cast<unsigned>(page_of(a.cache, b, position));
  r.slot = static_cast<int>(slot_of(a.cache, position));
  return r;
}

}  // namespace attn::gpu
