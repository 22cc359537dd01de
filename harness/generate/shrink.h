#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "harness/generate/case_spec.h"

namespace attn::harness {

/// What of a case is not plain besides its sizes, one line each: "mask: chunked_causal 4", "cache:
/// float8_e4m3fn, a scale per head". Plain is a layer (or attention alone) of one device in float32
/// with dense weights, a cache of that type on pages in order, every key visible, the standard
/// rope, no norm, bias, clip, soft-cap or sink, the standard layout, normal data (feature_axes.h).
std::vector<std::string> non_default_features(const CaseSpec& spec);

/// "2 heads, 17 keys, page 16": the sizes that a reader wants first.
std::string headline_sizes(const CaseSpec& spec);
/// Every size in words: "4 heads on 2 kv heads", "head_dim 2", "3 cached + 1 new", "page_size 16".
std::vector<std::string> all_sizes(const CaseSpec& spec);

/// The attention of a layer as a case of its own: same heads, mask, scores and cache. The spec must
/// be of entry point forward.
CaseSpec attention_alone(const CaseSpec& spec);

struct ShrinkResult {
  CaseSpec spec;
  std::uint64_t seed = 0;
  std::int64_t tried = 0;  ///< specs that were run
  double seconds = 0.0;
};

/// Makes a failing case smaller over its config, not over random bits, as long as `fails_alike`
/// says that the smaller one fails in the same way: halves sizes, then lowers them one by one,
/// drops sequences and features, simplifies pages and lengths; then tries the case with none, one
/// or two of its features, where that is fewer than what was left. Ends after `seconds` at the
/// latest with the best so far. Only valid specs are tried.
ShrinkResult shrink(const CaseSpec& spec, std::uint64_t seed,
                    const std::function<bool(const CaseSpec&, std::uint64_t)>& fails_alike,
                    double seconds = 60.0);

}  // namespace attn::harness
