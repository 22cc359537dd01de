#include "reference/stages/mask.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

namespace attn::reference {
namespace {

constexpr double kHidden = -std::numeric_limits<double>::infinity();

/// First key that a query at position q >= 0 sees, were the past all there is.
std::int64_t first_seen(const MaskConfig& mask, std::int64_t q) {
  switch (mask.variant) {
    case MaskVariant::kNull:
    case MaskVariant::kTensor:
    case MaskVariant::kCausal:
      return 0;
    case MaskVariant::kChunkedCausal:  // q / chunk == k / chunk
      return q / *mask.chunk_size * *mask.chunk_size;
    case MaskVariant::kSlidingWindowCausal:  // q - k < window
    case MaskVariant::kSlidingWindowNoncausal:
      return q - *mask.window_size + 1;
  }
  return 0;
}

bool sees_future(MaskVariant variant) {
  return variant == MaskVariant::kNull || variant == MaskVariant::kTensor ||
         variant == MaskVariant::kSlidingWindowNoncausal;
}

/// The row's part of the mask tensor; hidden keys at both ends are cut off the range, so that a row
/// that sees nothing has an empty one.
RowMask tensor_mask(const Tensor& mask, std::int64_t row, std::int64_t keys) {
  std::vector<double> added(static_cast<std::size_t>(keys));
  mask.values(row * mask.dim(1), added);
  const auto hidden = [](double a) { return a == kHidden; };
  const auto begin = std::find_if_not(added.begin(), added.end(), hidden);
  const auto end =
      std::find_if_not(added.rbegin(), std::make_reverse_iterator(begin), hidden).base();
  return {begin - added.begin(), end - added.begin(), std::vector<double>(begin, end)};
}

}  // namespace

bool RowMask::sees(std::int64_t key) const {
  return key >= begin && key < end &&
         (added.empty() || added[static_cast<std::size_t>(key - begin)] != kHidden);
}

RowMask row_mask(const Case& c, std::int64_t b, std::int64_t row) {
  const MaskConfig& mask = c.config.mask;
  const std::int64_t keys = c.key_count(b);
  if (mask.variant == MaskVariant::kTensor) {
    return tensor_mask(c.mask, row, keys);
  }
  // Negative when there are more queries than keys: such a row lies before every key.
  const std::int64_t q = c.query_position(b, row - c.row_begin(b));
  const std::int64_t end =
      sees_future(mask.variant) ? keys : std::clamp<std::int64_t>(q + 1, 0, keys);
  const std::int64_t begin = std::clamp<std::int64_t>(first_seen(mask, q), 0, end);
  return {begin, end, {}};
}

}  // namespace attn::reference
