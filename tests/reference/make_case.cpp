#include "tests/reference/make_case.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "reference/core/philox.h"
#include "reference/core/rules.h"
#include "reference/stages/rope_table.h"
#include "tests/reference/quantised_weights.h"

namespace attn::reference::test {
namespace {

std::vector<double> normals(const std::string& name, std::int64_t count, double scale) {
  std::vector<double> values(static_cast<std::size_t>(count));
  RandomStream(7, name).normals(0, values);
  for (double& v : values) {
    v *= scale;
  }
  return values;
}

/// Rows of all sequences back to back, `width` values each, `rows(s)` rows for sequence s.
template <typename Rows>
std::vector<double> per_sequence(const std::string& name, const std::vector<Sequence>& sequences,
                                 std::int64_t width, Rows rows) {
  std::vector<double> all;
  for (const Sequence& s : sequences) {
    const auto part = normals(name + std::to_string(s.id), rows(s) * width, 1.0);
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

LayerWeights make_weights(const AttentionConfig& config) {
  LayerWeights weights;
  for (const TensorSpec& spec : expected_weights(config)) {
    if (spec.optional) {
      continue;
    }
    if (config.quant && spec.name.find("_proj.") != std::string::npos &&
        !spec.name.ends_with(".bias")) {
      weights[spec.name] = quantised_weight(config, spec);
      continue;
    }
    const bool is_matrix = spec.shape.size() == 2;
    const double scale = is_matrix ? 1.0 / std::sqrt(static_cast<double>(spec.shape.back())) : 0.2;
    std::vector<double> values = normals(spec.name, num_elements(spec.shape), scale);
    if (spec.name.ends_with("norm.weight")) {
      for (double& v : values) {
        v += 1.0;
      }
    }
    weights[spec.name] = Tensor::from_values(spec.types.front(), spec.shape, values);
  }
  return weights;
}

/// Scales of a float8 cache, between 0.01 and 0.03 and different for k and v; absent without.
Tensor make_scale(const AttentionConfig& config, const std::vector<Sequence>& sequences,
                  const std::string& name, std::int64_t total) {
  const std::int64_t heads = config.num_key_value_heads;
  const auto cached = [](const Sequence& s) { return s.cached; };
  Shape shape;
  std::vector<double> values;
  switch (config.kv_cache.scale_granularity) {
    case ScaleGranularity::kNone:
      return {};
    case ScaleGranularity::kTensor:
      values = normals(name, 1, 1.0);
      break;
    case ScaleGranularity::kHead:
      shape = {heads};
      values = normals(name, heads, 1.0);
      break;
    case ScaleGranularity::kTokenHead:
      shape = {total, heads};
      values = per_sequence(name, sequences, heads, cached);
      break;
  }
  for (double& v : values) {
    v = 0.02 + 0.01 * std::tanh(v);
  }
  return Tensor::from_values(ElementType::kFloat32, shape, values);
}

KvCache make_cache(const AttentionConfig& config, const std::vector<Sequence>& sequences,
                   const PagingOptions& paging) {
  std::vector<std::int64_t> lengths;
  std::vector<std::int64_t> capacity;
  std::int64_t total = 0;
  for (const Sequence& s : sequences) {
    lengths.push_back(s.cached);
    capacity.push_back(config.starts_at_attention() ? s.cached : s.cached + s.rows);
    total += s.cached;
  }
  const auto cached = [](const Sequence& s) { return s.cached; };
  const ElementType type = config.kv_cache.dtype;
  const Tensor k_scale = make_scale(config, sequences, "cache/k_scale", total);
  const Tensor v_scale = make_scale(config, sequences, "cache/v_scale", total);
  const Tensor k =
      Tensor::from_values(type, {total, config.num_key_value_heads, config.head_dim},
                          per_sequence("cache/k", sequences, config.k_width(), cached));
  const Tensor v =
      Tensor::from_values(type, {total, config.num_key_value_heads, config.head_dim_v},
                          per_sequence("cache/v", sequences, config.v_width(), cached));
  return make_paged_cache(config, k, v, k_scale, v_scale, lengths, capacity, paging);
}

}  // namespace

AttentionConfig small_config() {
  AttentionConfig config;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 16;
  config.head_dim_v = 16;
  config.hidden_size = 32;
  config.rope.interleaved = false;
  config.kv_cache.page_size = 4;
  return config;
}

AttentionConfig small_core_config() {
  AttentionConfig config = small_config();
  config.variant = Variant::kAttention;
  config.entry_point = EntryPoint::kAttention;
  config.hidden_size = 0;
  config.rope = {};
  return config;
}

MaskConfig make_mask(MaskVariant variant, std::int64_t width) {
  MaskConfig mask;
  mask.variant = variant;
  if (variant == MaskVariant::kChunkedCausal) {
    mask.chunk_size = width;
  } else if (variant == MaskVariant::kSlidingWindowCausal ||
             variant == MaskVariant::kSlidingWindowNoncausal) {
    mask.window_size = width;
  }
  return mask;
}

Case make_case(const AttentionConfig& config, const std::vector<Sequence>& sequences,
               const PagingOptions& paging) {
  Case c;
  c.config = config;
  std::vector<std::int64_t> offsets{0};
  std::vector<std::int64_t> cached;
  std::int64_t positions = 1;
  std::int64_t most_keys = 0;
  for (const Sequence& s : sequences) {
    offsets.push_back(offsets.back() + s.rows);
    cached.push_back(s.cached);
    positions = std::max(positions, s.cached + s.rows);
    most_keys = std::max(most_keys, s.cached);
  }
  c.input_row_offsets = indices(offsets);
  c.cache_lengths = indices(cached);
  c.weights = make_weights(config);
  c.cache = make_cache(config, sequences, paging);

  const auto rows = [](const Sequence& s) { return s.rows; };
  const std::int64_t tokens = offsets.back();
  if (config.starts_at_attention()) {
    c.q = Tensor::from_values(config.dtype, {tokens, config.num_attention_heads, config.head_dim},
                              per_sequence("q", sequences, config.q_width(), rows));
    if (config.mask.variant == MaskVariant::kTensor) {
      c.mask = Tensor::from_values(ElementType::kFloat32, {tokens, most_keys},
                                   normals("mask", tokens * most_keys, 1.0));
    }
  } else {
    c.x = Tensor::from_values(config.dtype, {tokens, config.hidden_size},
                              per_sequence("x", sequences, config.hidden_size, rows));
    const Matrix table = rope_table(config, positions, Rounding(Mode::kExact));
    c.freqs_cis = Tensor::from_values(
        ElementType::kFloat32, {positions, config.rotary_dim()},
        std::span<const double>(table.data(), static_cast<std::size_t>(table.size())));
  }
  validate(c);
  return c;
}

Tensor slice_rows(const Tensor& t, std::int64_t first, std::int64_t count) {
  Shape shape = t.shape();
  const std::int64_t width = shape[0] == 0 ? 0 : t.size() / shape[0];
  shape[0] = count;
  std::vector<double> values(static_cast<std::size_t>(count * width));
  t.values(first * width, values);
  return Tensor::from_values(t.type(), shape, values);
}

Tensor indices(const std::vector<std::int64_t>& values) {
  const std::vector<double> doubles(values.begin(), values.end());
  return Tensor::from_values(ElementType::kUInt32, {static_cast<std::int64_t>(values.size())},
                             doubles);
}

double largest_difference(const Tensor& a, const Tensor& b) {
  double largest = 0.0;
  for (std::int64_t i = 0; i < a.size(); ++i) {
    const double x = a.value(i);
    const double y = b.value(i);
    if (x == y || (std::isnan(x) && std::isnan(y))) {
      continue;
    }
    const double difference = std::abs(x - y);
    largest = std::isfinite(difference) ? std::max(largest, difference)
                                        : std::numeric_limits<double>::infinity();
  }
  return largest;
}

double largest_magnitude(const Tensor& t) {
  double largest = 0.0;
  for (const double v : t.values()) {
    if (std::isfinite(v)) {
      largest = std::max(largest, std::abs(v));
    }
  }
  return largest;
}

bool all_finite(const Tensor& t) {
  const std::vector<double> values = t.values();
  return std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
}

}  // namespace attn::reference::test
