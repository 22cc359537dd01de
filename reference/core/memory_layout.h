#pragma once

#include <cstdint>

namespace attn {

/// Order of the axes in a page of the cache: [slots, heads, dim] or [heads, slots, dim].
enum class CacheOrder { kNhd, kHnd };
/// K and V each in an allocation of its own, or in one: a page of K before its page of V, or a
/// head's row of K before its row of V.
enum class KvPairing { kSeparate, kPagePairs, kRowPairs };
/// [tokens, heads, dim]; the same as a part of rows [q heads, k heads, v heads]; [heads, tokens,
/// dim].
enum class QueryOrder { kDense, kFusedQkv, kTransposed };
enum class OutputOrder { kDense, kTransposed };

/// How the tensors of a case lie in memory when a kernel gets them. The case's values do not depend
/// on it, and backends that work on values ignore it. Numbers count elements; what lies between the
/// elements of a tensor is NaN (all bits 1).
struct MemoryLayout {
  CacheOrder cache = CacheOrder::kNhd;
  KvPairing kv = KvPairing::kSeparate;
  QueryOrder q = QueryOrder::kDense;
  OutputOrder out = OutputOrder::kDense;  ///< of attn_out and lse
  /// Axes along which values are equal have stride 0: heads of the cache and its scales, rows of
  /// the mask.
  bool broadcast = false;
  std::int64_t gap = 0;             ///< after each row of channels, in every tensor with rows
  std::int64_t channel_stride = 1;  ///< of q, the cache and attn_out
  std::int64_t offset = 0;          ///< from a tensor's data pointer to its first element
  std::int64_t row_stride = 0;      ///< from token to token of q and attn_out, at least
  /// The pool has so many pages that no key owns before the others that these lie this many
  /// elements into it, at least. It is reserved, not filled: those pages cannot be accessed.
  std::int64_t pool_offset = 0;

  friend bool operator==(const MemoryLayout&, const MemoryLayout&) = default;
};

}  // namespace attn
