#pragma once

#include <cstdint>

#include "gpu/kernels/types.h"

namespace attn::gpu {

/// The rows of a call: sequence b owns rows row_offsets[b] .. row_offsets[b + 1] - 1. Device
/// pointers.
struct BatchView {
  const std::uint32_t* row_offsets = nullptr;    ///< [batch + 1]
  const std::uint32_t* cache_lengths = nullptr;  ///< [batch] tokens before the call, or all keys
  std::int64_t batch = 0;
  std::int64_t tokens = 0;
  /// cache_lengths counts the keys before the call; the sequence's rows come on top.
  bool rows_are_new_keys = true;
};

/// Which values of a cache share a scale: value = code * scale.
enum class CacheScales : std::uint8_t { kNone, kTensor, kHead, kTokenHead };

/// A paged cache of one layer. Strides count elements, so that any order of the axes within a page
/// works: tokens before heads (NHD) or heads before tokens (HND). Device pointers to the layer's
/// first element.
struct CacheView {
  void* k = nullptr;
  void* v = nullptr;
  Type type = Type::kFloat32;
  std::int64_t k_page_stride = 0, k_token_stride = 0, k_head_stride = 0;
  std::int64_t v_page_stride = 0, v_token_stride = 0, v_head_stride = 0;
  CacheScales scales = CacheScales::kNone;
  /// [1], [num_kv_heads], or one for each head of each slot, with strides of its own. The last are
  /// written with the tokens: amax / 448, 1 for a row of zeros.
  float* k_scale = nullptr;
  float* v_scale = nullptr;
  std::int64_t scale_page_stride = 0, scale_token_stride = 0, scale_head_stride = 0;
  /// [batch, table_stride]: page of positions p, p / page_size the column.
  const std::uint32_t* page_table = nullptr;
  std::int64_t table_stride = 0;
  std::int64_t page_size = 0;
};

}  // namespace attn::gpu
