#include <algorithm>
#include <array>
#include <vector>

#include "harness/relations/battery.h"
#include "harness/relations/transform.h"

namespace attn::harness {
namespace {

using Bitwise = Relation::Bitwise;

/// Rows of encoded weights can not be moved about without a decoder.
bool has_plain_heads(const Case& c) { return !c.config.quant && c.tokens() > 0; }

bool has_several_heads(const Case& c) {
  return has_plain_heads(c) && c.config.num_attention_heads > 1;
}

bool is_grouped(const Case& c) { return has_plain_heads(c) && c.config.group_size() > 1; }

bool of_kv_heads(Stage stage) {
  return stage == Stage::kKProj || stage == Stage::kVProj || stage == Stage::kKNorm ||
         stage == Stage::kKRope || is_cache(stage);
}

/// The mapping that follows from where each head went.
Mapping head_mapping(const Case& c, std::vector<std::int64_t> heads,
                     std::vector<std::int64_t> kv_heads) {
  return [&config = c.config, heads = std::move(heads), kv_heads = std::move(kv_heads)](
             Stage stage, std::int64_t row, std::int64_t column) {
    const std::int64_t channels = channel_count(config, stage);
    if (channels == 0) return Place{row, column};
    const auto head = static_cast<std::size_t>(column / channels);
    const std::int64_t there = (of_kv_heads(stage) ? kv_heads : heads)[head];
    return Place{row, there * channels + column % channels};
  };
}

/// Reversed, every query head stays with its key head.
RelationResult check_head_permutation(const Subject& subject) {
  const Case& c = subject.c();
  std::vector<std::int64_t> heads = count_up(c.config.num_attention_heads);
  std::vector<std::int64_t> kv_heads = count_up(c.config.num_key_value_heads);
  std::ranges::reverse(heads);
  std::ranges::reverse(kv_heads);
  return check_counterpart(subject, "head_permutation", with_heads(c, c.config, heads, kv_heads),
                           head_mapping(c, heads, kv_heads), "the heads in reverse order");
}

RelationResult check_repeated_kv(const Subject& subject) {
  const Case& c = subject.c();
  AttentionConfig config = c.config;
  const std::int64_t group = config.group_size();
  config.num_key_value_heads = config.num_attention_heads;
  config.kv_head_replication = false;
  std::vector<std::int64_t> copies, first_copy;
  for (std::int64_t head = 0; head < config.num_attention_heads; ++head) {
    copies.push_back(head / group);
    if (head % group == 0) first_copy.push_back(head);
  }
  const std::vector<std::int64_t> heads = count_up(config.num_attention_heads);
  return check_counterpart(subject, "repeated_kv", with_heads(c, config, heads, copies),
                           head_mapping(c, heads, first_copy),
                           "each key head copied for every query head");
}

/// The channels of one rotated pair; the same head of q and k.
struct Pair {
  std::int64_t a, b;
};

/// The pairs that are turned by a quarter: every second one, so that pairs are told apart.
std::vector<Pair> turned_pairs(const AttentionConfig& config) {
  const bool layer = !config.starts_at_attention();
  const std::int64_t rotary = layer ? config.rotary_dim() : config.head_dim - config.head_dim % 2;
  const bool last = layer && config.rope.rotary_side == RotarySide::kLast;
  const std::int64_t first = last ? config.head_dim - rotary : 0;
  std::vector<Pair> pairs;
  for (std::int64_t j = 0; j < rotary / 2; j += 2) {
    if (layer && config.rope.interleaved) {
      pairs.push_back({first + 2 * j, first + 2 * j + 1});
    } else {
      pairs.push_back({first + j, first + j + rotary / 2});
    }
  }
  return pairs;
}

/// (a, b) -> (-b, a) in the heads at `head`, `head` + 1, ... of width head_dim: no rounding.
void turn(Tensor& t, std::int64_t head, std::int64_t count, const AttentionConfig& config,
          const std::vector<Pair>& pairs) {
  for (std::int64_t h = head; h < head + count; ++h) {
    for (const Pair& pair : pairs) {
      const std::int64_t a = h * config.head_dim + pair.a, b = h * config.head_dim + pair.b;
      const double old_a = t.value(a);
      t.set_value(a, -t.value(b));
      t.set_value(b, old_a);
    }
  }
}

/// Turns pair 0, 2, ... of every row of the table: (cos, sin) -> (-sin, cos).
void turn_table(Tensor& table) {
  constexpr std::int64_t kEverySecondPair = 4;
  auto* const values = table.as<float>();
  for (std::int64_t p = 0; p < table.dim(0); ++p) {
    for (std::int64_t i = 0; i < table.dim(1); i += kEverySecondPair) {
      float* const pair = values + p * table.dim(1) + i;
      const float cosine = pair[0];
      pair[0] = -pair[1];
      pair[1] = cosine;
    }
  }
}

bool has_rotations(const Case& c) { return c.tokens() > 0 && c.config.head_dim > 1; }

/// A shift of all positions turns each pair of queries and keys by one angle. Shifts of a quarter
/// are exact: they turn a stored number into a stored number.
RelationResult check_turned(const Subject& subject) {
  const Case& c = subject.c();
  const std::vector<Pair> pairs = turned_pairs(c.config);
  Case other = c;
  if (c.config.starts_at_attention()) {
    turn(other.q, 0, c.tokens() * c.config.num_attention_heads, c.config, pairs);
  } else {
    turn_table(other.freqs_cis);
  }
  const std::int64_t kv_heads = c.config.num_key_value_heads;
  for_each_slot(c, [&](std::int64_t slot) {
    turn(other.cache.k, slot * kv_heads, kv_heads, c.config, pairs);
  });
  std::vector<Place> channels;  // of a head: from where, and its sign
  for (const std::int64_t i : count_up(c.config.head_dim)) channels.push_back({0, i, 1.0});
  for (const Pair& pair : pairs) {
    channels[static_cast<std::size_t>(pair.a)] = {0, pair.b, 1.0};
    channels[static_cast<std::size_t>(pair.b)] = {0, pair.a, -1.0};
  }
  const Mapping mapping = [&](Stage stage, std::int64_t row, std::int64_t column) {
    const bool turned = stage == Stage::kQRope || stage == Stage::kKRope || stage == Stage::kCacheK;
    if (!turned) return Place{row, column};
    const Place& channel = channels[static_cast<std::size_t>(column % c.config.head_dim)];
    const std::int64_t head = column - column % c.config.head_dim;
    return Place{row, head + channel.column, channel.sign};
  };
  return check_counterpart(subject, "rope_shift", other, mapping,
                           "queries and keys turned by the same quarters");
}

/// The layer no_opaque has no table among its arguments: it makes its own, and nothing turns that.
/// It is the general layer at fixed settings, which is asked in its place.
RelationResult check_rope_shift(const Subject& subject) {
  if (subject.c().config.variant != Variant::kNoOpaque) return check_turned(subject);
  Case general = subject.c();
  general.config.variant = Variant::kAttentionWithRope;
  return check_turned(Subject(general, subject.backend(), subject.options()));
}

constexpr std::array kRelations{
    Relation{"head_permutation", "the heads in reverse order", Bitwise::kNever, has_several_heads,
             check_head_permutation},
    Relation{"repeated_kv", "GQA equals MHA with repeated keys and values", Bitwise::kNever,
             is_grouped, check_repeated_kv},
    Relation{"rope_shift", "queries and keys turned by the same angles", Bitwise::kNever,
             has_rotations, check_rope_shift},
};

}  // namespace

std::span<const Relation> head_relations() { return kRelations; }

}  // namespace attn::harness
