#pragma once

#include <span>
#include <string_view>

#include "harness/generate/draft.h"

namespace attn::harness {

/// What the data of a case look like.
struct Profile {
  std::string_view name;
  std::string_view summary;
  double logit_std;       ///< standard deviation of the scaled logits as drawn
  void (*shape)(Draft&);  ///< changes the drawn data; null for none
};

std::span<const Profile> profiles();

/// The shapes of the profiles of the same names, hard on quantised weights, activations and caches
/// (quant_profiles.cpp).
void shape_fp8_range(Draft& d);
void shape_code_extremes(Draft& d);

/// Hard on the running maximum (rising_profile.cpp).
void shape_rising(Draft& d);

/// Hard on clips, soft-caps and sinks (clip_profiles.cpp).
void shape_over_clip(Draft& d);
void shape_near_sink(Draft& d);

/// Throws Error(kConfig) with the nearest known name.
const Profile& find_profile(std::string_view name);

}  // namespace attn::harness
