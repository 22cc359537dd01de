#pragma once

#include <cstdint>
#include <vector>

#include "reference/core/case.h"
#include "reference/core/paging.h"
#include "reference/core/trace.h"

namespace attn::reference::test {

/// One sequence of a batch. Equal ids give equal rows and equal prior caches, in whatever batch.
struct Sequence {
  std::uint64_t id = 0;
  std::int64_t cached = 0;  ///< entry point attention: all keys
  std::int64_t rows = 0;
};

/// A valid case with normal data, under a config; page table shuffled, every slot that holds no
/// token NaN.
Case make_case(const AttentionConfig& config, const std::vector<Sequence>& sequences,
               const PagingOptions& paging = {});

/// float32, 4 query heads on 2 kv heads of 16 channels, hidden 32, half-split rope, causal, pages
/// of 4.
AttentionConfig small_config();

/// The same heads, entry point attention.
AttentionConfig small_core_config();

/// A mask; `width` is its window or chunk, where it has one.
MaskConfig make_mask(MaskVariant variant, std::int64_t width);

/// Rows first .. first+count-1 of a tensor's outermost axis.
Tensor slice_rows(const Tensor& t, std::int64_t first, std::int64_t count);

/// A [1] or longer uint32 tensor.
Tensor indices(const std::vector<std::int64_t>& values);

/// Largest absolute difference; infinity when one has a NaN or infinity that the other has not.
double largest_difference(const Tensor& a, const Tensor& b);

/// Largest finite magnitude.
double largest_magnitude(const Tensor& t);

bool all_finite(const Tensor& t);

/// Two float64 evaluations that add the same terms in different orders: each sum of n terms is off
/// by at most n 2^-53 sum|t|. Here n <= 64 (hidden, keys, channels), sum|t| <= 8 max|sum| for
/// normal data, and at most four sums follow each other, each with a gain below 8.
inline constexpr double kReordered = 64 * 8 * 4 * 8 * 0x1p-53;

}  // namespace attn::reference::test
