#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "harness/generate/case_spec.h"

namespace attn::harness {

/// The features of a spec that differ from the plainest case of its variant and entry point, one
/// line each: "mask: chunked_causal", "group size: 3", "page_size: 16". Sizes count only above
/// their smallest useful value.
std::vector<std::string> non_default_features(const CaseSpec& spec);

/// The attention of a layer as a case of its own: same heads, mask, scores and cache. The spec must
/// be of entry point forward.
CaseSpec attention_alone(const CaseSpec& spec);

struct ShrinkResult {
  CaseSpec spec;
  std::uint64_t seed = 0;
  std::int64_t tried = 0;  ///< specs that were run
  double seconds = 0.0;
};

/// Makes a failing case smaller over its config, not over random bits: halves sizes, drops
/// sequences and features, simplifies pages and lengths, as long as `fails_alike` says that the
/// smaller one fails in the same way. Ends after `seconds` at the latest with the best so far. Only
/// valid specs are tried.
ShrinkResult shrink(const CaseSpec& spec, std::uint64_t seed,
                    const std::function<bool(const CaseSpec&, std::uint64_t)>& fails_alike,
                    double seconds = 60.0);

}  // namespace attn::harness
