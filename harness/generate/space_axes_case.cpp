#include <algorithm>
#include <array>
#include <charconv>

#include "harness/generate/profiles.h"
#include "harness/generate/space_axes.h"

namespace attn::harness {
namespace {

// ---- pages ----

AxisRule page_size_axis() {
  return integer_axis(
      "page_size", false, {16, 1, 7, 64, 128, 256},
      [](auto& s) -> auto& { return s.config.kv_cache.page_size; });
}

AxisRule page_order_axis() {
  return field_axis<PageOrder>(
      "page_order", false,
      {{"shuffled", PageOrder::kShuffled},
       {"identity", PageOrder::kIdentity},
       {"top", PageOrder::kTop}},
      [](auto& s) -> auto& { return s.pages; });
}

AxisRule layer_axis() {
  constexpr std::array<std::pair<std::int64_t, std::int64_t>, 4> kLayers = {
      {{0, 1}, {0, 3}, {1, 3}, {2, 3}}};
  AxisRule rule{{"layer", {}, false}, nullptr, nullptr};
  for (const auto& [layer, layers] : kLayers) {
    rule.axis.values.push_back(std::to_string(layer) + " of " + std::to_string(layers));
  }
  rule.write = [kLayers](CaseSpec& spec, int value, Draw&) {
    std::tie(spec.layer, spec.layers) = kLayers.at(static_cast<std::size_t>(value));
  };
  rule.read = [kLayers](const CaseSpec& spec) {
    const auto* const found = std::ranges::find(kLayers, std::pair{spec.layer, spec.layers});
    return found == kLayers.end() ? -1 : static_cast<int>(found - kLayers.begin());
  };
  return rule;
}

// ---- lengths ----

const std::vector<std::string> kLengthNames = {"short", "1",   "page-1", "page", "page+1",
                                               "31",    "32",  "33",     "63",   "64",
                                               "65",    "127", "128",    "129",  "long"};

std::int64_t draw_length(std::string_view name, const AttentionConfig& config, Draw& draw) {
  const std::int64_t page = config.kv_cache.page_size;
  if (const auto fixed = fixed_length(name, page)) return *fixed;
  // Long rows are short enough for a case of a few milliseconds.
  constexpr std::int64_t kMostProducts = 1'500'000;
  const std::int64_t most_long =
      std::clamp<std::int64_t>(kMostProducts / config.q_width(), kLongFrom + 10, 600);
  while (true) {
    std::int64_t length = draw.between(kShortFrom, 60);
    if (name == "long") {
      length = draw.between(kLongFrom, most_long);
      if (draw.one_in(2)) length = length / 64 * 64 + draw.between(-1, 1);
    }
    if (length_class(length, page) == name) return length;
  }
}

AxisRule kv_length_axis() {
  AxisRule rule{{"kv_length", kLengthNames, false}, nullptr, nullptr};
  rule.write = [](CaseSpec& spec, int value, Draw& draw) {
    const std::string& name = kLengthNames.at(static_cast<std::size_t>(value));
    const std::int64_t length = draw_length(name, spec.config, draw);
    set_lengths(spec, std::array{Lengths{1, length}});
  };
  rule.read = [](const CaseSpec& spec) {
    const auto name = length_class(longest_keys(spec), spec.config.kv_cache.page_size);
    const auto found = std::ranges::find(kLengthNames, name);
    return found == kLengthNames.end() ? -1 : static_cast<int>(found - kLengthNames.begin());
  };
  return rule;
}

// ---- batch ----

constexpr std::int64_t kFewQueries = 8;
constexpr std::int64_t kOutweighs = 4;  ///< a long row is so many times as long as the next

Lengths decode(std::int64_t keys) { return {1, keys}; }
Lengths prefill(std::int64_t keys) { return {keys, keys}; }
/// New tokens after cached ones; keys >= 3.
Lengths continued(std::int64_t keys, Draw& draw) {
  return {draw.between(2, std::min(kFewQueries, keys - 1)), keys};
}

using Batch = std::vector<Lengths>;

Batch mixed_batch(std::int64_t longest, Draw& draw) {
  const std::int64_t brief = std::min<std::int64_t>(longest, kFewQueries);
  switch (draw.between(0, 2)) {
    case 0:
      return {decode(longest), prefill(draw.between(2, brief)),
              continued(draw.between(3, brief), draw)};
    case 1:
      return {continued(longest, draw), decode(draw.between(2, longest)),
              prefill(draw.between(2, brief))};
    default:
      return {continued(longest, draw), prefill(draw.between(2, brief)),
              continued(draw.between(3, longest), draw)};
  }
}

Batch decode_batch(std::int64_t longest, Draw& draw) {
  // The second is too long for one long row among short ones.
  Batch batch = {decode(longest), decode(draw.between(longest / kOutweighs + 1, longest))};
  for (std::int64_t more = draw.between(0, 3); more > 0; --more) {
    batch.push_back(decode(draw.between(1, longest)));
  }
  return batch;
}

Batch prefill_batch(std::int64_t longest, Draw& draw) {
  Batch batch = {prefill(longest)};
  for (std::int64_t more = draw.between(1, 2); more > 0; --more) {
    batch.push_back(prefill(draw.between(2, std::min<std::int64_t>(longest, kFewQueries))));
  }
  return batch;
}

/// One or two sequences without query rows, with and without keys.
Batch ragged_batch(std::int64_t longest, Draw& draw) {
  Batch batch = {decode(longest), {0, draw.between(0, longest)}};
  if (longest >= 3 && draw.one_in(2)) batch[0] = continued(longest, draw);
  if (draw.one_in(2)) batch.push_back({0, 0});
  batch.push_back(longest >= 2 ? prefill(draw.between(2, std::min<std::int64_t>(longest, 6)))
                               : decode(1));
  return batch;
}

Batch one_long_batch(std::int64_t longest, Draw& draw) {
  Batch batch = {draw.one_in(2) ? decode(longest) : continued(longest, draw)};
  for (std::int64_t more = draw.between(3, 5); more > 0; --more) {
    batch.push_back(decode(draw.between(1, longest / kOutweighs)));
  }
  return batch;
}

Batch more_queries_batch(std::int64_t longest, Draw& draw) {
  const std::int64_t keys =
      draw.between(draw.one_in(4) ? 0 : 1, std::min<std::int64_t>(longest, 20));
  Batch batch = {{keys + draw.between(1, kFewQueries), keys}};
  if (keys < longest || draw.one_in(2)) batch.push_back({draw.between(1, 4), longest});
  return batch;
}

using MakeBatch = Batch (*)(std::int64_t, Draw&);
struct BatchKind {
  const char* name;
  MakeBatch make;
};
constexpr std::array kBatches = {
    BatchKind{"mixed", mixed_batch},
    BatchKind{"one decode", [](std::int64_t n, Draw&) { return Batch{decode(n)}; }},
    BatchKind{"decode", decode_batch},
    BatchKind{"one prefill", [](std::int64_t n, Draw&) { return Batch{prefill(n)}; }},
    BatchKind{"prefill", prefill_batch},
    BatchKind{"one continued",
              [](std::int64_t n, Draw& draw) { return Batch{continued(n, draw)}; }},
    BatchKind{"rows without queries", ragged_batch},
    BatchKind{"one long row", one_long_batch},
    BatchKind{"more queries than keys", more_queries_batch},
    BatchKind{"rows that see nothing", more_queries_batch},  // where the mask has it so
};

/// Whether rows before the first key see none.
bool hides_all_from_early_rows(const MaskConfig& mask) {
  using enum MaskVariant;
  return mask.align == MaskAlign::kBottomRight &&
         (mask.variant == kCausal || mask.variant == kChunkedCausal ||
          mask.variant == kSlidingWindowCausal);
}

std::string_view batch_of(const Batch& batch) {
  const auto all = [&](auto is) { return std::ranges::all_of(batch, is); };
  const auto any = [&](auto is) { return std::ranges::any_of(batch, is); };
  if (batch.empty()) return "";
  if (any([](const Lengths& row) { return row.queries > row.keys; })) {
    return "more queries than keys";
  }
  if (any([](const Lengths& row) { return row.queries == 0; })) return "rows without queries";
  const bool is_decode = all([](const Lengths& row) { return row.queries == 1; });
  const bool is_prefill = all([](const Lengths& row) { return row.queries == row.keys; });
  if (batch.size() == 1) {
    if (is_decode) return "one decode";
    return is_prefill ? "one prefill" : "one continued";
  }
  std::vector<std::int64_t> keys;
  for (const Lengths& row : batch) keys.push_back(row.keys);
  std::ranges::sort(keys, std::greater<>());
  if (batch.size() >= 4 && kOutweighs * keys[1] <= keys[0]) return "one long row";
  if (is_decode) return "decode";
  return is_prefill ? "prefill" : "mixed";
}

AxisRule batch_axis() {
  AxisRule rule{{"batch", {}, false}, nullptr, nullptr};
  for (const BatchKind& kind : kBatches) rule.axis.values.emplace_back(kind.name);
  rule.write = [](CaseSpec& spec, int value, Draw& draw) {
    const MakeBatch make = kBatches.at(static_cast<std::size_t>(value)).make;
    Batch batch = make(longest_keys(spec), draw);
    // The longest, made first, comes anywhere.
    std::swap(batch.front(), draw.between(0, 1) == 0 ? batch.front() : batch.back());
    set_lengths(spec, batch);
  };
  rule.read = [](const CaseSpec& spec) {
    std::string_view name = batch_of(lengths_of(spec));
    if (name == "more queries than keys" && hides_all_from_early_rows(spec.config.mask)) {
      name = "rows that see nothing";
    }
    const auto* const found =
        std::ranges::find_if(kBatches, [name](const BatchKind& kind) { return name == kind.name; });
    return found == kBatches.end() ? -1 : static_cast<int>(found - kBatches.begin());
  };
  return rule;
}

// ---- scores ----

AxisRule mask_axis() {
  using enum MaskVariant;
  std::vector<std::pair<std::string, MaskVariant>> values;
  for (const MaskVariant mask :
       {kCausal, kNull, kChunkedCausal, kSlidingWindowCausal, kSlidingWindowNoncausal, kTensor}) {
    values.emplace_back(name_of(mask), mask);
  }
  return field_axis(
      "mask", true, values, [](auto& s) -> auto& { return s.config.mask.variant; });
}

AxisRule align_axis() {
  return field_axis<MaskAlign>(
      "align", false,
      {{"bottom_right", MaskAlign::kBottomRight}, {"top_left", MaskAlign::kTopLeft}},
      [](auto& s) -> auto& { return s.config.mask.align; });
}

const std::vector<std::string> kSpanNames = {"none",   "1",        "shorter", "length-1",
                                             "length", "length+1", "longer"};

AxisRule span_axis() {
  AxisRule rule{{"span", kSpanNames, false}, nullptr, nullptr};
  rule.write = [](CaseSpec& spec, int value, Draw& draw) {
    MaskConfig& mask = spec.config.mask;
    mask.window_size.reset();
    mask.chunk_size.reset();
    if (value == 0) return;
    const std::string& name = kSpanNames.at(static_cast<std::size_t>(value));
    const std::int64_t keys = longest_keys(spec);
    std::int64_t size = least_span(name, keys);
    if (name == "shorter") size = draw.pick({keys / 2, keys / 4 + 1, draw.between(2, keys - 2)});
    if (name == "longer") size = draw.between(keys + 2, 2 * keys + 5);
    (mask.variant == MaskVariant::kChunkedCausal ? mask.chunk_size : mask.window_size) = size;
  };
  rule.read = [](const CaseSpec& spec) {
    const MaskConfig& mask = spec.config.mask;
    if (!mask.window_size && !mask.chunk_size) return 0;
    const std::int64_t size = mask.window_size ? *mask.window_size : *mask.chunk_size;
    const std::string_view name = span_class(size, longest_keys(spec));
    return static_cast<int>(std::ranges::find(kSpanNames, name) - kSpanNames.begin());
  };
  return rule;
}

AxisRule scale_axis() {
  AxisRule rule{{"scale", {"default", "custom", "negative"}, false}, nullptr, nullptr};
  rule.write = [](CaseSpec& spec, int value, Draw& draw) {
    spec.config.scale.reset();
    if (value == 1) spec.config.scale = draw.pick({0.5, 0.07, 1.0});
    if (value == 2) spec.config.scale = draw.pick({-0.125, -0.5});
  };
  rule.read = [](const CaseSpec& spec) {
    if (!spec.config.scale) return 0;
    if (*spec.config.scale == 0.0) return -1;
    return *spec.config.scale > 0 ? 1 : 2;
  };
  return rule;
}

AxisRule softcap_axis() {
  constexpr double kTight = 5.0;
  AxisRule rule{{"softcap", {"null", "tight", "loose"}, true}, nullptr, nullptr};
  rule.write = [](CaseSpec& spec, int value, Draw& draw) {
    spec.config.logit_softcap.reset();
    if (value == 1) spec.config.logit_softcap = draw.pick({1.0, 2.0, kTight});
    if (value == 2) spec.config.logit_softcap = draw.pick({15.0, 30.0, 50.0});
  };
  rule.read = [](const CaseSpec& spec) {
    if (!spec.config.logit_softcap) return 0;
    return *spec.config.logit_softcap <= kTight ? 1 : 2;
  };
  return rule;
}

AxisRule sinks_axis() {
  return flag_axis(
      "sinks", true, [](auto& s) -> auto& { return s.sinks; });
}

AxisRule profile_axis() {
  std::vector<std::pair<std::string, std::string>> values;
  for (const Profile& profile : profiles()) values.emplace_back(profile.name, profile.name);
  return field_axis(
      "profile", false, values, [](auto& s) -> auto& { return s.profile; });
}

AxisRule devices_axis() {
  return integer_axis(
      "devices", false, {1, 2, 3, 8}, [](auto& s) -> auto& { return s.config.num_devices; });
}

AxisRule replication_axis() {
  return flag_axis(
      "kv_head_replication", false, [](auto& s) -> auto& { return s.config.kv_head_replication; });
}

}  // namespace

std::vector<Lengths> lengths_of(const CaseSpec& spec) {
  std::vector<Lengths> lengths;
  for (const RowSpec& row : spec.rows) {
    lengths.push_back(spec.config.starts_at_attention()
                          ? Lengths{row.first, row.second}
                          : Lengths{row.second, row.first + row.second});
  }
  return lengths;
}

void set_lengths(CaseSpec& spec, std::span<const Lengths> lengths) {
  spec.rows.clear();
  for (const Lengths& row : lengths) {
    spec.rows.push_back(spec.config.starts_at_attention()
                            ? RowSpec{row.queries, row.keys}
                            : RowSpec{row.keys - row.queries, row.queries});
  }
}

std::int64_t longest_keys(const CaseSpec& spec) {
  std::int64_t longest = 0;
  for (const Lengths& row : lengths_of(spec)) longest = std::max(longest, row.keys);
  return longest;
}

std::optional<std::int64_t> fixed_length(std::string_view length, std::int64_t page_size) {
  if (length == "short" || length == "long") return std::nullopt;
  if (length == "page-1") return page_size - 1;
  if (length == "page") return page_size;
  if (length == "page+1") return page_size + 1;
  std::int64_t number = 0;
  std::from_chars(length.data(), length.data() + length.size(), number);
  return number;
}

std::string_view length_class(std::int64_t keys, std::int64_t page_size) {
  if (keys < 1) return "";
  if (keys == 1) return "1";
  if (keys == page_size - 1) return "page-1";
  if (keys == page_size) return "page";
  if (keys == page_size + 1) return "page+1";
  const auto named = std::ranges::find(kLengthNames, std::to_string(keys));
  if (named != kLengthNames.end()) return *named;
  return keys < kLongFrom ? "short" : "long";
}

std::string_view span_class(std::int64_t size, std::int64_t keys) {
  if (size == 1) return "1";
  if (size < keys - 1) return "shorter";
  if (size == keys - 1) return "length-1";
  if (size == keys) return "length";
  return size == keys + 1 ? "length+1" : "longer";
}

std::int64_t least_span(std::string_view span, std::int64_t keys) {
  for (const std::int64_t size :
       {std::int64_t{1}, std::int64_t{2}, keys - 1, keys, keys + 1, keys + 2}) {
    if (size >= 1 && span_class(size, keys) == span) return size;
  }
  return 0;
}

std::vector<AxisRule> case_axes() {
  return {page_size_axis(), page_order_axis(), layer_axis(), kv_length_axis(), batch_axis()};
}

std::vector<AxisRule> scores_axes() {
  return {mask_axis(),  align_axis(),   span_axis(),    scale_axis(),      softcap_axis(),
          sinks_axis(), profile_axis(), devices_axis(), replication_axis()};
}

}  // namespace attn::harness
