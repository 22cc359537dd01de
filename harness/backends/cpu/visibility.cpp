#include "harness/backends/cpu/visibility.h"

#include <algorithm>

namespace attn::harness::cpu {

KeyRange visible_keys(const MaskConfig& mask, std::int64_t position, std::int64_t keys) {
  KeyRange range{0, keys};
  const auto no_later_than_query = [&] { range.end = std::min(keys, position + 1); };
  switch (mask.variant) {
    case MaskVariant::kNull:
    case MaskVariant::kTensor:
      break;
    case MaskVariant::kCausal:
      no_later_than_query();
      break;
    case MaskVariant::kChunkedCausal: {
      no_later_than_query();
      const std::int64_t chunk = mask.chunk_size.value();
      range.begin = std::max<std::int64_t>(position, 0) / chunk * chunk;
      break;
    }
    case MaskVariant::kSlidingWindowCausal:
      no_later_than_query();
      range.begin = std::max<std::int64_t>(0, position - mask.window_size.value() + 1);
      break;
    case MaskVariant::kSlidingWindowNoncausal:
      range.begin = std::max<std::int64_t>(0, position - mask.window_size.value() + 1);
      break;
  }
  return range;
}

}  // namespace attn::harness::cpu
