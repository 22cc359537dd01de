#pragma once

#include <functional>
#include <optional>

#include "harness/generate/case_spec.h"

namespace attn::harness {

/// The spec with as few features taken away as it takes until the backend supports its config: the
/// plainest config of another element type, mask, head or page size that it supports, and then
/// every feature of the spec that it takes besides. Nothing where it supports none of these.
std::optional<CaseSpec> fitted(const CaseSpec& spec,
                               const std::function<bool(const AttentionConfig&)>& supports);

}  // namespace attn::harness
