#pragma once

#include <span>

#include "harness/faults/catalogue.h"

namespace attn::harness {

/// Planted bugs of where a kernel reads and writes, not of what it computes. They live in a plug-in
/// of its own, attn_faulty_memory.so ("./attn_faulty_memory.so:fault=ID"), since only plug-ins get
/// tensors in other layouts than ours; "fault=none" is right in every layout.
std::span<const FaultInfo> memory_faults();

}  // namespace attn::harness
