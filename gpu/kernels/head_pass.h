#pragma once

#include <cstdint>

#include "gpu/device/device.h"
#include "gpu/kernels/batch.h"

namespace attn::gpu {

/// What happens to q, k and v between the projection and attention: norm, rotation, store. Any
/// subset of the steps in one pass over the heads. All three at once is the fused kernel; three
/// launches with one step each are the unfused ones. Both round to `type` after each step and add
/// in the same order, so their results are equal bit for bit.
struct HeadPassArguments {
  Type type = Type::kFloat32;  ///< of activations
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;

  /// Rows of heads: head h of row t is at base + t * row_stride + h * head_dim. Null leaves a
  /// kind out.
  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  std::int64_t q_row_stride = 0, k_row_stride = 0, v_row_stride = 0;

  bool norm = false;
  const float* q_gamma = nullptr;  ///< [head_dim]
  const float* k_gamma = nullptr;
  float eps = 0.0f;
  void* q_normed = nullptr;  ///< [tokens, num_heads * head_dim], or null: not kept
  void* k_normed = nullptr;

  bool rope = false;
  const float* freqs_cis = nullptr;  ///< [positions, rotary_dim]: (cos, sin) pairs
  std::int64_t rotary_dim = 0;
  bool interleaved = true;   ///< pairs (2j, 2j + 1), else (j, j + rotary_dim / 2)
  bool rotate_last = false;  ///< the last rotary_dim channels, else the first
  void* q_roped = nullptr;   ///< dense, or null
  void* k_roped = nullptr;

  bool store = false;  ///< k and v to their slots

  /// [tokens, num_heads * head_dim] of `type`, or null: zeros for rows that no sequence owns, which
  /// are left out of everything else.
  void* padding_zeros = nullptr;

  CacheView cache;
  BatchView batch;
};

/// Workspace: none. Reads no key that it does not write.
void head_pass(const HeadPassArguments& arguments, StreamHandle stream);

}  // namespace attn::gpu
