#pragma once

#include "reference/core/case.h"

namespace attn::reference::test {

/// A tensor of a quantised projection, "NAME_proj.suffix", with any codes, scales of about 0.02 and
/// whatever indices the config decides.
Tensor quantised_weight(const AttentionConfig& config, const TensorSpec& spec);

}  // namespace attn::reference::test
