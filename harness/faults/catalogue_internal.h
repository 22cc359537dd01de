#pragma once

// Internal to harness/faults: the parts of the catalogue, by the place of the mistake.

#include <span>

#include "harness/faults/catalogue.h"

namespace attn::harness {

std::span<const FaultInfo> attention_faults();  ///< masks, heads, softmax, sinks, what is written
std::span<const FaultInfo> cache_faults();      ///< pages, slots, scales, what is stored and read
std::span<const FaultInfo> layer_faults();      ///< projections, norm, rope, devices
std::span<const FaultInfo> weight_faults();     ///< decoders of weights, codes of activations
std::span<const FaultInfo> mode_faults();       ///< seen in some execution mode only

}  // namespace attn::harness
