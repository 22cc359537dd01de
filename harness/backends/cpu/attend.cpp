#include "harness/backends/cpu/attend.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "harness/backends/cpu/cache_rows.h"
#include "harness/backends/cpu/exp.h"
#include "harness/backends/cpu/fault_switch.h"
#include "harness/backends/cpu/linalg.h"
#include "harness/backends/cpu/parallel.h"
#include "harness/backends/cpu/unpack.h"
#include "harness/backends/cpu/visibility.h"

namespace attn::harness::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Query vectors that share one pass over the keys of their kv head: enough to pay for unpacking
// them.
constexpr std::int64_t kTile = 32;

/// Some query vectors of one sequence and kv head. Number n of them is query head n % G of the
/// group in row n / G of the sequence.
struct Tile {
  std::int64_t sequence = 0;
  std::int64_t kv_head = 0;
  std::int64_t first = 0;
  std::int64_t count = 0;
};

std::vector<Tile> make_tiles(const Case& c) {
  std::vector<Tile> tiles;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    const std::int64_t vectors = c.row_count(b) * c.config.group_size();
    for (std::int64_t h = 0; h < c.config.num_key_value_heads; ++h) {
      for (std::int64_t n = 0; n < vectors; n += kTile) {
        tiles.push_back({b, h, n, std::min(kTile, vectors - n)});
      }
    }
  }
  return tiles;
}

/// Query head of vector number n of a kv head.
std::int64_t query_head(const AttentionConfig& config, std::int64_t kv_head, std::int64_t n) {
  const std::int64_t group = config.group_size();
  const std::int64_t in_group = n % group;
  if (ATTN_FAULT(kv_head_modulo, group > 1 && config.num_key_value_heads > 1)) {
    return in_group * config.num_key_value_heads + kv_head;
  }
  if (ATTN_FAULT(group_tile_of_16, in_group >= 16)) return kv_head * group + 15;
  if (ATTN_FAULT(group_masked_by_power_of_two, (in_group & (group - 1)) != in_group)) {
    return kv_head * group + (in_group & (group - 1));
  }
  return kv_head * group + in_group;
}

/// Position, for masks, of vector number n of a kv head.
std::int64_t mask_position(const Case& c, std::int64_t b, std::int64_t n) {
  const std::int64_t i = n / c.config.group_size();
  const std::int64_t position = c.query_position(b, i);
  if (ATTN_FAULT(mask_top_left, position != i)) return i;
  if (ATTN_FAULT(mask_align_ignored, c.config.mask.align == MaskAlign::kTopLeft)) {
    return c.key_count(b) - c.row_count(b) + i;
  }
  if (ATTN_FAULT(packed_gqa_mask_row, n != i)) return c.query_position(b, 0) + n;
  if (ATTN_FAULT(negative_position_is_zero, position < 0)) return 0;
  return position;
}

/// Keys that sequence b has.
std::int64_t keys_of(const Case& c, std::int64_t b) {
  const std::int64_t keys = ATTN_KEPT(plan_lengths_kept, b, c.key_count(b));
  if (ATTN_FAULT(last_page_of_one_key,
                 c.cache.page_size >= 16 && keys > 1 && keys % c.cache.page_size == 1)) {
    return keys - 1;
  }
  return keys;
}

/// One query vector on its way through the keys: o = sum_k e^(s_k - m) v_k, l = sum_k e^(s_k - m).
struct RunningSoftmax {
  std::int64_t row = 0;   ///< of all tokens
  std::int64_t head = 0;  ///< query head
  KeyRange visible;
  float m = -kInfinity;
  float l = 0.0f;
};

float sum4(Float4 v) { return (v[0] + v[2]) + (v[1] + v[3]); }

/// One tile, block of keys after block of keys.
class TileAttention {
 public:
  TileAttention(const Case& c, const KvCache& cache, const Tile& tile, std::int64_t block,
                const float* q, const std::vector<float>& sinks);
  void run();
  void write(float* lse, float* out) const;

 private:
  float sink_of(std::int64_t head) const;
  void load_keys(std::int64_t begin, std::int64_t end);
  void add_block(std::int64_t n, std::int64_t block_begin, std::int64_t block_end);
  void compute_scores(std::int64_t n, std::int64_t begin, std::int64_t count, const float* keys);

  const Case& case_;
  const KvCache& cache_;
  const Tile& tile_;
  const std::int64_t block_;
  const std::vector<float>& sinks_;  // [query heads], or empty
  Rows q_;                           // [count, head_dim]
  Rows o_;                           // [count, head_dim_v]
  Rows k_;                           // [block, head_dim]: keys loaded last
  Rows v_;                           // [block, head_dim_v]
  std::vector<float> scores_;
  std::vector<RunningSoftmax> states_;
  KeyRange seen_{std::numeric_limits<std::int64_t>::max(), 0};  // by any of the tile
};

TileAttention::TileAttention(const Case& c, const KvCache& cache, const Tile& tile,
                             std::int64_t block, const float* q, const std::vector<float>& sinks)
    : case_(c),
      cache_(cache),
      tile_(tile),
      block_(std::min(block, std::max<std::int64_t>(1, c.key_count(tile.sequence)))),
      sinks_(sinks),
      q_(tile.count, c.config.head_dim),
      o_(tile.count, c.config.head_dim_v),
      k_(block_, c.config.head_dim),
      v_(block_, c.config.head_dim_v),
      scores_(static_cast<std::size_t>(block_ + 4)),
      states_(static_cast<std::size_t>(tile.count)) {
  const std::int64_t group = c.config.group_size();
  const std::int64_t keys = keys_of(c, tile.sequence);
  for (std::int64_t n = 0; n < tile.count; ++n) {
    RunningSoftmax& state = states_[static_cast<std::size_t>(n)];
    state.row = c.row_begin(tile.sequence) + (tile.first + n) / group;
    state.head = query_head(c.config, tile.kv_head, tile.first + n);
    state.visible =
        visible_keys(c.config.mask, mask_position(c, tile.sequence, tile.first + n), keys);
    if (!sinks.empty() && !ATTN_FAULT(sink_dropped)) {  // one more logit, with no value vector
      state.m = sink_of(state.head);
      state.l = 1.0f;
    }
    if (state.visible.begin < state.visible.end) {
      seen_.begin = std::min(seen_.begin, state.visible.begin);
      seen_.end = std::max(seen_.end, state.visible.end);
    }
    const float* const source =
        q + (state.row * c.config.num_attention_heads + state.head) * c.config.head_dim;
    std::copy(source, source + c.config.head_dim, q_.row(n));
  }
}

float TileAttention::sink_of(std::int64_t head) const {
  const std::int64_t group = case_.config.group_size();
  if (ATTN_FAULT(sink_of_kv_head, group > 1)) head /= group;
  return ATTN_KEPT(sinks_kept, head, sinks_[static_cast<std::size_t>(head)]);
}

void TileAttention::run() {
  // Blocks start at multiples of the block size whatever the tile sees, so that a row's sums do not
  // depend on the rows beside it.
  for (std::int64_t begin = seen_.begin / block_ * block_; begin < seen_.end; begin += block_) {
    const std::int64_t end = begin + block_;
    load_keys(begin, end);
    for (std::int64_t n = 0; n < tile_.count; ++n) add_block(n, begin, end);
  }
}

void TileAttention::load_keys(std::int64_t begin, std::int64_t end) {
  const std::int64_t last = std::min(end, seen_.end);
  for (std::int64_t p = std::max(begin, seen_.begin); p < last; ++p) {
    load_head(cache_, CachePart::kKeys, tile_.sequence, p, tile_.kv_head, k_.row(p - begin));
    load_head(cache_, CachePart::kValues, tile_.sequence, p, tile_.kv_head, v_.row(p - begin));
  }
}

void TileAttention::add_block(std::int64_t n, std::int64_t block_begin, std::int64_t block_end) {
  RunningSoftmax& state = states_[static_cast<std::size_t>(n)];
  const std::int64_t begin = std::max(block_begin, state.visible.begin);
  const std::int64_t count = std::min(block_end, state.visible.end) - begin;
  if (count <= 0) return;
  compute_scores(n, begin, count, k_.row(begin - block_begin));

  float* const s = scores_.data();
  Float4 largest = splat4(state.m);
  for (std::int64_t k = 0; k < count; k += 4) {
    const Float4 score = load4(s + k);
    largest = score > largest ? score : largest;
  }
  float m = std::max(std::max(largest[0], largest[1]), std::max(largest[2], largest[3]));
  if (ATTN_FAULT(finite_sentinel, m < -5e3f)) m = -5e3f;
  // Where every score so far is -infinity, e^(s - 0) gives the weights 0 that e^(s - m) would not.
  const float shift = m == -kInfinity ? 0.0f : m;
  const std::int64_t count4 = (count + 3) / 4 * 4;
  for (std::int64_t k = 0; k < count4; ++k) s[k] = exp_nonpositive(s[k] - shift);
  Float4 sum = {};
  for (std::int64_t k = 0; k < count; k += 4) sum += load4(s + k);

  float rescale = exp_nonpositive(state.m - shift);
  if (ATTN_FAULT(rescale_is_one, rescale != 1.0f)) rescale = 1.0f;
  float* const o = o_.row(n);
  if (rescale != 1.0f) {
    for (std::int64_t d = 0; d < o_.stride; ++d) o[d] *= rescale;
  }
  state.l = state.l * rescale + sum4(sum);
  if (ATTN_FAULT(sink_per_block, !sinks_.empty() && block_begin > 0)) {
    state.l += exp_nonpositive(sink_of(state.head) - shift);
  }
  state.m = m;
  add_weighted_rows(s, count, v_.row(begin - block_begin), v_.stride, v_.stride, o);
}

/// scores_[0 .. count - 1] for the keys from `begin` on, and -infinity up to the next multiple
/// of 4.
void TileAttention::compute_scores(std::int64_t n, std::int64_t begin, std::int64_t count,
                                   const float* keys) {
  const AttentionConfig& config = case_.config;
  float* const s = scores_.data();
  for (std::int64_t k = 0; k < count; k += 4) {
    dot4(q_.row(n), keys + k * k_.stride, k_.stride, k_.stride, s + k);
  }
  auto scale = static_cast<float>(config.softmax_scale());
  if (ATTN_FAULT(scale_of_padded_head_dim, !config.scale && k_.stride != config.head_dim)) {
    scale = 1.0f / std::sqrt(static_cast<float>(k_.stride));
  }
  for (std::int64_t k = 0; k < count; ++k) s[k] *= scale;
  if (config.logit_softcap) {
    const double cap = *config.logit_softcap;
    for (std::int64_t k = 0; k < count; ++k) {
      s[k] = static_cast<float>(cap * std::tanh(static_cast<double>(s[k]) / cap));
    }
  }
  if (config.mask.variant == MaskVariant::kTensor) {
    const std::int64_t row = states_[static_cast<std::size_t>(n)].row;
    const float* const mask = case_.mask.as<float>() + row * case_.mask.dim(1) + begin;
    for (std::int64_t k = 0; k < count; ++k) s[k] += mask[k];
  }
  std::fill(s + count, s + (count + 3) / 4 * 4, -kInfinity);
}

void TileAttention::write(float* lse, float* out) const {
  const AttentionConfig& config = case_.config;
  for (std::int64_t n = 0; n < tile_.count; ++n) {
    const RunningSoftmax& state = states_[static_cast<std::size_t>(n)];
    const std::int64_t vector = state.row * config.num_attention_heads + state.head;
    const bool sees_nothing = state.l == 0.0f;
    lse[vector] = sees_nothing ? -kInfinity : state.m + std::log(state.l);
    if (ATTN_FAULT(lse_base_2)) lse[vector] /= std::log(2.0f);
    float* const target = out + vector * config.head_dim_v;
    const float* const o = o_.row(n);
    for (std::int64_t d = 0; d < config.head_dim_v; ++d) {
      target[d] = sees_nothing ? 0.0f : o[d] / state.l;
    }
  }
}

/// Float operations of the whole call, about.
double attention_work(const Case& c) {
  double pairs = 0.0;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    pairs += static_cast<double>(c.row_count(b)) * static_cast<double>(c.key_count(b));
  }
  const auto per_pair = static_cast<double>(2 * (c.config.head_dim + c.config.head_dim_v) + 30);
  return pairs * per_pair * static_cast<double>(c.config.num_attention_heads);
}

}  // namespace

void attend(const Case& c, const KvCache& cache, const float* q, const AttendOptions& options,
            float* lse, float* out) {
  const std::vector<Tile> tiles = make_tiles(c);
  const std::vector<float> sinks =
      c.has_sinks() ? unpack_vector(c.weights.at("sinks")) : std::vector<float>{};
  parallel_for(static_cast<std::int64_t>(tiles.size()), options.threads, attention_work(c),
               [&](std::int64_t i) {
                 TileAttention attention(c, cache, tiles[static_cast<std::size_t>(i)],
                                         options.block, q, sinks);
                 attention.run();
                 attention.write(lse, out);
               });
}

}  // namespace attn::harness::cpu
