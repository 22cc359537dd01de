#include "harness/backends/cpu/visibility.h"

#include <algorithm>

#include "harness/backends/cpu/fault_switch.h"

namespace attn::harness::cpu {

KeyRange visible_keys(const MaskConfig& mask, std::int64_t position, std::int64_t keys) {
  KeyRange range{0, keys};
  const auto no_later_than_query = [&] {
    range.end = std::min(keys, position + 1);
    if (ATTN_FAULT(causal_one_late, position >= 0 && position + 1 < keys)) ++range.end;
    if (ATTN_FAULT(causal_without_diagonal, position > 0)) --range.end;
  };
  const auto first_in_window = [&] {
    std::int64_t first = position - mask.window_size.value() + 1;
    if (ATTN_FAULT(window_of_almost_all_ignored, mask.window_size == keys - 1))
      return std::int64_t{0};
    if (ATTN_FAULT(window_one_too_wide, first > 0)) --first;
    if (ATTN_FAULT(window_one_too_narrow, first >= 0)) ++first;
    return std::max<std::int64_t>(0, first);
  };
  switch (mask.variant) {
    case MaskVariant::kNull:
    case MaskVariant::kTensor:
      if (ATTN_FAULT(mask_tensor_tail_of_one, keys > 32 && keys % 32 == 1)) --range.end;
      break;
    case MaskVariant::kCausal:
      no_later_than_query();
      break;
    case MaskVariant::kChunkedCausal: {
      no_later_than_query();
      const std::int64_t chunk = mask.chunk_size.value();
      if (ATTN_FAULT(chunk_starts_one_early, position > 0 && (position + 1) % chunk == 0))
        ++position;
      if (ATTN_FAULT(chunk_of_two, position >= chunk)) position -= chunk;
      range.begin = std::max<std::int64_t>(position, 0) / chunk * chunk;
      break;
    }
    case MaskVariant::kSlidingWindowCausal:
      no_later_than_query();
      range.begin = first_in_window();
      break;
    case MaskVariant::kSlidingWindowNoncausal:
      range.begin = first_in_window();
      if (ATTN_FAULT(noncausal_window_two_sided, position + mask.window_size.value() < keys)) {
        range.end = position + mask.window_size.value();
      }
      break;
  }
  return range;
}

}  // namespace attn::harness::cpu
