#include "gpu/kernels/head_pass_plan.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace attn::gpu {
namespace {

bool aligned(const void* p, std::uintptr_t bytes) {
  return reinterpret_cast<std::uintptr_t>(p) % bytes == 0;
}

bool fits_an_int(std::int64_t x) { return x >= 0 && x <= std::numeric_limits<int>::max(); }

bool fit_ints(const HeadPassArguments& a) {
  const std::array<std::int64_t, 7> sizes{
      a.batch.tokens,       (a.num_heads + 2 * a.num_kv_heads) * a.head_dim,
      a.k_row_stride,       a.rotary_dim,
      a.cache.page_size,    a.cache.k_head_stride,
      a.cache.v_head_stride};
  return std::ranges::all_of(sizes, fits_an_int);
}

/// q, k and v beside each other, as one product leaves them.
bool is_one_matrix(const HeadPassArguments& a) {
  const auto behind = [&](const void* p, std::int64_t heads) -> const void* {
    return static_cast<const std::byte*>(p) + heads * a.head_dim * size_of(a.type);
  };
  const bool has_q = a.num_heads > 0;
  return a.k != nullptr && a.v == behind(a.k, a.num_kv_heads) && a.v_row_stride == a.k_row_stride &&
         (!has_q ||
          (a.q != nullptr && a.k == behind(a.q, a.num_heads) && a.q_row_stride == a.k_row_stride));
}

/// Of the heads' rows and what is kept of them: vectors of 8 channels.
bool lies_in_vectors(const HeadPassArguments& a) {
  const std::array<const void*, 8> rows{a.q,        a.k,       a.v,       a.q_normed,
                                        a.k_normed, a.q_roped, a.k_roped, a.padding_zeros};
  return a.k_row_stride % 8 == 0 &&
         std::ranges::all_of(rows, [](const void* p) { return aligned(p, 16); });
}

bool cache_lies_in_vectors(const CacheView& c) {
  const auto bytes = 8 * static_cast<std::uintptr_t>(size_of(c.type));
  const std::array<std::int64_t, 6> strides{c.k_page_stride, c.k_token_stride, c.k_head_stride,
                                            c.v_page_stride, c.v_token_stride, c.v_head_stride};
  return aligned(c.k, bytes) && aligned(c.v, bytes) &&
         std::ranges::all_of(strides, [](std::int64_t stride) { return stride % 8 == 0; });
}

std::string_view refusal(const HeadPassArguments& a) {
  if (a.type != Type::kBFloat16 && a.type != Type::kFloat16) {
    return "activations are neither bfloat16 nor float16";
  }
  if (a.head_dim != 64 && a.head_dim != 128 && a.head_dim != 256) {
    return "head_dim is none of 64, 128 and 256";
  }
  if (!a.rope || !a.store) return "only some of the steps";
  if (!is_one_matrix(a)) return "q, k and v are not beside each other";
  if (!fit_ints(a)) return "sizes of more than an int";
  if (!lies_in_vectors(a)) return "rows do not lie at multiples of 16 bytes";
  if (a.norm && !(aligned(a.q_gamma, 16) && aligned(a.k_gamma, 16))) {
    return "norm weights do not lie at multiples of 16 bytes";
  }
  if (!aligned(a.freqs_cis, 16)) return "angles do not lie at multiples of 16 bytes";
  if (a.rotary_dim % 8 != 0) return "rotary_dim is no multiple of 8";
  if (!a.interleaved && a.rotary_dim != a.head_dim) return "part of a head turns in halves";
  if (a.cache.type != a.type && a.cache.type != Type::kFloat8E4M3) {
    return "the cache has neither codes nor the type of the activations";
  }
  if (!cache_lies_in_vectors(a.cache)) return "heads of the cache do not lie in whole vectors";
  return "";
}

/// Of a block: all groups at once for few rows, else kHeadRowGroups each.
int warps_of(const HeadPassArguments& a) {
  const std::int64_t heads_of_warp = 32 * 16 / a.head_dim;
  const std::int64_t heads = a.num_heads + 2 * a.num_kv_heads;
  const std::int64_t groups = (heads + heads_of_warp - 1) / heads_of_warp;
  const std::int64_t each = a.batch.tokens <= kFewHeadRows ? 1 : kHeadRowGroups;
  return static_cast<int>(
      std::clamp<std::int64_t>((groups + each - 1) / each, 1, kMostHeadRowWarps));
}

}  // namespace

HeadPassPlan plan_head_pass(const HeadPassArguments& a) {
  HeadPassPlan plan;
  plan.refusal = refusal(a);
  if (plan.rows()) plan.warps = warps_of(a);
  return plan;
}

void head_pass(const HeadPassArguments& a, StreamHandle stream) {
  if (a.batch.tokens == 0) return;
#ifndef ATTN_FAULTY  // bugs are planted in the general kernel
  if (const HeadPassPlan plan = plan_head_pass(a); plan.rows()) {
    return head_pass_rows(a, plan.warps, stream);
  }
#endif
  head_pass_general(a, stream);
}

}  // namespace attn::gpu
