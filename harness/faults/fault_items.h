#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/faults/catalogue.h"

namespace attn::harness {

/// What the work of `faults` is dealt and kept by.
struct FaultItem {
  enum class Kind {
    kValue,        ///< a bug of the catalogue, planted in the cpu backend
    kValueClean,   ///< the same build without a bug
    kMemory,       ///< a bug of memory, planted in a plug-in
    kMemoryClean,  ///< the same plug-in without a bug
  };
  std::int64_t number = 0;  ///< its place in the whole run
  Kind kind = Kind::kValue;
  const FaultInfo* fault = nullptr;  ///< null where there is no bug
};

/// Every item of a run, in its order: the bugs of each library in the order of their list, then the
/// library without one. `only` names bugs, empty: all; without `memory` those of the catalogue
/// alone. Throws Error(kUsage) with the nearest known id.
std::vector<FaultItem> fault_items(const std::vector<std::string>& only, bool memory);

}  // namespace attn::harness
