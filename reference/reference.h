#pragma once

#include <string>

#include "reference/core/case.h"
#include "reference/core/trace.h"

namespace attn::reference {

/// kExact: float64 throughout on the stored inputs, with only those roundings that are part of the
/// function. kFaithful: the rounding points of the layer as it runs in config.dtype (docs/numerics.md);
/// sums stay in double and are rounded once.
enum class Mode { kExact, kFaithful };

/// "" when the reference evaluates this config, else why not.
std::string unsupported_reason(const AttentionConfig& config);

/// The entry points. Each takes a validated case of the matching config.entry_point, never changes it,
/// and returns every stage the case has (float64 tensors) and the paged cache after the call.
/// Throws Error(kUnsupported) for configs with an unsupported_reason.
Trace forward(const Case& c, Mode mode);
Trace materialize_kv_from_hidden(const Case& c, Mode mode);
Trace attention(const Case& c, Mode mode);

/// Dispatches on config.entry_point.
Trace evaluate(const Case& c, Mode mode);

}  // namespace attn::reference
