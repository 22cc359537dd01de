#include "harness/bench/work.h"

#include <algorithm>

namespace attn::bench {
namespace {

struct Keys {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

/// What the mask variant shows row i of sequence b; tensors are taken to hide nothing.
Keys keys_of_row(const Case& c, std::int64_t b, std::int64_t i) {
  const MaskConfig& mask = c.config.mask;
  const std::int64_t keys = c.key_count(b);
  const std::int64_t position = mask.align == MaskAlign::kTopLeft ? i : keys - c.row_count(b) + i;
  Keys seen{0, keys};
  const bool back_only = mask.variant == MaskVariant::kCausal ||
                         mask.variant == MaskVariant::kChunkedCausal ||
                         mask.variant == MaskVariant::kSlidingWindowCausal;
  if (back_only) seen.end = std::min(keys, position + 1);
  if (mask.variant == MaskVariant::kChunkedCausal && mask.chunk_size && position > 0) {
    seen.begin = position / *mask.chunk_size * *mask.chunk_size;
  }
  if ((mask.variant == MaskVariant::kSlidingWindowCausal ||
       mask.variant == MaskVariant::kSlidingWindowNoncausal) &&
      mask.window_size) {
    seen.begin = std::max<std::int64_t>(0, position - *mask.window_size + 1);
  }
  seen.end = std::max(seen.end, seen.begin);
  return seen;
}

double bytes_of(const Tensor& t) { return static_cast<double>(t.bytes().size()); }

}  // namespace

Work attention_work(const Case& c) {
  const AttentionConfig& config = c.config;
  const auto channels = static_cast<double>(config.head_dim + config.head_dim_v);
  const auto heads = static_cast<double>(config.num_attention_heads);
  double pairs = 0.0;
  double read = 0.0;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    Keys any{c.key_count(b), 0};
    for (std::int64_t i = 0; i < c.row_count(b); ++i) {
      const Keys seen = keys_of_row(c, b, i);
      pairs += static_cast<double>(seen.end - seen.begin);
      if (seen.begin == seen.end) continue;
      any = {std::min(any.begin, seen.begin), std::max(any.end, seen.end)};
    }
    read += static_cast<double>(std::max<std::int64_t>(0, any.end - any.begin));
  }
  double key_bytes = channels * static_cast<double>(element_size(c.cache.k.type()));
  if (config.kv_cache.scale_granularity == ScaleGranularity::kTokenHead) key_bytes += 8.0;
  const double row_bytes = heads * channels * static_cast<double>(element_size(config.dtype));
  return {2.0 * channels * heads * pairs,
          read * static_cast<double>(config.num_key_value_heads) * key_bytes +
              static_cast<double>(c.tokens()) * row_bytes};
}

Work projection_work(const Case& c) {
  const AttentionConfig& config = c.config;
  const auto rows = static_cast<double>(c.tokens());
  const bool forward = config.entry_point == EntryPoint::kForward;
  const auto hidden = static_cast<double>(config.hidden_size);
  const auto stored = static_cast<double>(config.k_width() + config.v_width());
  double products = hidden * stored;
  if (forward) {
    products += hidden * static_cast<double>(config.q_width() + config.attn_width());
  }
  double weights = 0.0;
  for (const auto& [name, tensor] : c.weights) {
    if (name.find("proj") != std::string::npos) weights += bytes_of(tensor);
  }
  const auto element = static_cast<double>(element_size(config.dtype));
  const auto cache = static_cast<double>(element_size(c.cache.k.type()));
  return {2.0 * rows * products,
          weights + rows * ((forward ? 2.0 : 1.0) * hidden * element + stored * cache)};
}

Work work_of(const Case& c) {
  if (c.config.starts_at_attention()) return attention_work(c);
  Work layer = projection_work(c);
  if (c.config.entry_point == EntryPoint::kMaterializeKvFromHidden) return layer;
  const Work attention = attention_work(c);
  // Queries and the output of attention stay inside the layer.
  const double inside =
      static_cast<double>(c.tokens() * (c.config.q_width() + c.config.attn_width())) *
      static_cast<double>(element_size(c.config.dtype));
  return {layer.operations + attention.operations, layer.bytes + attention.bytes - inside};
}

double floor_seconds(const Work& work, double operations_per_second, double bytes_per_second) {
  return std::max(work.operations / operations_per_second, work.bytes / bytes_per_second);
}

}  // namespace attn::bench
