#include "harness/backends/cpu/attend.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
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
[[maybe_unused]] constexpr float kLargestHalf = 65504.0f;
// e4m3's largest value, of probabilities that are 2^8 times as large.
[[maybe_unused]] constexpr float kLargestFp8 = 448.0f / 256.0f;

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
    const std::int64_t rows = ATTN_KEPT(graph_rows_kept, b, c.row_count(b), c.row_count(b));
    const std::int64_t vectors = rows * c.config.group_size();
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
  if (ATTN_FAULT(second_tile_starts_over, n >= kTile))
    return c.query_position(b, n % kTile / c.config.group_size());
  return position;
}

/// Keys that sequence b has.
std::int64_t keys_of(const Case& c, std::int64_t b) {
  const std::int64_t keys = ATTN_KEPT(plan_lengths_kept, b, c.key_count(b), c.key_count(b));
  if (ATTN_FAULT(last_page_of_one_key,
                 c.cache.page_size >= 16 && keys > 1 && keys % c.cache.page_size == 1)) {
    return keys - 1;
  }
  return keys;
}

/// What vector number n of a kv head sees.
KeyRange visible_to(const Case& c, std::int64_t b, std::int64_t n) {
  KeyRange seen = visible_keys(c.config.mask, mask_position(c, b, n), keys_of(c, b));
  if (ATTN_FAULT(window_decode_from_next_page,
                 c.row_count(b) == 1 && seen.begin % c.cache.page_size != 0)) {
    seen.begin += c.cache.page_size - seen.begin % c.cache.page_size;
  }
  return seen;
}

/// One query vector on its way through the keys: o = sum_k e^(s_k - m) v_k, l = sum_k e^(s_k - m).
struct RunningSoftmax {
  std::int64_t row = 0;   ///< of all tokens
  std::int64_t head = 0;  ///< query head
  KeyRange visible;
  float m = -kInfinity;
  float l = 0.0f;
  // Of planted bugs alone:
  KeyRange shown;              ///< what is visible where hidden keys are computed with
  float largest = -kInfinity;  ///< score so far, where m lags behind it
  bool tied = false;           ///< the sink was as large as a score
};

/// Whether unused slots follow the last key that a row sees.
[[maybe_unused]] bool sees_unused_slots(const Case& c, const KvCache& cache,
                                        const KeyRange& visible, std::int64_t keys) {
  return visible.begin < keys && visible.end == keys && keys % cache.page_size != 0 &&
         c.config.mask.variant != MaskVariant::kTensor;
}

[[maybe_unused]] bool hides_keys(const KeyRange& visible, std::int64_t keys) {
  return visible.begin < visible.end && visible.end - visible.begin < keys;
}

/// Head of the cache that a tile reads.
std::int64_t cached_head_of(const Case& c, const Tile& tile) {
  [[maybe_unused]] const std::int64_t heads = c.config.num_key_value_heads;
  [[maybe_unused]] const std::int64_t group = c.config.group_size();
  if (ATTN_FAULT(kv_head_wrong_divisor, heads > 1 && group != heads)) {
    return std::min(tile.kv_head * group / heads, heads - 1);
  }
  if (ATTN_FAULT(large_group_fp16_cache,
                 group > 8 && tile.kv_head > 0 && c.cache.k.type() == ElementType::kFloat16)) {
    return 0;
  }
  return tile.kv_head;
}

void soft_cap(const AttentionConfig& config, float* scores, std::int64_t count) {
  [[maybe_unused]] constexpr double kLargestExponent = 88.7;  // of a float32 e^x
  if (!config.logit_softcap || ATTN_FAULT(softcap_ignored)) return;
  const double cap = *config.logit_softcap;
  for (std::int64_t k = 0; k < count; ++k) {
    const double ratio = static_cast<double>(scores[k]) / cap;
    scores[k] = static_cast<float>(cap * std::tanh(ratio));
    if (ATTN_FAULT(softcap_overflows, std::abs(ratio) > kLargestExponent)) {
      const float up = std::exp(static_cast<float>(ratio));
      const float down = std::exp(-static_cast<float>(ratio));
      scores[k] = static_cast<float>(cap) * ((up - down) / (up + down));
    }
  }
}

/// Where a maximum goes that is taken before a scale below 0: the least of the scores and of the
/// one before, -infinity for none. Nothing where that is the maximum as well.
[[maybe_unused]] std::optional<float> wrong_end(const float* scores, std::int64_t count,
                                                float before) {
  const auto [least, most] = std::minmax_element(scores, scores + count);
  const float wrong = before == -kInfinity ? *least : std::min(*least, before);
  return wrong == std::max(*most, before) ? std::nullopt : std::optional(wrong);
}

/// Whether `count` rows of `width` are the same.
[[maybe_unused]] bool are_equal(const float* rows, std::int64_t count, std::int64_t stride,
                                std::int64_t width) {
  for (std::int64_t k = 1; k < count; ++k) {
    if (!std::equal(rows, rows + width, rows + k * stride)) return false;
  }
  return true;
}

/// Row `row` of all tokens, one of sequence b, of the mask tensor.
const float* mask_row(const Case& c, std::int64_t b, std::int64_t row) {
  std::int64_t width = c.mask.dim(1);
  if (ATTN_FAULT(mask_row_of_sequence, b > 0)) row -= c.row_begin(b);
  if (ATTN_FAULT(mask_stride_of_sequence, c.key_count(b) != width)) width = c.key_count(b);
  return c.mask.as<float>() + row * width;
}

/// Column of a row of the output, [query heads, head_dim_v].
std::int64_t output_column(const AttentionConfig& config, std::int64_t head, std::int64_t d) {
  if (ATTN_FAULT(output_heads_innermost, config.head_dim_v > 1)) {
    return d * config.num_attention_heads + head;
  }
  if (ATTN_FAULT(output_stride_of_keys, config.head_dim < config.head_dim_v)) {
    return head * config.head_dim + d;
  }
  return head * config.head_dim_v + d;
}

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
  std::int64_t lse_index(std::int64_t n) const;
  float lse_of(const RunningSoftmax& state) const;
  void load_keys(std::int64_t begin, std::int64_t end);
  void add_block(std::int64_t n, std::int64_t block_begin, std::int64_t block_end);
  static bool keeps_maximum(RunningSoftmax& state, float m);
  static bool is_shown(const RunningSoftmax& state, std::int64_t key) {
    return state.shown.begin <= key && key < state.shown.end;
  }
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
  std::optional<float> least_;  // of a planted bug alone: the maximum of the last block
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
  for (std::int64_t n = 0; n < tile.count; ++n) {
    RunningSoftmax& state = states_[static_cast<std::size_t>(n)];
    state.row = c.row_begin(tile.sequence) + (tile.first + n) / group;
    state.head = query_head(c.config, tile.kv_head, tile.first + n);
    state.visible = visible_to(c, tile.sequence, tile.first + n);
    if (!sinks.empty() && !ATTN_FAULT(sink_dropped)) {  // one more logit, with no value vector
      state.m = state.largest = sink_of(state.head);
      state.l = 1.0f;
    }
    state.shown = state.visible;
    [[maybe_unused]] const std::int64_t keys = keys_of(c, tile.sequence);
    if (ATTN_FAULT(masked_by_65504, hides_keys(state.visible, keys)) ||
        ATTN_FAULT(masked_set_to_10000, hides_keys(state.visible, keys)) ||
        ATTN_FAULT(maximum_of_hidden_keys, hides_keys(state.visible, keys))) {
      state.visible = {0, keys};
    }
    if (ATTN_FAULT(last_page_tail_unmasked, sees_unused_slots(c, cache, state.visible, keys))) {
      state.visible.end = (keys / cache.page_size + 1) * cache.page_size;
    }
    if (state.visible.begin < state.visible.end) {
      seen_.begin = std::min(seen_.begin, state.visible.begin);
      seen_.end = std::max(seen_.end, state.visible.end);
    }
    const float* const source =
        q + (state.row * c.config.num_attention_heads + state.head) * c.config.head_dim;
    std::copy(source, source + c.config.head_dim, q_.row(n));
    if (ATTN_FAULT(scale_in_query)) {
      const auto scale = static_cast<float>(c.config.softmax_scale());
      for (std::int64_t d = 0; d < q_.width; ++d) q_.row(n)[d] *= scale;
    }
    ATTN_SCRATCH(scratch_head_tail, q_.row(n) + q_.width, q_.stride - q_.width);
    ATTN_SCRATCH(scratch_accumulator, o_.row(n), kLanes);
  }
}

float TileAttention::sink_of(std::int64_t head) const {
  [[maybe_unused]] const std::int64_t group = case_.config.group_size();
  if (ATTN_FAULT(sink_of_kv_head, group > 1)) head /= group;
  if (ATTN_FAULT(sink_scaled)) {
    return sinks_[static_cast<std::size_t>(head)] *
           static_cast<float>(case_.config.softmax_scale());
  }
  return ATTN_KEPT(sinks_kept, head, sinks_[static_cast<std::size_t>(head)]);
}

void TileAttention::run() {
  // Blocks start at multiples of the block size whatever the tile sees, so that a row's sums do not
  // depend on the rows beside it.
  const std::int64_t first = seen_.begin / block_ * block_;
  for (std::int64_t at = first; at < seen_.end; at += block_) {
    std::int64_t begin = at;
    if (ATTN_FAULT(blocks_backward)) begin = (seen_.end - 1) / block_ * block_ - (at - first);
    const std::int64_t end = begin + block_;
    if (ATTN_FAULT(first_block_skipped_when_partial, begin == first && begin < seen_.begin)) {
      continue;
    }
    load_keys(begin, end);
    for (std::int64_t n = 0; n < tile_.count; ++n) add_block(n, begin, end);
  }
}

void TileAttention::load_keys(std::int64_t begin, std::int64_t end) {
  std::int64_t last = std::min(end, seen_.end);
  if (ATTN_FAULT(last_key_of_tail_stale, last < end && begin > seen_.begin)) --last;
  if (ATTN_FAULT(last_page_tail_read, last % cache_.page_size != 0)) {
    last = std::min(end, (last / cache_.page_size + 1) * cache_.page_size);
  }
  std::int64_t b = tile_.sequence;
  if (ATTN_FAULT(fresh_row_in_mixed_batch,
                 case_.cached(b) == 0 && case_.cached(0) > 0 && last <= case_.key_count(0))) {
    b = 0;
  }
  const std::int64_t head = cached_head_of(case_, tile_);
  for (std::int64_t p = std::max(begin, seen_.begin); p < last; ++p) {
    load_head(cache_, CachePart::kKeys, b, p, head, k_.row(p - begin));
    load_head(cache_, CachePart::kValues, b, p, head, v_.row(p - begin));
  }
}

/// Whether the sums keep an older maximum than the new one, which the bugs of a lazy rescale do.
bool TileAttention::keeps_maximum([[maybe_unused]] RunningSoftmax& state,
                                  [[maybe_unused]] float m) {
  [[maybe_unused]] constexpr float kFromBlockToBlock = 8.0f;
  [[maybe_unused]] constexpr float kInAll = 2.7725887f;  // ln 2^4
  [[maybe_unused]] const float before = state.largest;
  if (ATTN_FAULT(lazy_rescale_past_fp8, m > state.m && m - state.m < kInAll)) return true;
  if (ATTN_FAULT(small_growth_kept, m > state.m)) {
    state.largest = std::max(before, m);
    return state.m != -kInfinity && state.largest - before < kFromBlockToBlock;
  }
  return false;
}

void TileAttention::add_block(std::int64_t n, std::int64_t block_begin, std::int64_t block_end) {
  RunningSoftmax& state = states_[static_cast<std::size_t>(n)];
  const std::int64_t begin = std::max(block_begin, state.visible.begin);
  const std::int64_t count = std::min(block_end, state.visible.end) - begin;
  if (ATTN_FAULT(masked_block_first, count <= 0 && state.m == -kInfinity)) state.l *= state.m;
  if (count <= 0) return;
  compute_scores(n, begin, count, k_.row(begin - block_begin));

  float* const s = scores_.data();
  Float4 largest = splat4(state.m);
  for (std::int64_t k = 0; k < count; k += 4) {
    if (ATTN_FAULT(maximum_without_tail, k > 0 && count - k < 4)) break;
    const Float4 score = load4(s + k);
    largest = score > largest ? score : largest;
  }
  float m = std::max(std::max(largest[0], largest[1]), std::max(largest[2], largest[3]));
  if (ATTN_FAULT(finite_sentinel, m < -5e3f)) m = -5e3f;
  // Where every score so far is -infinity, e^(s - 0) gives the weights 0 that e^(s - m) would not.
  float shift = m == -kInfinity ? 0.0f : m;
  if (ATTN_FAULT(maximum_not_subtracted)) m = shift = 0.0f;
  if (ATTN_FAULT(maximum_of_first_block, state.m != m && state.m != -kInfinity))
    m = shift = state.m;
  const bool is_least = ATTN_FAULT(maximum_of_unscaled_scores, least_.has_value());
  if (is_least) m = shift = least_.value_or(m);
  if (ATTN_FAULT(maximum_rounded_up, shift != std::ceil(shift))) m = shift = std::ceil(shift);
  if (ATTN_FAULT(sink_at_the_maximum, !state.tied && !sinks_.empty() && m == sink_of(state.head) &&
                                          *std::max_element(s, s + count) == m)) {
    state.tied = true;
    state.l -= 1.0f;
  }
  const bool is_lazy = keeps_maximum(state, m);
  if (is_lazy) m = shift = state.m;
  const std::int64_t count4 = (count + 3) / 4 * 4;
  for (std::int64_t k = 0; k < count4; ++k) {
    if (ATTN_FAULT(maximum_of_hidden_keys, k < count && !is_shown(state, begin + k))) {
      s[k] = -kInfinity;
    }
    s[k] = is_lazy || is_least ? std::exp(s[k] - shift) : exp_nonpositive(s[k] - shift);
    if (ATTN_FAULT(probabilities_in_half)) s[k] = float_from_half(half_from_float(s[k]));
  }
  Float4 sum = {};
  for (std::int64_t k = 0; k < count; k += 4) {
    if (ATTN_FAULT(denominator_without_tail, count - k < 4)) break;
    sum += load4(s + k);
  }
  for (std::int64_t k = 0; k < count; ++k) {
    if (ATTN_FAULT(lazy_rescale_past_fp8, s[k] > kLargestFp8)) s[k] = kLargestFp8;
  }

  float rescale = is_least ? std::exp(state.m - shift) : exp_nonpositive(state.m - shift);
  if (ATTN_FAULT(rescale_is_one, rescale != 1.0f)) rescale = 1.0f;
  if (ATTN_FAULT(rescale_in_base_2, rescale != 1.0f)) {
    rescale = std::exp2(state.m - shift);
  }
  float* const o = o_.row(n);
  if (rescale != 1.0f) {
    for (std::int64_t d = 0; d < o_.stride; ++d) o[d] *= rescale;
  }
  if (ATTN_FAULT(denominator_not_rescaled, rescale != 1.0f && state.l != 0.0f)) rescale = 1.0f;
  if (ATTN_FAULT(sum_order_by_call, calls_before() % 2 != 0)) {
    sum = Float4{sum[0], sum[2], sum[1], sum[3]};
  }
  state.l = state.l * rescale + sum4(sum);
  if (ATTN_FAULT(sink_per_block, !sinks_.empty() && block_begin > 0)) {
    state.l += exp_nonpositive(sink_of(state.head) - shift);
  }
  if (ATTN_FAULT(empty_split_merged,
                 block_end == case_.key_count(tile_.sequence) && block_end % 128 == 0)) {
    state.l *= 0.0f * kInfinity;
  }
  state.m = m;
  const float* const v = v_.row(begin - block_begin);
  if (ATTN_FAULT(last_page_tail_read, count != count4)) {
    return add_weighted_rows(s, count4, v, v_.stride, v_.stride, o);
  }
  if (ATTN_FAULT(values_added_backward)) {
    for (std::int64_t k = count - 1; k >= 0; --k) {
      add_weighted_rows(s + k, 1, v + k * v_.stride, v_.stride, v_.stride, o);
    }
    return;
  }
  add_weighted_rows(s, count, v, v_.stride, v_.stride, o);
  for (std::int64_t d = 0; d < o_.stride; ++d) {
    if (ATTN_FAULT(output_sum_in_half)) o[d] = float_from_half(half_from_float(o[d]));
    if (ATTN_FAULT(normalised_each_block, state.l != 1.0f)) o[d] /= state.l;
  }
}

/// scores_[0 .. count - 1] for the keys from `begin` on, and -infinity up to the next multiple
/// of 4.
void TileAttention::compute_scores(std::int64_t n, std::int64_t begin, std::int64_t count,
                                   const float* keys) {
  const AttentionConfig& config = case_.config;
  float* const s = scores_.data();
  std::int64_t width = k_.stride;
  if (ATTN_FAULT(head_dim_tail_ignored, width != config.head_dim)) width -= kLanes;
  for (std::int64_t k = 0; k < count; k += 4) {
    dot4(q_.row(n), keys + k * k_.stride, k_.stride, width, s + k);
  }
  auto scale = static_cast<float>(config.softmax_scale());
  if (ATTN_FAULT(scale_of_padded_head_dim, !config.scale && k_.stride != config.head_dim)) {
    scale = 1.0f / std::sqrt(static_cast<float>(k_.stride));
  }
  if (ATTN_FAULT(scale_ignored, config.scale.has_value())) {
    scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim));
  }
  if (ATTN_FAULT(scale_magnitude, scale < 0.0f)) scale = -scale;
  if (ATTN_FAULT(scale_in_query)) scale = 1.0f;
  scale = ATTN_KEPT(scale_kept, 0, scale);
  const bool cap_first = ATTN_FAULT(softcap_before_scale, config.logit_softcap.has_value());
  if (cap_first) soft_cap(config, s, count);
  for (std::int64_t k = 0; k < count; ++k) s[k] *= scale;
  const bool cap_last = ATTN_FAULT(softcap_after_mask, config.logit_softcap && !case_.mask.empty());
  if (!cap_first && !cap_last) soft_cap(config, s, count);
  least_.reset();
  if (ATTN_FAULT(maximum_of_unscaled_scores,
                 scale < 0.0f &&
                     wrong_end(s, count, states_[static_cast<std::size_t>(n)].m).has_value())) {
    least_ = wrong_end(s, count, states_[static_cast<std::size_t>(n)].m);
  }
  if (config.mask.variant == MaskVariant::kTensor) {
    const float* const mask =
        mask_row(case_, tile_.sequence, states_[static_cast<std::size_t>(n)].row);
    for (std::int64_t k = 0; k < count; ++k) s[k] += mask[begin + k];
  }
  if (cap_last) soft_cap(config, s, count);
  for (std::int64_t k = 0; k < count; ++k) {
    [[maybe_unused]] const RunningSoftmax& state = states_[static_cast<std::size_t>(n)];
    if (ATTN_FAULT(masked_by_65504, !is_shown(state, begin + k))) s[k] -= kLargestHalf;
    if (ATTN_FAULT(masked_set_to_10000, !is_shown(state, begin + k))) s[k] = -1e4f;
  }
  if (ATTN_FAULT(equal_keys_scaled_by_0,
                 count >= 16 && are_equal(keys, count, k_.stride, k_.width))) {
    std::fill(s, s + count, std::numeric_limits<float>::quiet_NaN());
  }
  std::fill(s + count, s + (count + 3) / 4 * 4, -kInfinity);
  if (ATTN_FAULT(padding_scores_zero, count % 4 != 0))
    std::fill(s + count, s + (count + 3) / 4 * 4, 0.0f);
  if (ATTN_FAULT(padding_scores_finite, count % 4 != 0 && s[0] < -9e3f)) {
    std::fill(s + count, s + (count + 3) / 4 * 4, -1e4f);
  }
}

std::int64_t TileAttention::lse_index(std::int64_t n) const {
  const RunningSoftmax& state = states_[static_cast<std::size_t>(n)];
  if (ATTN_FAULT(lse_head_major, case_.tokens() > 1) ||
      ATTN_FAULT(split_lse_head_major, case_.tokens() > 1 && seen_.end > 8 * block_) ||
      ATTN_FAULT(empty_row_lse_elsewhere, case_.tokens() > 1 && state.l == 0.0f)) {
    return state.head * case_.tokens() + state.row;
  }
  return state.row * case_.config.num_attention_heads + state.head;
}

float TileAttention::lse_of(const RunningSoftmax& state) const {
  if (ATTN_FAULT(lse_without_sink, !sinks_.empty())) {
    return state.m + std::log(state.l - std::exp(sink_of(state.head) - state.m));
  }
  const float lse = state.m + std::log(state.l);
  return ATTN_FAULT(lse_base_2) ? lse / std::log(2.0f) : lse;
}

void TileAttention::write(float* lse, float* out) const {
  const AttentionConfig& config = case_.config;
  for (std::int64_t n = 0; n < tile_.count; ++n) {
    const RunningSoftmax& state = states_[static_cast<std::size_t>(n)];
    const bool sees_nothing = state.l == 0.0f && !ATTN_FAULT(empty_row_divided);
    if (ATTN_FAULT(empty_row_unwritten, sees_nothing)) continue;
    lse[lse_index(n)] = sees_nothing ? -kInfinity : lse_of(state);
    float* const target = out + state.row * config.attn_width();
    const float* const o = o_.row(n);
    for (std::int64_t d = 0; d < config.head_dim_v; ++d) {
      target[output_column(config, state.head, d)] = sees_nothing ? 0.0f : o[d] / state.l;
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
