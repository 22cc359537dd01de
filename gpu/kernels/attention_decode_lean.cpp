#include "gpu/kernels/attention_decode_lean.h"

#include <bit>
#include <limits>

#include "gpu/kernels/prefill_shape.h"

namespace attn::gpu {
namespace {

bool fits(std::int64_t elements, std::int64_t bytes) {
  return elements >= 0 && elements <= std::numeric_limits<std::uint32_t>::max() / bytes;
}

bool takes(const AttentionArguments& a, const AttentionPlan& plan) {
  const CacheView& cache = a.cache;
  const bool sees_all = a.mask == MaskKind::kNone || (a.mask == MaskKind::kCausal && !a.top_left);
  const bool plain = a.softcap == 0.0f && a.mask_tensor == nullptr && a.scale > 0.0f;
  const bool alike = cache.k_page_stride == cache.v_page_stride &&
                     cache.k_token_stride == cache.v_token_stride &&
                     cache.k_head_stride == cache.v_head_stride;
  const bool known = cache.type == a.type ||
                     (cache.type == Type::kFloat8E4M3 && cache.scales != CacheScales::kTokenHead);
  const auto page = static_cast<std::uint64_t>(cache.page_size);
  const auto bytes = static_cast<std::int64_t>(size_of(cache.type));
  return plan.way.lean && plan.decode && plan.decode_rows == 8 && plan.max_rows == 1 && sees_all &&
         plain && alike && known && a.head_dim == kLeanHeadDim && a.head_dim_v == kLeanHeadDim &&
         std::has_single_bit(page) && page >= kDecodeKeys && fits(cache.k_page_stride, bytes) &&
         fits(cache.k_token_stride, bytes) && fits(cache.k_head_stride, bytes) &&
         plan.max_keys < std::numeric_limits<std::int32_t>::max() / 2 &&
         a.batch.batch <= kLeanMostSequences && a.num_kv_heads <= kLeanMostSequences;
}

}  // namespace

DecodeWay decode_way(std::string_view word) {
  DecodeWay way;
  way.lean = word != "general";
  if (word == "lean" || word == "general") way.mail = false;
  if (word == "lean-mail") way.mail_keys = 0;
  return way;
}

LeanDecode lean_decode(const AttentionArguments& a, const AttentionPlan& plan) {
  LeanDecode l;
  if (!takes(a, plan)) return l;
  const CacheView& cache = a.cache;
  const auto bytes = static_cast<std::int64_t>(size_of(cache.type));
  const auto in_bytes = [&](std::int64_t stride) {
    return static_cast<std::uint32_t>(stride * bytes);
  };
  l.k = static_cast<const char*>(cache.k);
  l.v = static_cast<const char*>(cache.v);
  l.page_table = cache.page_table;
  l.row_offsets = a.batch.row_offsets;
  l.cache_lengths = a.batch.cache_lengths;
  l.q = static_cast<const char*>(a.q);
  l.page_bytes = in_bytes(cache.k_page_stride);
  l.token_bytes = in_bytes(cache.k_token_stride);
  l.head_bytes = in_bytes(cache.k_head_stride);
  l.table_stride = static_cast<std::uint32_t>(cache.table_stride);
  l.page_shift =
      static_cast<std::uint32_t>(std::countr_zero(static_cast<std::uint64_t>(cache.page_size)));
  l.page_mask = static_cast<std::uint32_t>(cache.page_size - 1);
  l.planned_keys = static_cast<std::uint32_t>(plan.max_keys);
  l.splits = plan.splits;
  l.each = lean_runs(static_cast<int>(plan.max_keys), plan.splits);
  l.group = static_cast<int>(a.num_heads / a.num_kv_heads);
  l.num_heads = static_cast<std::uint32_t>(a.num_heads);
  l.scale_log2 = a.scale * 1.4426950408889634f;
  if (cache.type == Type::kFloat8E4M3 && cache.scales != CacheScales::kNone) {
    l.k_scale = cache.k_scale;
    l.v_scale = cache.v_scale;
    l.scale_stride = cache.scales == CacheScales::kHead ? 1 : 0;
  }
  l.old_keys_ready = a.old_keys_ready;
  l.rows_are_new_keys = a.batch.rows_are_new_keys;
  return l;
}

}  // namespace attn::gpu
