#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "harness/compare/bound.h"
#include "harness/relations/battery.h"
#include "harness/relations/transform.h"
#include "reference/stages/mask.h"

namespace attn::harness {
namespace {

using Bitwise = Relation::Bitwise;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

bool is_attention(const Case& c) {
  return c.config.starts_at_attention() && c.tokens() > 0 && c.total_keys() > 0;
}

/// Whole multiples of a step of which the sum of two is a number of the type too.
struct Grid {
  double step = 0.0;
  double most = 0.0;  ///< multiples of `step` up to this

  double snap(double value) const {
    return std::clamp(std::nearbyint(value / step) * step, -most, most);
  }
};

/// For values of magnitude up to `largest`. With p significant bits the multiples up to 2^p of a
/// step are numbers of the type, so those up to 2^(p-1) can be added; 2^10 of them are plenty.
Grid grid_of(ElementType type, double largest) {
  constexpr double kMostSteps = 1024.0;
  const double steps = std::min(kMostSteps, 0.5 / unit_roundoff(type));
  const double room = 0.5 * max_finite(type);
  double most = std::exp2(std::ceil(std::log2(std::max(largest, min_subnormal(type)))));
  while (most > room) most *= 0.5;
  most = std::max(most, steps * min_subnormal(type));
  return {most / steps, most};
}

/// The live part of a pool [pages, layers, page_size, heads, channels] on the grid of its type.
/// Returns the grid.
Grid snap_pool(const Case& c, Tensor& pool) {
  const std::int64_t width = pool.dim(3) * pool.dim(4);
  double largest = 0.0;
  const auto each = [&](const auto& visit) {
    for_each_slot(c, [&](std::int64_t slot) {
      for (std::int64_t i = slot * width; i < (slot + 1) * width; ++i) visit(i);
    });
  };
  each([&](std::int64_t i) { largest = std::max(largest, std::abs(pool.value(i))); });
  const Grid grid = grid_of(pool.type(), largest);
  each([&](std::int64_t i) { pool.set_value(i, grid.snap(pool.value(i))); });
  return grid;
}

/// Scale of what a pool holds for a head: one for all tokens.
double head_scale(const Tensor& scale, std::int64_t head) {
  if (scale.empty()) return 1.0;
  return scale.value(scale.shape().empty() ? 0 : head);
}

bool has_one_scale(const Case& c) {
  return c.config.kv_cache.scale_granularity != ScaleGranularity::kTokenHead;
}

// ---- One vector added to all keys.

bool has_free_logits(const Case& c) {
  return is_attention(c) && has_one_scale(c) && !c.config.logit_softcap && !c.has_sinks();
}

/// Adds to every key of head h the vector added[h]; what fits the grid.
std::vector<double> add_to_keys(Case& c, const Grid& grid) {
  const std::int64_t heads = c.config.num_key_value_heads, width = c.config.head_dim;
  std::vector<double> added(static_cast<std::size_t>(heads * width));
  constexpr int kPattern = 7;  // from -3/8 to 3/8 of the largest key
  for (std::size_t i = 0; i < added.size(); ++i) {
    const auto phase = static_cast<double>((5 * i + 3) % kPattern);
    added[i] = grid.snap((phase - 3.0) / 8.0 * grid.most);
  }
  for_each_slot(c, [&](std::int64_t slot) {
    for (std::size_t i = 0; i < added.size(); ++i) {
      const std::int64_t at = slot * heads * width + static_cast<std::int64_t>(i);
      c.cache.k.set_value(at, c.cache.k.value(at) + added[i]);
    }
  });
  return added;
}

/// Every logit of a row and head moves by scale q . c, so the probabilities stay and lse moves.
void take_back_shift(const Case& c, const std::vector<double>& added, Measured& lse) {
  const AttentionConfig& config = c.config;
  const std::int64_t heads = config.num_attention_heads, width = config.head_dim;
  for (std::int64_t i = 0; i < c.tokens() * heads && !lse.empty(); ++i) {
    const std::int64_t kv_head = i % heads / config.group_size();
    double sum = 0.0, magnitude = 0.0;
    for (std::int64_t j = 0; j < width; ++j) {
      const double term =
          c.q.value(i * width + j) * added[static_cast<std::size_t>(kv_head * width + j)];
      sum += term;
      magnitude += std::abs(term);
    }
    const double scale = config.softmax_scale() * head_scale(c.cache.k_scale, kv_head);
    lse.values[static_cast<std::size_t>(i)] -= scale * sum;
    lse.allowed[static_cast<std::size_t>(i)] += kReferenceRoundoff * std::abs(scale) * magnitude;
  }
}

RelationResult check_key_shift(const Subject& subject) {
  Case base = subject.c();
  const Grid grid = snap_pool(base, base.cache.k);
  Case moved = base;
  const std::vector<double> added = add_to_keys(moved, grid);
  const Subject other(base, subject.backend(), subject.options());
  Measurement shifted = measure(subject, moved, answer(subject, moved));
  shifted[Stage::kCacheK] = {};  // it holds the other keys
  take_back_shift(base, added, shifted[Stage::kLse]);
  return compare_answers(other, "key_shift", own_measurement(other), shifted,
                         "one vector added to all keys (rounded to a grid)");
}

// ---- Linear in V.

/// out(A) + out(B) = out(A + B).
RelationResult check_linear(const Subject& subject) {
  Case a = subject.c();
  const Grid grid = snap_pool(a, a.cache.v);
  Case b = a, sum = a;
  const std::int64_t width = a.config.num_key_value_heads * a.config.head_dim_v;
  std::int64_t token = 0;
  for_each_slot(a, [&](std::int64_t slot) {
    for (std::int64_t i = 0; i < width; ++i) {
      const std::int64_t at = slot * width + i;
      const double part = static_cast<double>((token * 7 + i * 3) % 17) / 8.0 - 1.0;
      b.cache.v.set_value(at, grid.snap(part * grid.most));
      sum.cache.v.set_value(at, a.cache.v.value(at) + b.cache.v.value(at));
    }
    ++token;
  });
  Measurement parts = measure(subject, a, answer(subject, a));
  const Measurement second = measure(subject, b, answer(subject, b));
  Measurement whole = measure(subject, sum, answer(subject, sum));
  Measured& out = parts[Stage::kAttnOut];
  const Measured& more = second[Stage::kAttnOut];
  for (std::size_t i = 0; i < out.values.size(); ++i) {
    const double magnitude = std::abs(out.values[i]) + std::abs(more.values[i]);
    out.values[i] += more.values[i];
    out.allowed[i] += more.allowed[i] + kReferenceRoundoff * magnitude;
  }
  whole[Stage::kCacheV] = {};
  return compare_answers(subject, "linear_in_v", whole, parts,
                         "out of V + W against out of V plus out of W (rounded to a grid)");
}

// ---- Equal values.

/// With all values 1 the output is the sum of the probabilities: 1, less what the sink takes.
RelationResult check_equal_values(const Subject& subject) {
  Case ones = subject.c();
  const AttentionConfig& config = ones.config;
  const std::int64_t width = config.num_key_value_heads * config.head_dim_v;
  for_each_slot(ones, [&](std::int64_t slot) {
    for (std::int64_t i = slot * width; i < (slot + 1) * width; ++i) ones.cache.v.set_value(i, 1.0);
  });
  const Measurement got = measure(subject, ones, answer(subject, ones));
  const Measured &lse = got[Stage::kLse], &out = got[Stage::kAttnOut];
  if (lse.empty() || out.empty()) return skipped("the backend has not both lse and attn_out");
  Measurement want;
  want[Stage::kAttnOut].leave_out(out.values.size());
  const std::int64_t channels = config.head_dim_v;
  for (std::size_t i = 0; i < out.values.size(); ++i) {
    const std::size_t row_head = i / static_cast<std::size_t>(channels);
    const auto head = static_cast<std::int64_t>(row_head) % config.num_attention_heads;
    const double value = head_scale(ones.cache.v_scale, head / config.group_size());
    double share = lse.values[row_head] == -kInfinity ? 0.0 : 1.0, error = 0.0;
    if (ones.has_sinks() && share > 0.0) {
      const double sink = std::exp(ones.weights.at("sinks").value(head) - lse.values[row_head]);
      share -= sink;
      error = sink * std::expm1(lse.allowed[row_head]) + kReferenceRoundoff;
    }
    want[Stage::kAttnOut].values[i] = share * value;
    want[Stage::kAttnOut].allowed[i] = error * std::abs(value);
  }
  return compare_answers(subject, "equal_values", want, got, "all values 1");
}

bool has_equal_scales(const Case& c) { return is_attention(c) && has_one_scale(c); }

// ---- Scales of the cache.

bool has_scaled_cache(const Case& c) {
  return is_attention(c) && c.config.kv_cache.scale_granularity != ScaleGranularity::kNone;
}

/// Twice the scales of keys under half the softmax scale are the same logits; twice the scales of
/// values are twice the output.
RelationResult check_cache_scale(const Subject& subject) {
  Case other = subject.c();
  other.config.scale = 0.5 * subject.c().config.softmax_scale();
  for (Tensor* const scale : {&other.cache.k_scale, &other.cache.v_scale}) {
    for (std::int64_t i = 0; i < scale->size(); ++i) scale->set_value(i, 2.0 * scale->value(i));
  }
  return check_counterpart(
      subject, "cache_scale", other,
      [](Stage stage, std::int64_t row, std::int64_t column) {
        return Place{row, column, stage == Stage::kLse ? 1.0 : 0.5};
      },
      "scales of keys and values times 2, the softmax scale by 2");
}

// ---- The soft-cap.

bool has_softcap(const Case& c) { return is_attention(c) && c.config.logit_softcap.has_value(); }

/// Of one key alone lse is the logit, which the cap takes to cap tanh(logit / cap): closer
/// together.
RelationResult check_capped_logit(const Subject& subject) {
  const Case& c = subject.c();
  MaskConfig none;
  none.variant = MaskVariant::kNull;
  std::vector<Range> first_key;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    first_key.push_back({0, std::min<std::int64_t>(1, c.key_count(b))});
  }
  Case capped = with_keys(with_mask(c, none), first_key);
  capped.weights.erase("sinks");
  Case free = capped;
  free.config.logit_softcap.reset();
  for (const Case* const each : {&capped, &free}) {
    if (std::string reason = refusal(subject, *each); !reason.empty()) {
      return skipped(std::move(reason));
    }
  }
  const double cap = *c.config.logit_softcap;
  const Subject other(capped, subject.backend(), subject.options());
  const Measurement logits = measure(subject, free, answer(subject, free));
  Measurement want;
  want[Stage::kLse] = logits[Stage::kLse];
  for (std::size_t i = 0; i < want[Stage::kLse].values.size(); ++i) {
    double& value = want[Stage::kLse].values[i];
    if (value == -kInfinity) continue;  // no key at all
    value = cap * std::tanh(value / cap);
    want[Stage::kLse].allowed[i] += kReferenceRoundoff * cap;
  }
  return compare_answers(other, "capped_logit", own_measurement(other), want,
                         "the logit of the first key alone, capped afterwards");
}

// ---- Split and merge.

/// `c` with its mask as a tensor: what is not seen gets minus infinity.
Case with_tensor_mask(const Case& c) {
  constexpr double kForeign = 1e4;  // past a row's length, which nobody may read
  Case result = c;
  result.config.mask = {};
  result.config.mask.variant = MaskVariant::kTensor;
  std::int64_t longest = 0;
  for (std::int64_t b = 0; b < c.batch(); ++b) longest = std::max(longest, c.key_count(b));
  result.mask = Tensor(ElementType::kFloat32, {c.tokens(), longest});
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t row = c.row_begin(b); row < c.row_begin(b) + c.row_count(b); ++row) {
      const reference::RowMask mask = reference::row_mask(c, b, row);
      for (std::int64_t key = 0; key < longest; ++key) {
        const bool own = key < c.key_count(b);
        const double added = !own ? kForeign : mask.sees(key) ? 0.0 : -kInfinity;
        result.mask.set_value(row * longest + key, added);
      }
    }
  }
  return result;
}

/// The two halves of a case's keys.
struct Halves {
  Case first, second;
};

Halves cut(const Case& first, const Case& second, const std::vector<std::int64_t>& at) {
  std::vector<Range> before, after;
  for (std::int64_t b = 0; b < first.batch(); ++b) {
    const std::int64_t n = at[static_cast<std::size_t>(b)];
    before.push_back({0, n});
    after.push_back({n, first.key_count(b) - n});
  }
  Halves halves{with_keys(first, before), with_keys(second, after)};
  halves.second.weights.erase("sinks");  // a sink counts once
  return halves;
}

/// Where every row sees every key of the first half, that half needs no mask, and positions in the
/// second one count from its first key. Elsewhere both halves have the mask as a tensor.
Halves halves_of(const Case& c) {
  const MaskConfig& mask = c.config.mask;
  const bool causal = mask.variant == MaskVariant::kCausal && mask.align == MaskAlign::kBottomRight;
  std::vector<std::int64_t> middle, seen_by_all;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    const std::int64_t keys = c.key_count(b);
    middle.push_back(keys / 2);
    const std::int64_t seen = std::max<std::int64_t>(0, keys - c.row_count(b) + 1);
    seen_by_all.push_back(std::min({keys, keys / 2 + 1, seen}));
  }
  if (causal && *std::ranges::max_element(seen_by_all) > 0) {
    MaskConfig none;
    none.variant = MaskVariant::kNull;
    return cut(with_mask(c, none), c, seen_by_all);
  }
  const bool as_it_is = mask.variant == MaskVariant::kNull || mask.variant == MaskVariant::kTensor;
  const Case masked = as_it_is ? c : with_tensor_mask(c);
  return cut(masked, masked, middle);
}

/// One row and head of two partial results.
struct Partial {
  double lse, lse_allowed;
};

/// Weights of the two parts, and how far they may lie from the right ones.
struct Weights {
  double first, second, allowed;
};

/// The first is a logistic function of the difference of the two lse, whose slope w (1 - w) grows
/// by at most e^t over a distance t. Each is computed by itself: 1 - w would lose a small one.
Weights merge_weights(const Partial& a, const Partial& b) {
  if (a.lse == -kInfinity) return {0.0, 1.0, 0.0};
  if (b.lse == -kInfinity) return {1.0, 0.0, 0.0};
  const double first = 1.0 / (1.0 + std::exp(b.lse - a.lse));
  const double second = 1.0 / (1.0 + std::exp(a.lse - b.lse));
  const double allowed = first * second * std::expm1(a.lse_allowed + b.lse_allowed);
  return {first, second, std::min(1.0, allowed)};
}

/// ln(e^a + e^b) moves by no more than the larger move of a and b.
Partial merged_lse(const Partial& a, const Partial& b) {
  if (a.lse == -kInfinity) return b;
  if (b.lse == -kInfinity) return a;
  const double most = std::max(a.lse, b.lse);
  const double lse = most + std::log1p(std::exp(-std::abs(a.lse - b.lse)));
  return {lse, std::max(a.lse_allowed, b.lse_allowed) + kReferenceRoundoff * (1.0 + std::abs(lse))};
}

Measurement merge(const Measurement& a, const Measurement& b, std::int64_t channels) {
  Measurement whole;
  Measured &lse = whole[Stage::kLse], &out = whole[Stage::kAttnOut];
  const Measured &a_out = a[Stage::kAttnOut], &b_out = b[Stage::kAttnOut];
  lse.leave_out(a[Stage::kLse].values.size());
  out.leave_out(a_out.values.size());
  for (std::size_t i = 0; i < lse.values.size(); ++i) {
    const Partial first{a[Stage::kLse].values[i], a[Stage::kLse].allowed[i]};
    const Partial second{b[Stage::kLse].values[i], b[Stage::kLse].allowed[i]};
    const Partial sum = merged_lse(first, second);
    const Weights weight = merge_weights(first, second);
    lse.values[i] = sum.lse;
    lse.allowed[i] = sum.lse_allowed;
    const double w = weight.first, v = weight.second;
    for (std::size_t j = i * static_cast<std::size_t>(channels);
         j < (i + 1) * static_cast<std::size_t>(channels); ++j) {
      // A part without weight may hold anything.
      const double x = w > 0.0 ? a_out.values[j] : 0.0, dx = w > 0.0 ? a_out.allowed[j] : 0.0;
      const double y = v > 0.0 ? b_out.values[j] : 0.0, dy = v > 0.0 ? b_out.allowed[j] : 0.0;
      out.values[j] = w * x + v * y;
      out.allowed[j] = w * dx + v * dy + weight.allowed * (std::abs(x - y) + dx + dy) +
                       kReferenceRoundoff * (w * std::abs(x) + v * std::abs(y));
    }
  }
  return whole;
}

RelationResult check_split_and_merge(const Subject& subject) {
  const Halves halves = halves_of(subject.c());
  for (const Case* half : {&halves.first, &halves.second}) {
    if (std::string reason = refusal(subject, *half); !reason.empty()) {
      return skipped(std::move(reason));
    }
  }
  const Measurement first = measure(subject, halves.first, answer(subject, halves.first));
  const Measurement second = measure(subject, halves.second, answer(subject, halves.second));
  for (const Measurement* m : {&first, &second}) {
    if ((*m)[Stage::kLse].empty() || (*m)[Stage::kAttnOut].empty()) {
      return skipped("the backend has not both lse and attn_out");
    }
  }
  return compare_answers(subject, "split_and_merge", own_measurement(subject),
                         merge(first, second, subject.c().config.head_dim_v),
                         "two halves of the keys, merged by their lse");
}

constexpr std::array kRelations{
    Relation{"split_and_merge", "attention over two key ranges, merged by lse", Bitwise::kNever,
             is_attention, check_split_and_merge},
    Relation{"key_shift", "one vector added to all keys changes no probability", Bitwise::kNever,
             has_free_logits, check_key_shift},
    Relation{"linear_in_v", "the output of a sum of values is the sum of the outputs",
             Bitwise::kNever, is_attention, check_linear},
    Relation{"cache_scale", "scales of the cache against the softmax scale and the output",
             Bitwise::kNever, has_scaled_cache, check_cache_scale},
    Relation{"capped_logit", "the logit of one key, capped afterwards", Bitwise::kNever,
             has_softcap, check_capped_logit},
    Relation{"equal_values", "equal values come back, less what the sink takes", Bitwise::kNever,
             has_equal_scales, check_equal_values},
};

}  // namespace

std::span<const Relation> formula_relations() { return kRelations; }

}  // namespace attn::harness
