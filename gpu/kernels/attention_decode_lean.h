#pragma once

#include <string_view>

#include "gpu/kernels/attention.h"
#include "gpu/kernels/host_device.h"

namespace attn::gpu {

inline constexpr int kLeanHeadDim = 128;
inline constexpr int kLeanWarps = 8;
/// Of a grid's second and third axis.
inline constexpr std::int64_t kLeanMostSequences = 65535;

/// Most splits that leave each other mail: they share a word of 64 bits, 8 of which count.
inline constexpr int kMostMailed = 56;

/// Which shares a block of a row's splits adds up. A block may wait only for blocks that run, so
/// each counts itself when it starts, and towards its end says so by its bit: who finds then that
/// all have started adds up its own share, who does not leaves it to the last to start, which finds
/// its bit. The order of the word's changes is the same for all, so each share is added up once.
struct MailDuty {
  bool own = false;
  std::uint64_t left = 0;  ///< bits of the blocks that left theirs
  bool last = false;       ///< nobody changes the word after this block
};
ATTN_HOST_DEVICE MailDuty mail_duty(int splits, int split, std::uint64_t at_start,
                                    std::uint64_t at_end) {
  MailDuty duty;
  const auto all = static_cast<std::uint64_t>(splits);
  duty.own = (at_end & 0xff) == all;
  duty.left = (at_start & 0xff) + 1 == all ? at_start >> 8 : 0;
  duty.last = (at_end >> 8 | std::uint64_t{1} << split) == (std::uint64_t{1} << splits) - 1;
  return duty;
}
ATTN_HOST_DEVICE std::uint64_t mail_bit(int split) { return std::uint64_t{256} << split; }

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
  std::uint64_t* words = nullptr;  ///< of mail_duty(), one for each sequence and kv head
  bool rows_are_new_keys = true;
  bool old_keys_ready = false;  ///< as in AttentionArguments
};

/// The call as the lean kernel takes it: up to 8 query heads for a kv head, one query a sequence,
/// all keys or a causal mask, no soft-cap, tensor mask or negative scale, 128 channels, a cache of
/// q's type, or of e4m3 codes without scales of tokens, whose keys and values lie alike, pages of a
/// power of two from 16 on.
LeanDecode lean_decode(const AttentionArguments& a, const AttentionPlan& plan);

/// Of "general", "lean" and "lean-mail"; "" is what is chosen.
DecodeWay decode_way(std::string_view word);

}  // namespace attn::gpu
