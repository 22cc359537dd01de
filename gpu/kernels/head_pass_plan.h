#pragma once

#include <string_view>

#include "gpu/device/device.h"
#include "gpu/kernels/head_pass.h"

namespace attn::gpu {

/// Groups of heads (as many as a warp's lanes have 16 channels of) that a warp of head_pass_rows
/// takes one after the other.
inline constexpr int kHeadRowGroups = 3;
/// Most warps of a block, which has a row.
inline constexpr int kMostHeadRowWarps = 12;
/// Calls of up to so many rows leave multiprocessors idle: a warp for each group of a row then.
inline constexpr std::int64_t kFewHeadRows = 256;

/// Which kernel a pass goes to.
struct HeadPassPlan {
  std::string_view refusal;  ///< why head_pass_rows does not take it, or ""
  int warps = 0;             ///< of a block of head_pass_rows

  bool rows() const { return refusal.empty(); }
};
HeadPassPlan plan_head_pass(const HeadPassArguments& arguments);

/// The two kernels: equal to the bit where both take a call. Calls have rows.
void head_pass_general(const HeadPassArguments& arguments, StreamHandle stream);
/// A block a row: all steps, for heads of 64, 128 or 256 channels of 16-bit activations.
void head_pass_rows(const HeadPassArguments& arguments, int warps, StreamHandle stream);

}  // namespace attn::gpu
