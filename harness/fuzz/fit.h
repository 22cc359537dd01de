#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "harness/generate/case_spec.h"

namespace attn::harness {

/// The spec with as few features taken away as it takes until the backend supports its config: the
/// plainest config of another element type, mask, head or page size that it supports, and then
/// every feature of the spec that it takes besides. A call that only writes the cache may become
/// the layer's. Nothing where it supports none of these.
std::optional<CaseSpec> fitted(const CaseSpec& spec,
                               const std::function<bool(const AttentionConfig&)>& supports);

/// What to run in place of a case that a run refused although its config is supported, the closest
/// first: what only a run is asked of in its plain form, which is how tensors lie in memory, sinks,
/// and, one or two at a time, a scale, sequences of few keys, keys of before, several queries, few
/// queries and the mask; at last all of these but for several queries.
std::vector<CaseSpec> plainer_for_a_run(const CaseSpec& spec);

}  // namespace attn::harness
