#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "reference/core/case.h"
#include "reference/core/philox.h"
#include "reference/core/trace.h"

namespace attn::harness {

/// The masks as golden-format.md and the field's definitions write them, one key at a time.
inline bool naive_visible(const MaskConfig& mask, std::int64_t q, std::int64_t k) {
  switch (mask.variant) {
    case MaskVariant::kNull:
    case MaskVariant::kTensor:
      return true;
    case MaskVariant::kCausal:
      return k <= q;
    case MaskVariant::kChunkedCausal:
      return k <= q && q / *mask.chunk_size == k / *mask.chunk_size;
    case MaskVariant::kSlidingWindowCausal:
      return k <= q && q - k < *mask.window_size;
    case MaskVariant::kSlidingWindowNoncausal:
      return k + *mask.window_size > q;
  }
  return false;
}

/// Attention of a backend's own q [tokens, Hq*D] over its own cache in logical order, in float64
/// with plain loops. Per element it also gives the sums of magnitudes that a float32 error scales
/// with.
struct NaiveAttention {
  std::vector<double> lse;  ///< [tokens, Hq]
  std::vector<double> out;  ///< [tokens, Hq*Dv]
  std::vector<double>
      lse_scale;  ///< largest scale * sum |q k| of the row's keys, plus |lse|, plus 1
  std::vector<double> out_scale;  ///< (lse_scale) * sum p |v|
};

inline NaiveAttention naive_attention(const Case& c, const std::vector<double>& q,
                                      const std::vector<double>& k, const std::vector<double>& v) {
  const AttentionConfig& f = c.config;
  NaiveAttention result;
  std::int64_t first_key = 0;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    const std::int64_t keys = c.key_count(b);
    for (std::int64_t i = 0; i < c.row_count(b); ++i) {
      const std::int64_t t = c.row_begin(b) + i;
      for (std::int64_t h = 0; h < f.num_attention_heads; ++h) {
        const std::int64_t kv = h / f.group_size();
        std::vector<double> score(static_cast<std::size_t>(keys),
                                  -std::numeric_limits<double>::infinity());
        double top = c.has_sinks() ? c.weights.at("sinks").value(h)
                                   : -std::numeric_limits<double>::infinity();
        double magnitude = 0.0;
        for (std::int64_t p = 0; p < keys; ++p) {
          if (!naive_visible(f.mask, c.query_position(b, i), p)) continue;
          double dot = 0.0, size = 0.0;
          for (std::int64_t d = 0; d < f.head_dim; ++d) {
            const double term =
                q[static_cast<std::size_t>((t * f.num_attention_heads + h) * f.head_dim + d)] *
                k[static_cast<std::size_t>(
                    ((first_key + p) * f.num_key_value_heads + kv) * f.head_dim + d)];
            dot += term;
            size += std::abs(term);
          }
          double s = dot * f.softmax_scale();
          magnitude = std::max(magnitude, size * std::abs(f.softmax_scale()));
          if (f.logit_softcap) s = *f.logit_softcap * std::tanh(s / *f.logit_softcap);
          if (f.mask.variant == MaskVariant::kTensor) {
            const double added = c.mask.value(t * c.mask.dim(1) + p);
            s += added;
            if (std::isfinite(added)) magnitude = std::max(magnitude, std::abs(added));
          }
          score[static_cast<std::size_t>(p)] = s;
          top = std::max(top, s);
        }
        const double shift = std::isinf(top) ? 0.0 : top;
        double sum = c.has_sinks() ? std::exp(c.weights.at("sinks").value(h) - shift) : 0.0;
        for (const double s : score) sum += std::exp(s - shift);
        result.lse.push_back(sum == 0.0 ? -std::numeric_limits<double>::infinity()
                                        : shift + std::log(sum));
        result.lse_scale.push_back(magnitude + std::abs(shift) + 1.0);
        for (std::int64_t d = 0; d < f.head_dim_v; ++d) {
          double o = 0.0, size = 0.0;
          for (std::int64_t p = 0; p < keys; ++p) {
            const double s = score[static_cast<std::size_t>(p)];
            if (std::isinf(s)) continue;
            const double term =
                std::exp(s - shift) / sum *
                v[static_cast<std::size_t>(
                    ((first_key + p) * f.num_key_value_heads + kv) * f.head_dim_v + d)];
            o += term;
            size += std::abs(term);
          }
          result.out.push_back(o);
          result.out_scale.push_back(result.lse_scale.back() * size);
        }
      }
    }
    first_key += keys;
  }
  return result;
}

}  // namespace attn::harness
