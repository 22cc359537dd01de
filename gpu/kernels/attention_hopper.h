#pragma once

#include <cstdint>
#include <string>

#include "gpu/device/device.h"
#include "gpu/kernels/attention.h"

namespace attn::gpu {

/// What decides whether the Hopper prefill kernel takes a layer's attention.
struct HopperShape {
  Type type = Type::kFloat32;
  Type cache_type = Type::kFloat32;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t head_dim_v = 0;
  std::int64_t page_size = 0;
  bool mask_tensor = false;
  int fixed_splits = 0;
  bool token_scales = false;  ///< of a coded cache: by token and head
  bool fp8 = false;           ///< products of e4m3 codes
};

/// What the kernel of fp8 products multiplies probabilities by before they are rounded to e4m3.
inline constexpr double kFp8ProbabilityScale = 64.0;

/// "" when the kernel takes the layer, else one line why not. Host arithmetic, no device.
std::string hopper_refusal(const HopperShape& shape);
/// "" when this build has the kernel's code for the current device, else one line why not.
std::string hopper_device_refusal();

/// How one call is cut into blocks.
struct HopperPlan {
  bool taken = false;  ///< else the call goes to the kernels of attention_tensor_core
  int blocks = 0;      ///< which stay and draw tiles
  int section = 1;     ///< units of a section: hopper_work.h
  bool fp8 = false;    ///< HopperShape's
  // Images of a cache of codes (hopper_work.h), none: codes are widened where they are wanted.
  int image_steps = 0;  ///< of a kv head of a sequence
  std::size_t key_image_bytes = 0;
  std::size_t value_image_bytes = 0;
  std::size_t image_bytes() const { return key_image_bytes + value_image_bytes; }
};

/// Packed tiles of a kv head of a sequence from which on a cache's codes are widened once, to
/// images, and no more for each tile.
inline constexpr std::int64_t kImageTiles = 4;
/// What the images of a call may take of the device's memory.
inline constexpr std::int64_t kMostImageBytes = std::int64_t{1} << 30;

/// A call of up to `max_rows` queries and `max_keys` keys a sequence. Not taken: calls of so few
/// rows that they decode, of too many sequences, without keys, or beyond the kernel's numbers.
/// Products of codes whose images would be larger than kMostImageBytes widen them on their way.
HopperPlan plan_hopper(const HopperShape& shape, int multiprocessors, std::int64_t batch,
                       std::int64_t max_rows, std::int64_t max_keys,
                       std::int64_t image_tiles = kImageTiles);

/// The call of a taken plan, under the same rules as attention_tensor_core: outputs, lse, rows that
/// see nothing, padding. `counter`: an unsigned zero, which it leaves zero. `images`:
/// plan.image_bytes() of workspace at a multiple of 256. Pointers of the cache's pool and of q are
/// part of a captured launch; tables, data and, up to the plan's max_keys, lengths may change.
void attention_hopper(const AttentionArguments& arguments, const HopperPlan& plan,
                      unsigned* counter, void* images, StreamHandle stream);

}  // namespace attn::gpu
