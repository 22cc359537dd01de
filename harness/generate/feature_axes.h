#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "harness/generate/case_spec.h"

namespace attn::harness {

/// One thing about a case besides its sizes that a bug may need: its mask, its rope, its cache's
/// type, the profile of its data. Every axis has a plain value.
struct FeatureAxis {
  std::string_view name;  ///< "mask"
  /// What differs from the plain value: "sliding_window_causal 5", or "" when the name says it all.
  /// Nothing where the case is plain.
  std::optional<std::string> (*value)(const CaseSpec&);
  /// Makes it plain. Other fields may have to follow: settle().
  void (*reset)(CaseSpec&);
};

/// Every axis, in the order in which a reader wants them.
std::span<const FeatureAxis> feature_axes();

/// Lets fields follow others that were changed: widths, lists as long as the rotation has pairs,
/// devices, layers. The spec may still be invalid.
void settle(CaseSpec& spec);

}  // namespace attn::harness
