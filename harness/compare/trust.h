#pragma once

#include <string>

#include "harness/compare/attention_rows.h"

namespace attn::harness {

/// mistrust_reason from the inputs of attention, whose allowances are not used.
std::string attention_mistrust(const AttentionInputs& inputs, const Arithmetic& declared,
                               int threads);

/// mistrust_reason of a materialize case: the new rows of the caches, from its own x.
std::string cache_mistrust(const Case& c, const Arithmetic& declared);

}  // namespace attn::harness
