#pragma once

#include "gpu/faults/fault_switch.h"
#include "gpu/kernels/batch.h"

namespace attn::gpu {

/// The sequence that owns a row: the last b with row_offsets[b] <= row. Empty sequences own none.
__device__ __forceinline__ std::int64_t sequence_of(const BatchView& batch, std::int64_t row) {
  std::int64_t low = 0;
  std::int64_t high = batch.batch - 1;
  while (low < high) {
    const std::int64_t middle = (low + high + 1) / 2;
    if (static_cast<std::int64_t>(batch.row_offsets[middle]) <= row) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

/// Rows from here on belong to no sequence: a batch may be padded to more rows than it has.
__device__ __forceinline__ std::int64_t end_of_rows(const BatchView& batch) {
  return batch.row_offsets[batch.batch];
}

struct Sequence {
  std::int64_t index = 0;
  std::int64_t first_row = 0;
  std::int64_t rows = 0;
  std::int64_t keys = 0;  ///< after the call
};

__device__ __forceinline__ Sequence load_sequence(const BatchView& batch, std::int64_t b) {
  Sequence s;
  s.index = b;
  s.first_row = batch.row_offsets[b];
  s.rows = static_cast<std::int64_t>(batch.row_offsets[b + 1]) - s.first_row;
  s.keys = batch.cache_lengths[b] + (batch.rows_are_new_keys ? s.rows : 0);
  return s;
}

/// Page and slot of position p of sequence b.
__device__ __forceinline__ std::int64_t page_of(const CacheView& cache, std::int64_t b,
                                                std::int64_t p) {
  std::int64_t column = p / cache.page_size;
  if (ATTN_FAULT(page_size_doubled, column > 0)) column /= 2;
  if (ATTN_FAULT(page_table_ignored, column > 0)) {
    return cache.page_table[b * cache.table_stride] + column;
  }
  const std::int64_t page = cache.page_table[b * cache.table_stride + column];
  if (ATTN_FAULT(page_id_in_7_bits, page >= 128 && page < 256)) return page - 128;
  return page;
}
__device__ __forceinline__ std::int64_t slot_of(const CacheView& cache, std::int64_t p) {
  const std::int64_t slot = p % cache.page_size;
  if (ATTN_FAULT(large_page_slots_paired, cache.page_size == 256)) return slot ^ 1;
  if (ATTN_FAULT(odd_page_last_slot,
                 cache.page_size % 2 != 0 && slot > 0 && slot == cache.page_size - 1)) {
    return slot - 1;
  }
  return slot;
}

/// Index of element (page of position p, slot of p, 0, 0), in 64 bits: a cache may hold more than
/// 2^31 elements.
__device__ __forceinline__ std::int64_t k_offset(const CacheView& cache, std::int64_t b,
                                                 std::int64_t p) {
  return page_of(cache, b, p) * cache.k_page_stride + slot_of(cache, p) * cache.k_token_stride;
}
__device__ __forceinline__ std::int64_t v_offset(const CacheView& cache, std::int64_t b,
                                                 std::int64_t p) {
  return page_of(cache, b, p) * cache.v_page_stride + slot_of(cache, p) * cache.v_token_stride;
}

/// Index of the scale of a kv head at position p, in k_scale and v_scale alike. Not for kNone.
__device__ __forceinline__ std::int64_t scale_offset(const CacheView& cache, std::int64_t b,
                                                     std::int64_t p, std::int64_t kv_head) {
  if (cache.scales == CacheScales::kTensor) return 0;
  if (ATTN_FAULT(cache_scale_of_head_0, kv_head > 0)) kv_head = 0;
  if (cache.scales == CacheScales::kHead) return kv_head;
  return page_of(cache, b, p) * cache.scale_page_stride +
         slot_of(cache, p) * cache.scale_token_stride + kv_head * cache.scale_head_stride;
}

}  // namespace attn::gpu
