#pragma once

#include "gpu/faults/fault_switch.h"
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
  if (ATTN_FAULT(mask_top_left, !a.top_left && s.keys != s.rows)) return i;
  if (ATTN_FAULT(mask_align_ignored, a.top_left && s.keys != s.rows)) return s.keys - s.rows + i;
  const std::int64_t position = a.top_left ? i : s.keys - s.rows + i;
  if (ATTN_FAULT(negative_position_is_zero, position < 0)) return 0;
  return position;
}

/// The keys that the query at `position` sees. Every mask lets a query see one run of keys, and
/// both its ends move forward with the position, so a tile's range is begin of its first row to end
/// of its last.
__device__ __forceinline__ KeyRange visible_keys(const AttentionArguments& a, std::int64_t keys,
                                                 std::int64_t position) {
  KeyRange r{0, keys};
  const bool looks_back_only = a.mask != MaskKind::kNone && a.mask != MaskKind::kLookback;
  if (looks_back_only && position + 1 < keys) r.end = position + 1;
  if (ATTN_FAULT(causal_one_late, looks_back_only && position >= 0 && position + 1 < keys)) ++r.end;
  if (ATTN_FAULT(causal_without_diagonal,
                 a.mask == MaskKind::kCausal && position >= 0 && position < keys)) {
    r.end = position;
  }
  if (a.mask == MaskKind::kChunked && position > 0) {
    r.begin = position / a.span * a.span;
    if (ATTN_FAULT(chunk_starts_one_early, (position + 1) % a.span == 0)) r.begin = position;
    if (ATTN_FAULT(chunk_of_two, r.begin > 0)) r.begin -= a.span;
  }
  if (a.mask == MaskKind::kWindow || a.mask == MaskKind::kLookback) {
    r.begin = position - a.span + 1 > 0 ? position - a.span + 1 : 0;
    if (ATTN_FAULT(window_one_too_wide, r.begin > 0)) --r.begin;
    if (ATTN_FAULT(window_one_too_narrow, position - a.span + 2 > 0)) ++r.begin;
    if (ATTN_FAULT(window_of_almost_all_ignored, a.span == keys - 1 && r.begin > 0)) r.begin = 0;
    if (ATTN_FAULT(noncausal_window_two_sided,
                   a.mask == MaskKind::kLookback && position + a.span < keys)) {
      r.end = position + a.span;
    }
  }
  return r;
}

/// Row i of a sequence in the mask tensor.
__device__ __forceinline__ const float* mask_row_of(const AttentionArguments& a, const Sequence& s,
                                                    std::int64_t i) {
  std::int64_t row = s.first_row + i;
  std::int64_t stride = a.mask_stride;
  if (ATTN_FAULT(mask_row_of_sequence, s.first_row > 0)) row = i;
  if (ATTN_FAULT(mask_stride_of_sequence, s.keys != stride)) stride = s.keys;
  return a.mask_tensor + row * stride;
}

}  // namespace attn::gpu
