#include "reference/layers/layers.h"

namespace attn::reference {

/// One stacked projection, interleaved rotation, a causal mask and nothing optional: the rules hold
/// the config to that, so it is the general layer at these settings.
Trace no_opaque(const Case& c, Mode mode) { return attention_with_rope(c, mode); }

}  // namespace attn::reference
