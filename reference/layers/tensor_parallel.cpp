#include "reference/layers/layers.h"

namespace attn::reference {

/// Each device holds whole groups of heads and a slice of the output projection, and the partial
/// outputs are summed: in exact arithmetic the layer of one device, which is what both modes
/// evaluate.
Trace tensor_parallel(const Case& c, Mode mode) { return attention_with_rope(c, mode); }

}  // namespace attn::reference
