#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <thread>

#include "harness/generate/encode.h"
#include "harness/generate/profiles.h"
#include "reference/core/error.h"
#include "reference/core/paging.h"
#include "reference/core/philox.h"

namespace attn::harness {
namespace {

constexpr std::int64_t kBlock = 4096;                          // elements drawn at a time
constexpr std::int64_t kParallelFrom = std::int64_t{1} << 20;  // elements worth a second thread
constexpr double kMaxElements = 0x1p33;                        // of one case, all tensors together

/// Elements first .. first + count - 1 of `t` become normal(index) * gain, rounded to its type.
void draw_block_range(Tensor& t, const RandomStream& stream, std::int64_t first, std::int64_t count,
                      double gain) {
  std::array<double, kBlock> values;
  const auto size = static_cast<std::int64_t>(element_size(t.type()));
  for (std::int64_t at = first; at < first + count; at += kBlock) {
    const std::int64_t n = std::min(kBlock, first + count - at);
    const std::span<double> block(values.data(), static_cast<std::size_t>(n));
    stream.normals(static_cast<std::uint64_t>(at), block);
    if (gain != 1.0) {
      for (double& value : block) value *= gain;
    }
    encode_all(t.type(), block, t.data() + at * size);
  }
}

/// The same on two threads when there is enough to do. Which thread draws an element does not
/// matter: it depends on its index alone.
void draw_normals(Tensor& t, const RandomStream& stream, std::int64_t first, std::int64_t count,
                  double gain) {
  if (count < kParallelFrom) {
    draw_block_range(t, stream, first, count, gain);
    return;
  }
  const std::int64_t half = count / 2;
  std::thread other([&] { draw_block_range(t, stream, first + half, count - half, gain); });
  draw_block_range(t, stream, first, half, gain);
  other.join();
}

Tensor normal_tensor(const Draft& d, std::string_view name, ElementType type, Shape shape,
                     double gain) {
  Tensor t(type, std::move(shape));
  draw_normals(t, RandomStream(d.seed, name), 0, t.size(), gain);
  return t;
}

Tensor uint32_tensor(const std::vector<std::int64_t>& values) {
  Tensor t(ElementType::kUInt32, {static_cast<std::int64_t>(values.size())});
  for (std::size_t i = 0; i < values.size(); ++i) {
    t.as<std::uint32_t>()[i] = static_cast<std::uint32_t>(values[i]);
  }
  return t;
}

/// The config whose matrices and cache are drawn: quantise() encodes them afterwards.
AttentionConfig dense_config(const AttentionConfig& config) {
  AttentionConfig dense = config;
  dense.quant.reset();
  if (is_fp8(config.kv_cache.dtype)) dense.kv_cache.dtype = config.dtype;
  return dense;
}

/// Refuses a case that no machine would want to hold, before anything is allocated.
void check_size(const CaseSpec& spec) {
  const AttentionConfig& config = spec.config;
  double queries = 0;
  double keys = 0;
  double longest = 0;
  for (const RowSpec& row : spec.rows) {
    const auto first = static_cast<double>(row.first);
    const auto second = static_cast<double>(row.second);
    const double row_keys = config.starts_at_attention() ? second : first + second;
    queries += config.starts_at_attention() ? first : second;
    keys += row_keys;
    longest = std::max(longest, row_keys);
  }
  double elements = queries * static_cast<double>(config.q_width() + config.hidden_size) +
                    keys * static_cast<double>(config.k_width() + config.v_width()) *
                        static_cast<double>(spec.layers);
  if (!config.starts_at_attention()) elements += longest * static_cast<double>(config.rotary_dim());
  if (config.mask.variant == MaskVariant::kTensor) elements += queries * longest;
  for (const TensorSpec& weight : expected_weights(config)) {
    elements += static_cast<double>(num_elements(weight.shape));
  }
  if (elements > kMaxElements) {
    throw Error(ErrorKind::kConfig,
                "rows: the case would hold " + std::to_string(elements * 0x1p-30) +
                    "e9 elements, more than the 8.6e9 allowed; take shorter rows or fewer layers",
                "rows");
  }
}

/// input_row_offsets, cache_lengths and the lengths of the prior cache.
void set_lengths(Draft& d, const CaseSpec& spec) {
  const bool from_attention = spec.config.starts_at_attention();
  std::vector<std::int64_t> offsets = {0};
  std::int64_t total = 0;
  for (const RowSpec& row : spec.rows) {
    offsets.push_back(offsets.back() + (from_attention ? row.first : row.second));
    d.cached.push_back(from_attention ? row.second : row.first);
    d.first_cached.push_back(total);
    total += d.cached.back();
  }
  d.c.input_row_offsets = uint32_tensor(offsets);
  d.c.cache_lengths = uint32_tensor(d.cached);
}

/// Keys of the longest sequence after the call.
std::int64_t longest_sequence(const Case& c) {
  std::int64_t longest = 0;
  for (std::int64_t b = 0; b < c.batch(); ++b) longest = std::max(longest, c.key_count(b));
  return longest;
}

/// About the log-sum-exp of a row of n N(0, s) logits: ln n + s^2/2, or where the largest logit
/// alone counts s (sqrt(2 ln n) - 1/2). ln n comes from the bit width, since a logarithm of libm
/// would not be the same on every machine.
double typical_lse(const AttentionConfig& config, double logit_std, std::int64_t keys) {
  if (config.mask.window_size) keys = std::min(keys, *config.mask.window_size);
  if (config.mask.chunk_size) keys = std::min(keys, *config.mask.chunk_size);
  const int bits = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(keys)));
  const double ln_keys = 0.6931 * std::max(0.0, bits - 0.5);
  const double largest = logit_std * (std::sqrt(2 * ln_keys) - 0.5);
  const double lse = std::min(ln_keys + 0.5 * logit_std * logit_std, largest + 0.5);
  return config.logit_softcap ? std::min(lse, ln_keys + *config.logit_softcap) : lse;
}

/// gain * (1 + 0.3 N), one in eight negative.
Tensor norm_weight(const Draft& d, const std::string& name, const TensorSpec& spec, double gain) {
  constexpr double kSpread = 0.3;
  Tensor t(spec.types.front(), spec.shape);
  const RandomStream stream(d.seed, name);
  const RandomStream signs(d.seed, name + ".sign");
  for (std::int64_t i = 0; i < t.size(); ++i) {
    const auto index = static_cast<std::uint64_t>(i);
    const double sign = signs.below(index, 8) == 0 ? -gain : gain;
    t.set_value(i, sign * (1.0 + kSpread * stream.normal(index)));
  }
  return t;
}

/// Matrices are drawn as N(0, 1) * gain / sqrt(in), so that an N(0, 1) input gives N(0, gain).
Tensor projection_weight(const Draft& d, const std::string& name, const TensorSpec& spec) {
  Tensor t(spec.types.front(), spec.shape);
  const RandomStream stream(d.seed, name);
  const std::int64_t in = spec.shape[1];
  const double unit = 1.0 / std::sqrt(static_cast<double>(in));
  const ProjectionRows q = rows_of(d.config(), Projection::kQ);
  const std::int64_t q_elements = name == q.weight ? q.count * in : 0;
  draw_normals(t, stream, 0, q_elements, d.q_gain * unit);
  draw_normals(t, stream, q_elements, t.size() - q_elements, unit);
  return t;
}

void draw_weights(Draft& d, const CaseSpec& spec, double logit_std) {
  for (const TensorSpec& weight : expected_weights(dense_config(d.config()))) {
    const std::string& name = weight.name;
    const ElementType type = weight.types.front();
    if (name == "sinks") {
      if (!spec.sinks) continue;
      const double center = typical_lse(d.config(), logit_std, longest_sequence(d.c));
      Tensor sinks(type, weight.shape);
      const RandomStream stream(d.seed, name);
      for (std::int64_t i = 0; i < sinks.size(); ++i) {
        sinks.set_value(i, center + stream.normal(static_cast<std::uint64_t>(i)));
      }
      d.c.weights[name] = std::move(sinks);
    } else if (name.ends_with("_norm.weight")) {
      d.c.weights[name] = norm_weight(d, name, weight, name == "q_norm.weight" ? d.q_gain : 1.0);
    } else if (name.ends_with(".bias")) {
      const double gain = name == "q_proj.bias" ? 0.5 * d.q_gain : 0.5;
      d.c.weights[name] = normal_tensor(d, name, type, weight.shape, gain);
    } else {
      d.c.weights[name] = projection_weight(d, name, weight);
    }
  }
}

/// N(0, 2), one in sixteen -10000; +10000 in the columns past a row's length, which nobody may
/// read.
Tensor mask_tensor(const Draft& d) {
  constexpr double kFar = 1e4;
  const std::int64_t columns = longest_sequence(d.c);
  Tensor mask = normal_tensor(d, "mask", ElementType::kFloat32, {d.c.tokens(), columns}, 2.0);
  const RandomStream stream(d.seed, "mask.far");
  for (std::int64_t b = 0; b < d.c.batch(); ++b) {
    for (std::int64_t t = d.c.row_begin(b); t < d.c.row_begin(b) + d.c.row_count(b); ++t) {
      for (std::int64_t p = 0; p < columns; ++p) {
        const std::int64_t i = t * columns + p;
        if (p >= d.c.key_count(b)) {
          mask.set_value(i, kFar);
        } else if (stream.below(static_cast<std::uint64_t>(i), 16) == 0) {
          mask.set_value(i, -kFar);
        }
      }
    }
  }
  return mask;
}

void draw_inputs(Draft& d) {
  const AttentionConfig& config = d.config();
  const std::int64_t tokens = d.c.tokens();
  const std::int64_t keys = std::accumulate(d.cached.begin(), d.cached.end(), std::int64_t{0});
  const ElementType cache_type = dense_config(config).kv_cache.dtype;
  if (config.starts_at_attention()) {
    d.c.q = normal_tensor(d, "q", config.dtype,
                          {tokens, config.num_attention_heads, config.head_dim}, d.q_gain);
    if (config.mask.variant == MaskVariant::kTensor) d.c.mask = mask_tensor(d);
  } else {
    d.c.x = normal_tensor(d, "x", config.dtype, {tokens, config.hidden_size}, 1.0);
    d.c.freqs_cis = freqs_cis(config, std::max<std::int64_t>(1, longest_sequence(d.c)));
  }
  d.k = normal_tensor(d, "cache/k", cache_type, {keys, config.num_key_value_heads, config.head_dim},
                      1.0);
  d.v = normal_tensor(d, "cache/v", cache_type,
                      {keys, config.num_key_value_heads, config.head_dim_v}, 1.0);
}

/// Copies `source` of every `count` rows of `row` elements over the others.
void repeat_row(Tensor& t, std::int64_t row, std::int64_t count, std::int64_t source) {
  const std::size_t bytes = static_cast<std::size_t>(row) * element_size(t.type());
  const std::int64_t rows = row == 0 ? 0 : t.size() / row;
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t from = r / count * count + source;
    if (r == from) continue;
    std::memcpy(t.data() + static_cast<std::size_t>(r) * bytes,
                t.data() + static_cast<std::size_t>(from) * bytes, bytes);
  }
}

/// Gives tensors that may have stride 0 equal values along that axis: every kv head the first
/// one's, every row of the mask that of a longest sequence.
void make_broadcastable(Draft& d) {
  const std::int64_t heads = d.config().num_key_value_heads;
  if (!d.k.empty()) repeat_row(d.k, d.config().head_dim, heads, 0);
  if (!d.v.empty()) repeat_row(d.v, d.config().head_dim_v, heads, 0);
  if (d.c.mask.empty() || d.c.tokens() == 0) return;
  std::int64_t longest = 0;
  for (std::int64_t b = 0; b < d.c.batch(); ++b) {
    const bool is_longer = d.c.row_count(longest) == 0 || d.c.key_count(b) > d.c.key_count(longest);
    if (d.c.row_count(b) > 0 && is_longer) longest = b;
  }
  repeat_row(d.c.mask, d.c.mask.dim(1), d.c.tokens(), d.c.row_begin(longest));
}

/// Spare pages of a pool whose highest pages are the live ones: as many as a few megabytes hold.
std::int64_t spares_below(const CaseSpec& spec) {
  constexpr std::int64_t kElements = 400'000;
  const AttentionConfig& config = spec.config;
  const std::int64_t page =
      spec.layers * config.kv_cache.page_size * (config.k_width() + config.v_width());
  return std::clamp<std::int64_t>(kElements / page, 3, 300);
}

void lay_out_cache(Draft& d, const CaseSpec& spec, const CacheScales& scales) {
  std::vector<std::int64_t> capacity;
  for (std::int64_t b = 0; b < d.c.batch(); ++b) capacity.push_back(d.c.key_count(b));
  PagingOptions options;
  options.seed = d.seed;
  options.shuffled = spec.pages != PageOrder::kIdentity;
  if (spec.pages == PageOrder::kTop) {
    options.spares_first = true;
    options.spare_pages = spares_below(spec);
  }
  options.num_layers = spec.layers;
  options.layer = spec.layer;
  d.c.cache =
      make_paged_cache(d.config(), d.k, d.v, scales.k, scales.v, d.cached, capacity, options);
}

std::string repro_words(const CaseSpec& spec, std::uint64_t seed) {
  std::string quoted;  // for a POSIX shell; a quote inside closes, escapes and opens again
  for (const char letter : to_json(spec)) {
    quoted += letter == '\'' ? std::string("'\\''") : std::string(1, letter);
  }
  return "--config '" + quoted + "' --seed " + std::to_string(seed);
}

}  // namespace

ProjectionRows rows_of(const AttentionConfig& config, Projection projection) {
  const std::array<std::int64_t, 3> counts = {config.q_width(), config.k_width(), config.v_width()};
  constexpr std::array<const char*, 3> kNames = {"q_proj.weight", "k_proj.weight", "v_proj.weight"};
  const auto which = static_cast<std::size_t>(projection);
  if (!config.stacked_qkv) return {kNames[which], 0, counts[which]};
  const std::int64_t first =
      std::accumulate(counts.begin(), counts.begin() + which, std::int64_t{0});
  return {"qkv_proj.weight", first, counts[which]};
}

double query_gain(const AttentionConfig& config, double logit_std) {
  const double scale = std::abs(config.softmax_scale());
  if (!(scale > 0)) return logit_std;
  const double gain = logit_std / (scale * std::sqrt(static_cast<double>(config.head_dim)));
  return std::clamp(gain, 0x1p-6, 0x1p8);
}

Case make_case(const CaseSpec& spec, std::uint64_t seed) {
  Case c = make_case(spec, seed, {});
  c.repro = repro_words(spec, seed);
  return c;
}

Case make_case(const CaseSpec& spec, std::uint64_t seed, const std::function<void(Draft&)>& shape) {
  validate(spec);
  check_size(spec);
  const Profile& profile = find_profile(spec.profile);
  Draft d;
  d.seed = seed;
  d.q_gain = query_gain(spec.config, profile.logit_std);
  d.c.config = spec.config;
  d.c.layout = spec.layout;
  d.c.id = "seed-" + std::to_string(seed);
  set_lengths(d, spec);
  draw_weights(d, spec, profile.logit_std);
  draw_inputs(d);
  if (profile.shape != nullptr) profile.shape(d);
  if (shape) shape(d);
  if (spec.layout.broadcast && spec.config.starts_at_attention()) make_broadcastable(d);
  lay_out_cache(d, spec, quantise(d));
  return std::move(d.c);
}

}  // namespace attn::harness
