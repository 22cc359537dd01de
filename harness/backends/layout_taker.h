#pragma once

#include "harness/backends/backend.h"
#include "reference/core/memory_layout.h"

namespace attn::harness {

/// A backend that gets the tensors of a case as its layout has them. The others work on values.
class LayoutTaker {
 public:
  virtual ~LayoutTaker() = default;
  /// The layout without the features that it does not take for this config. Throws Error or
  /// BackendFailure where it cannot say.
  virtual MemoryLayout taken(const AttentionConfig& config, const MemoryLayout& wanted) const = 0;
};

/// The layout in which a backend gets the tensors of a case with this one: the standard one where
/// it works on values. A gate gives each case as many features of the layout as there are to pair;
/// a kernel that does not take one of them is run with the others.
MemoryLayout taken_layout(const Backend& backend, const AttentionConfig& config,
                          const MemoryLayout& wanted);

}  // namespace attn::harness
