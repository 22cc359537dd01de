#pragma once

#include <string_view>

#include "gpu/kernels/attention.h"
#include "gpu/kernels/host_device.h"

namespace attn::gpu {

inline constexpr int kLeanHeadDim = 128;
inline constexpr int kLeanWarps = 8;
/// Of a grid's second and third axis.
inline constexpr std::int64_t kLeanMostSequences = 65535;

/// Runs of kDecodeKeys keys of a split: whole rounds of the block's warps.
ATTN_HOST_DEVICE int lean_runs(int keys, int splits) {
  const int round = kDecodeKeys * kLeanWarps;
  const int rounds = (keys + round - 1) / round;
  return (rounds + splits - 1) / splits * kLeanWarps;
}

/// What the host works out of a call for the lean decode kernel, so that its blocks do not. Strides
/// in bytes, the same for keys and values.
struct LeanDecode {
  const char* k = nullptr;  ///< null: the general kernel takes the call
  const char* v = nullptr;
  const std::uint32_t* page_table = nullptr;
  const std::uint32_t* row_offsets = nullptr;
  const std::uint32_t* cache_lengths = nullptr;
  const char* q = nullptr;
  std::uint32_t page_bytes = 0;
  std::uint32_t token_bytes = 0;
  std::uint32_t head_bytes = 0;
  std::uint32_t table_stride = 0;
  std::uint32_t page_shift = 0;  ///< pages of 1 << page_shift tokens
  std::uint32_t page_mask = 0;   ///< slots of a page - 1
  std::uint32_t planned_keys = 0;
  int each = 0;  ///< runs of a split, of planned_keys
  int splits = 1;
  int group = 1;
  std::uint32_t num_heads = 0;
  float scale_log2 = 0.0f;
  const float* k_scale = nullptr;  ///< of a cache of codes with scales
  const float* v_scale = nullptr;
  std::uint32_t scale_stride = 0;  ///< 1: each head has its own
  bool rows_are_new_keys = true;
  bool old_keys_ready = false;  ///< as in AttentionArguments
};

/// The call as the lean kernel takes it: up to 8 query heads for a kv head, one query a sequence,
/// all keys or a causal mask, no soft-cap, tensor mask or negative scale, 128 channels, a cache of
/// q's type, or of e4m3 codes without scales of tokens, whose keys and values lie alike, pages of a
/// power of two from 16 on.
LeanDecode lean_decode(const AttentionArguments& a, const AttentionPlan& plan);

/// Of "lean", and "-two", "-mail", "-loose" behind it; anything else is the general kernel.
DecodeWay decode_way(std::string_view words);

}  // namespace attn::gpu
