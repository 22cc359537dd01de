#pragma once

#include "reference/core/case.h"
#include "reference/core/trace.h"
#include "reference/reference.h"

namespace attn::reference {

/// The layers of the family, one file each. All take a validated, supported case and return every
/// stage that it has and the paged cache after the call. Those of more than one device and
/// no_opaque take both entry points of a layer.
Trace attention_with_rope(const Case& c, Mode mode);
Trace no_opaque(const Case& c, Mode mode);
Trace tensor_parallel(const Case& c, Mode mode);
Trace data_parallel(const Case& c, Mode mode);

/// Entry point materialize_kv_from_hidden of one device: only k, v and the cache.
Trace materialize(const Case& c, Mode mode);

/// attention_with_rope up to attn_out: all that heads do apart from each other.
Trace attend_to_heads(const Case& c, Mode mode);

/// Entry point attention: q and a filled cache in, lse and attn_out out.
Trace attention_core(const Case& c, Mode mode);

}  // namespace attn::reference
