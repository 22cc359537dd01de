#include "harness/faults/catalogue_internal.h"

namespace attn::harness {

std::span<const FaultInfo> weight_faults() { return {}; }

}  // namespace attn::harness
