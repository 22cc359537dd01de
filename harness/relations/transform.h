#pragma once

// Internal to harness/relations: cases made from a case, without a rounding.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "reference/core/case.h"
#include "reference/core/devices.h"

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

/// An attention case whose sequence b has only the keys keys[b] of its own, in pages of their own.
/// A tensor mask loses the other columns; another mask counts from the first key that is left.
Case with_keys(const Case& c, std::span<const Range> keys);

/// Head h of q, k, v, their weights and the sinks becomes head h' where heads[h'] == h. `heads` and
/// `kv_heads` hold each of the new config's heads, whose config is `config`. Weights are not
/// quantised.
Case with_heads(const Case& c, const AttentionConfig& config, std::span<const std::int64_t> heads,
                std::span<const std::int64_t> kv_heads);

/// Calls visit(slot) for the slot of every cached token of the batch. Sequences that share a page
/// share slots, which come once.
void for_each_slot(const Case& c, const std::function<void(std::int64_t slot)>& visit);

/// 0 .. n - 1.
std::vector<std::int64_t> count_up(std::int64_t n);

}  // namespace attn::harness
