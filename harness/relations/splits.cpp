#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "harness/compare/compare.h"
#include "harness/relations/battery.h"
#include "harness/relations/transform.h"

namespace attn::harness {
namespace {

using Bitwise = Relation::Bitwise;

// ---- The rows of a call in several calls.

/// Whether a row sees no key that a later row brings.
bool hides_later_keys(const MaskConfig& mask) {
  return mask.variant == MaskVariant::kCausal || mask.variant == MaskVariant::kChunkedCausal ||
         mask.variant == MaskVariant::kSlidingWindowCausal;
}

bool has_several_rows(const Case& c) {
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    if (c.row_count(b) > 1) return true;
  }
  return false;
}

/// Whether the rows of one call may come in several: nothing that they see comes later. In an
/// attention case all keys are there, but positions count from the last one.
bool can_be_cut(const Case& c) {
  if (!has_several_rows(c)) return false;
  if (c.config.entry_point == EntryPoint::kMaterializeKvFromHidden) return true;
  const MaskConfig& mask = c.config.mask;
  return hides_later_keys(mask) && mask.align == MaskAlign::kBottomRight;
}

/// The rows first .. first + count - 1 of each sequence.
using Step = std::vector<Range>;

/// The call of one step. Rows before it are in the cache already.
Case call_of(const Case& c, const Step& step) {
  std::vector<Part> parts;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    const Range& rows = step[static_cast<std::size_t>(b)];
    const std::int64_t after = c.row_count(b) - rows.first - rows.count;
    const std::int64_t length = c.config.starts_at_attention()
                                    ? std::max<std::int64_t>(0, c.key_count(b) - after)
                                    : c.cached(b) + rows.first;
    parts.push_back({b, rows.first, rows.count, length});
  }
  return take(c, parts);
}

/// Puts the rows of one call to their places in the whole.
void put_rows(const Case& c, const Step& step, const Trace& part, Measurement& whole) {
  std::int64_t from = 0;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    const Range& rows = step[static_cast<std::size_t>(b)];
    for (std::int64_t i = 0; i < rows.count; ++i, ++from) {
      const std::int64_t to = c.row_begin(b) + rows.first + i;
      for (const Stage stage : all_stages()) {
        if (whole[stage].empty() || is_cache(stage)) continue;
        const auto width = static_cast<std::size_t>(row_width(c.config, stage));
        part[stage].values(
            from * static_cast<std::int64_t>(width),
            std::span(whole[stage].values).subspan(static_cast<std::size_t>(to) * width, width));
      }
    }
  }
}

/// Whether the answer lacks a stage of the whole call's that it should have.
bool lacks_stage(const Measurement& whole, const Trace& part) {
  return std::ranges::any_of(
      all_stages(), [&](Stage stage) { return !whole[stage].empty() && !part.has(stage); });
}

/// The declared arithmetic of rows that come out of the pool: an earlier step's keys and values are
/// rounded to the pool's type on the way. None where the declared cache has that rounding already,
/// and for codes, which are part of the function: every way to compute it reads them.
std::optional<Arithmetic> arithmetic_through_pool(const Subject& subject) {
  const Case& c = subject.c();
  Arithmetic arithmetic = subject.backend().arithmetic(c.config);
  const ElementType pool = c.cache.k.type();
  const bool codes = element_size(pool) == 1;
  if (codes || c.config.starts_at_attention() ||
      unit_roundoff(arithmetic.cache) >= unit_roundoff(pool)) {
    return std::nullopt;
  }
  arithmetic.cache = pool;
  return arithmetic;
}

/// Whether a key or value may lie beyond the range of the pool's type, or is not shown.
bool may_leave_range(const Measurement& whole, ElementType pool) {
  return std::ranges::any_of(std::array{Stage::kCacheK, Stage::kCacheV}, [&](Stage stage) {
    const Measured& cached = whole[stage];
    if (cached.empty()) return true;
    for (std::size_t i = 0; i < cached.values.size(); ++i) {
      if (std::abs(cached.values[i]) + cached.allowed[i] > max_finite(pool)) return true;
    }
    return false;
  });
}

/// Gives the results of the steps the allowances of the whole call in `arithmetic`.
void allow_pool_rounding(const Subject& subject, const Arithmetic& arithmetic, Measurement& whole) {
  StageAllowances allowed =
      allowances(subject.c(), own_answer(subject), arithmetic, subject.options().threads);
  for (const Stage stage : all_stages()) {
    if (whole[stage].empty()) continue;
    whole[stage].allowed = std::move(allowed[static_cast<std::size_t>(stage)]);
    whole[stage].allowed.resize(whole[stage].values.size(), 0.0);
  }
}

/// Every step is one more way to compute the whole call, in the arithmetic that the backend
/// declares: its cache holds what the same roundings made of the same inputs. So its results lie
/// within the bounds of the whole call, and both sides take those. A backend that attends to new
/// keys in a wider type than its pool has rounds them once more between two steps: that side then
/// has the bounds of a cache of the pool's type (docs/numerics.md, "Relations").
RelationResult check_steps(const Subject& subject, std::string_view relation,
                           const std::vector<Step>& steps, const std::string& name) {
  const Case& c = subject.c();
  Measurement whole = own_measurement(subject);
  if (const std::optional<Arithmetic> arithmetic = arithmetic_through_pool(subject)) {
    if (may_leave_range(whole, c.cache.k.type())) {
      return skipped("a key or value may lie beyond the range of the cache's type");
    }
    allow_pool_rounding(subject, *arithmetic, whole);
  }
  KvCache cache = c.cache;
  for (const Step& step : steps) {
    Case call = call_of(c, step);
    call.cache.k = cache.k;
    call.cache.v = cache.v;
    call.cache.k_scale = cache.k_scale;
    call.cache.v_scale = cache.v_scale;
    if (std::string reason = refusal(subject, call); !reason.empty()) {
      return skipped(std::move(reason));
    }
    Trace part = answer(subject, call);
    if (lacks_stage(whole, part)) return skipped("the backend offers other stages then");
    put_rows(c, step, part, whole);
    for (const Stage stage : {Stage::kCacheK, Stage::kCacheV}) {
      if (&step == &steps.back() && !whole[stage].empty())
        whole[stage].values = part[stage].values();
    }
    if (c.config.starts_at_attention()) continue;
    if (!part.cache) return skipped("the backend does not return its cache");
    cache = std::move(*part.cache);
  }
  return compare_answers(subject, relation, own_measurement(subject), whole, name);
}

/// `singles` tokens of each sequence one at a time, after all that come before them.
std::vector<Step> cut_steps(const Case& c, std::int64_t singles) {
  std::vector<Step> steps(static_cast<std::size_t>(singles) + 1);
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    const std::int64_t last = std::min(singles, c.row_count(b));
    std::int64_t first = 0;
    for (std::int64_t s = 0; s <= singles; ++s) {
      const std::int64_t end = c.row_count(b) - std::min(singles - s, last);
      steps[static_cast<std::size_t>(s)].push_back({first, end - first});
      first = end;
    }
  }
  return steps;
}

RelationResult check_chunked_prefill(const Subject& subject) {
  const Case& c = subject.c();
  std::vector<Step> steps(2);
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    const std::int64_t half = c.row_count(b) / 2;
    steps[0].push_back({0, half});
    steps[1].push_back({half, c.row_count(b) - half});
  }
  return check_steps(subject, "chunked_prefill", steps, "the rows in two calls");
}

RelationResult check_decode(const Subject& subject) {
  constexpr std::int64_t kMostSingles = 6;  // a call each
  std::int64_t longest = 0;
  for (std::int64_t b = 0; b < subject.c().batch(); ++b) {
    longest = std::max(longest, subject.c().row_count(b));
  }
  const std::int64_t singles = std::min(kMostSingles, longest - 1);
  return check_steps(subject, "prefill_is_decode", cut_steps(subject.c(), singles),
                     "the last " + std::to_string(singles) + " rows one at a time");
}

// ---- The devices of a layer as one.

bool has_tensor_parallel(const Case& c) {
  return c.config.variant == Variant::kTensorParallel && c.config.num_devices > 1 && c.tokens() > 0;
}

bool has_data_parallel(const Case& c) {
  return c.config.variant == Variant::kDataParallel && c.config.num_devices > 1 && c.tokens() > 0;
}

/// Each device makes codes of its own slice of the output projection's input, whose blocks start at
/// the slice: another function, where activations are quantised.
bool output_depends_on_devices(const AttentionConfig& config) {
  return config.quant && config.quant->activation != ActivationQuant::kNone &&
         config.quant->activation != ActivationQuant::kStatic;
}

RelationResult check_one_device(const Subject& subject) {
  Case other = subject.c();
  other.config.num_devices = 1;
  other.config.kv_head_replication = false;
  const bool no_out = output_depends_on_devices(other.config);
  return check_counterpart(
      subject, "tensor_parallel", other,
      [no_out](Stage stage, std::int64_t row, std::int64_t column) {
        return Place{no_out && stage == Stage::kOut ? -1 : row, column};
      },
      "one device");
}

/// Each device alone with its sequences.
RelationResult check_data_parallel(const Subject& subject) {
  const Case& c = subject.c();
  RelationResult worst;
  for (std::int64_t device = 0; device < c.config.num_devices; ++device) {
    const Range mine = shard_range(c.batch(), device, c.config.num_devices);
    std::vector<std::int64_t> order;
    std::vector<Part> parts;
    for (std::int64_t b = mine.first; b < mine.first + mine.count; ++b) {
      order.push_back(b);
      parts.push_back(whole_sequence(c, b));
    }
    Case other = take(c, parts);
    other.config.num_devices = 1;
    if (other.tokens() == 0) continue;
    RelationResult result =
        check_counterpart(subject, "data_parallel", other, sequence_mapping(c, order),
                          "the sequences of device " + std::to_string(device) + " alone");
    if (result.broken || !result.skipped.empty()) return result;
    worst.worst_ratio = std::max(worst.worst_ratio, result.worst_ratio);
  }
  return worst;
}

constexpr std::array kRelations{
    Relation{"chunked_prefill", "the rows of a call in two calls", Bitwise::kNever, can_be_cut,
             check_chunked_prefill},
    Relation{"prefill_is_decode", "the last rows of a call one at a time", Bitwise::kNever,
             can_be_cut, check_decode},
    Relation{"tensor_parallel", "several devices equal one", Bitwise::kNever, has_tensor_parallel,
             check_one_device},
    Relation{"data_parallel", "each device alone equals the whole batch", Bitwise::kNever,
             has_data_parallel, check_data_parallel},
};

}  // namespace

std::span<const Relation> split_relations() { return kRelations; }

}  // namespace attn::harness
