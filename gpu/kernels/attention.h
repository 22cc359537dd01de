#pragma once

#include <cstdint>

#include "gpu/device/device.h"
#include "gpu/kernels/batch.h"

namespace attn::gpu {

enum class MaskKind : std::uint8_t {
  kNone,      ///< every key (a tensor may still add to the scores)
  kCausal,    ///< k <= q
  kChunked,   ///< k <= q and in the same chunk
  kWindow,    ///< k <= q and q - k < window
  kLookback,  ///< q - k < window, later keys too
};

/// One attention call. q [tokens, num_heads, head_dim] and out [tokens, num_heads, head_dim_v] are
/// dense; lse is [tokens, num_heads] float32, natural logarithm with the sink.
struct AttentionArguments {
  Type type = Type::kFloat32;  ///< of q and out
  const void* q = nullptr;
  void* out = nullptr;
  float* lse = nullptr;
  CacheView cache;
  BatchView batch;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t head_dim_v = 0;
  float scale = 1.0f;
  float softcap = 0.0f;  ///< 0: none
  MaskKind mask = MaskKind::kNone;
  std::int64_t span = 0;               ///< window or chunk
  bool top_left = false;               ///< position of row i: i, else keys - rows + i
  const float* mask_tensor = nullptr;  ///< [tokens, mask_stride] added to the scores, or none
  std::int64_t mask_stride = 0;
  const float* sinks = nullptr;  ///< [num_heads] or none
};

/// Float32 on the CUDA cores, any types, head sizes and masks: one block for one head of one row.
/// Slow and plain; it is what the fast kernels fall back to. Keys that a row does not see are never
/// multiplied.
void attention_plain(const AttentionArguments& arguments, StreamHandle stream);
/// Keys per online-softmax step of attention_plain.
inline constexpr int kPlainBlock = 128;

}  // namespace attn::gpu
