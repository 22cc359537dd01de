#include "reference/layers/layers.h"

namespace attn::reference {

/// Each device holds the whole layer and some of the sequences, which do not meet: the layer of one
/// device.
Trace data_parallel(const Case& c, Mode mode) { return attention_with_rope(c, mode); }

}  // namespace attn::reference
