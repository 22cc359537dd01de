#pragma once

// Internal to harness/relations: cases made from a case, without a rounding.

#include <cstdint>
#include <span>
#include <vector>

#include "reference/core/case.h"

namespace attn::harness {

/// The slices `index` of `axis`, in that order.
Tensor gather(const Tensor& t, std::size_t axis, std::span<const std::int64_t> index);

/// Some rows of one sequence as a sequence of its own.
struct Part {
  std::int64_t sequence = 0;
  std::int64_t first = 0;   ///< of its query rows
  std::int64_t count = 0;   ///< of them
  std::int64_t length = 0;  ///< its entry of cache_lengths
};
/// The whole of sequence b.
Part whole_sequence(const Case& c, std::int64_t b);

/// A batch of these parts, in this order, on the same pool.
Case take(const Case& c, std::span<const Part> parts);

/// The same values in other pages: page p becomes page num_pages - 1 - p.
Case reverse_pages(const Case& c);

/// `c` under another mask; a tensor mask is dropped.
Case with_mask(const Case& c, const MaskConfig& mask);

}  // namespace attn::harness
