#pragma once

// Internal to harness/compare (Eigen): attention of chosen query rows over the caches of a case.

#include <cstdint>
#include <span>
#include <vector>

#include "harness/compare/attention_bound.h"
#include "reference/core/case.h"
#include "reference/core/trace.h"

namespace attn::harness {

/// Keys or values of every sequence after the call.
class CacheRows {
 public:
  /// All of them from `logical` [total keys, Hkv, width], exact.
  static CacheRows tapped(const Case& c, const Tensor& logical, std::int64_t width);
  /// Tokens cached before the call from the case's pages (stage kCacheK: keys, else values), exact;
  /// later ones from `fresh` [tokens, Hkv * width], which may be empty when there are none (entry
  /// point attention).
  static CacheRows paged(const Case& c, Stage stage, Bounded fresh);

  /// Positions first .. first + count - 1 of sequence b, key head `head`: [count, width].
  Bounded load(std::int64_t b, std::int64_t head, std::int64_t first, std::int64_t count) const;
  /// The same without allowances.
  CacheRows without_allowances() const;
  std::int64_t width() const { return width_; }

 private:
  CacheRows(const Case& c, const Tensor* logical, bool keys, Bounded fresh, std::int64_t width);

  const Case* c_;
  const Tensor* logical_;  ///< null: the case's pages
  bool keys_;
  Bounded fresh_;
  std::int64_t width_;
  std::vector<std::int64_t> first_key_;  ///< of each sequence, in logical order
};

struct AttentionInputs {
  const Case& c;
  std::vector<std::int64_t> rows;  ///< ascending
  Bounded q;                       ///< [rows, Hq * D]
  CacheRows keys;
  CacheRows values;
};

struct AttentionStages {
  Bounded lse;            ///< [rows, Hq]
  Bounded out;            ///< [rows, Hq * Dv]
  JointErrors projected;  ///< [rows, hidden], in the output projection; empty unless that was given
};

/// Attention of inputs.rows[i] for i in `which`, on up to `threads` threads. `output_weight`
/// [hidden, Hq * Dv] where errors go on through the output projection, else empty.
AttentionStages attend_rows(const AttentionInputs& inputs, std::span<const std::int64_t> which,
                            const BoundOptions& options, int threads,
                            const RowMatrix& output_weight = {});

/// Some rows of a stage.
Bounded rows_of(const Bounded& x, std::span<const std::int64_t> which);
/// Rows of a tensor [all rows, ...], decoded, exact.
Bounded decode_tap(const Tensor& tensor, std::span<const std::int64_t> rows);
/// 0, 1, .. n - 1
std::vector<std::int64_t> iota(std::int64_t n);

}  // namespace attn::harness
