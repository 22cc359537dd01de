#pragma once

#include <cstdint>
#include <span>

#include "reference/core/case.h"

namespace attn {

struct PagingOptions {
  std::uint64_t seed = 1;          ///< of the page permutation
  bool shuffled = true;            ///< false: pages in order
  std::int64_t num_layers = 1;
  std::int64_t layer = 0;
  std::int64_t spare_pages = 3;    ///< pages that no sequence owns
  bool spares_first = false;       ///< the spare pages have the lowest numbers of the pool
};

/// Lays dense caches in logical order, k [sum(lengths), Hkv, D] and v [.., Dv], into a pool of pages that
/// is larger than needed. Sequence b holds lengths[b] tokens and gets pages for capacity[b] >= lengths[b]
/// positions. Every slot that holds no token, of every layer and page, is NaN (the type's NaN code; for
/// types without one the largest value). Dense tensors may be absent only when all lengths are 0; then
/// `type`, Hkv, D, Dv come from `config`. Scales (fp8) are laid out likewise when given.
KvCache make_paged_cache(const AttentionConfig& config, const Tensor& dense_k, const Tensor& dense_v,
                         const Tensor& k_scale, const Tensor& v_scale,
                         std::span<const std::int64_t> lengths, std::span<const std::int64_t> capacity,
                         const PagingOptions& options);

}  // namespace attn
