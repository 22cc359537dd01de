#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <variant>

#include "reference/core/case.h"

namespace attn::harness {

/// What a predicate knows of a case: the config's keys as in its JSON, nested ones with dots
/// ("kv_cache.page_size"), the group size, of the case its name, sequences, query rows, the keys
/// and the query rows of the longest sequence ("case", "batch", "tokens", "keys", "queries"), and
/// whether it has "sinks". "mask", "quant" and
/// "rope.scaling" stand for their variant, encoding and type.
using Fact = std::variant<std::monostate, bool, double, std::string>;
using Facts = std::map<std::string, Fact>;
Facts facts_of(const Case& c);

/// The same of a case that is not made yet.
struct CaseShape {
  std::string name;
  std::int64_t batch = 0;
  std::int64_t tokens = 0;
  std::int64_t keys = 0;     ///< of the longest sequence
  std::int64_t queries = 0;  ///< of the longest sequence
  bool sinks = false;
};
Facts facts_of(const AttentionConfig& config, const CaseShape& shape);

/// A condition on a case:
///
///     mask == chunked_causal && (head_dim > 128 || !use_qk_norm)
///
/// Comparisons == != < <= > >= of a key with a number, a word, a "text", true, false or null, which
/// is what a key without a value is; a key alone must be true; && binds tighter than ||.
/// Throws Error(kInput) for anything else, with the nearest known key.
using Predicate = std::function<bool(const Facts&)>;
Predicate parse_predicate(std::string_view text);

}  // namespace attn::harness
