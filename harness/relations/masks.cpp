#include <algorithm>
#include <array>
#include <utility>

#include "harness/relations/battery.h"
#include "harness/relations/transform.h"

namespace attn::harness {
namespace {

using Bitwise = Relation::Bitwise;

bool attends(const Case& c) {
  return c.config.entry_point != EntryPoint::kMaterializeKvFromHidden && c.tokens() > 0;
}

bool has_window(const Case& c) {
  const MaskVariant mask = c.config.mask.variant;
  return attends(c) && (mask == MaskVariant::kCausal || mask == MaskVariant::kSlidingWindowCausal ||
                        mask == MaskVariant::kSlidingWindowNoncausal);
}

bool has_chunk(const Case& c) {
  const MaskVariant mask = c.config.mask.variant;
  return attends(c) && (mask == MaskVariant::kCausal || mask == MaskVariant::kChunkedCausal);
}

/// The smallest window and chunk that hides nothing: one more than the largest position of a query
/// or a key.
std::int64_t whole_span(const Case& c) {
  std::int64_t span = 1;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    span = std::max({span, c.key_count(b), c.row_count(b)});
  }
  return span;
}

/// The case under `narrow` equals the case under `wide`. The subject's own answer is used where it
/// has one of the two masks.
RelationResult check_masks(const Subject& subject, std::string_view relation,
                           const MaskConfig& plain, const MaskConfig& wide,
                           const std::string& name) {
  const Case& c = subject.c();
  if (plain == c.config.mask) {
    return check_counterpart(subject, relation, with_mask(c, wide), same_place, name);
  }
  const Case base = with_mask(c, plain);
  if (std::string reason = refusal(subject, base); !reason.empty()) {
    return skipped(std::move(reason));
  }
  const Subject other(base, subject.backend(), subject.options());
  return check_counterpart(other, relation, with_mask(c, wide), same_place, name);
}

RelationResult check_wide_window(const Subject& subject) {
  const MaskConfig& own = subject.c().config.mask;
  const bool noncausal = own.variant == MaskVariant::kSlidingWindowNoncausal;
  MaskConfig plain, wide;
  plain.align = wide.align = own.align;
  plain.variant = noncausal ? MaskVariant::kNull : MaskVariant::kCausal;
  wide.variant =
      noncausal ? MaskVariant::kSlidingWindowNoncausal : MaskVariant::kSlidingWindowCausal;
  wide.window_size = whole_span(subject.c());
  return check_masks(subject, "wide_window", plain, wide,
                     "a window of " + std::to_string(*wide.window_size) +
                         (noncausal ? " against no mask" : " against causal"));
}

RelationResult check_wide_chunk(const Subject& subject) {
  MaskConfig plain, wide;
  plain.align = wide.align = subject.c().config.mask.align;
  wide.variant = MaskVariant::kChunkedCausal;
  wide.chunk_size = whole_span(subject.c());
  return check_masks(subject, "wide_chunk", plain, wide,
                     "chunks of " + std::to_string(*wide.chunk_size) + " against causal");
}

constexpr std::array kRelations{
    Relation{"wide_window", "a window that holds every key equals no window", Bitwise::kNever,
             has_window, check_wide_window},
    Relation{"wide_chunk", "chunks that hold every key equal causal", Bitwise::kNever, has_chunk,
             check_wide_chunk},
};

}  // namespace

std::span<const Relation> mask_relations() { return kRelations; }

}  // namespace attn::harness
