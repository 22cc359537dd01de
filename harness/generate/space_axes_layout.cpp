#include <array>

#include "harness/generate/space_axes.h"

namespace attn::harness {
namespace {

/// An axis of the layout over a field that counts elements: none of them by default, else a number
/// that is drawn.
AxisRule drawn_axis(std::string name, std::string value, std::int64_t MemoryLayout::*field,
                    std::int64_t none, std::int64_t least, std::int64_t most) {
  AxisRule rule{
      {std::move(name), {std::to_string(none), std::move(value)}, false}, nullptr, nullptr};
  rule.write = [=](CaseSpec& spec, int chosen, Draw& draw) {
    spec.layout.*field = chosen == 0 ? none : draw.between(least, most);
  };
  rule.read = [=](const CaseSpec& spec) { return spec.layout.*field == none ? 0 : 1; };
  return rule;
}

/// Past 2^31, and past what wraps to the same place in 32 unsigned bits.
AxisRule far_axis(std::string name, std::int64_t MemoryLayout::*field) {
  constexpr std::int64_t kOne = 1;
  return field_axis<std::int64_t>(
      std::move(name), false,
      {{"0", 0}, {"2^31", kOne << 31}, {"2^32", kOne << 32}}, [field](auto& s) -> auto& {
        return s.layout.*field;
      });
}

}  // namespace

std::vector<AxisRule> layout_axes() {
  using enum KvPairing;
  std::vector<AxisRule> axes;
  axes.push_back(field_axis<CacheOrder>(
      "cache_order", false, {{"nhd", CacheOrder::kNhd}, {"hnd", CacheOrder::kHnd}},
      [](auto& s) -> auto& { return s.layout.cache; }));
  axes.push_back(field_axis<KvPairing>(
      "kv_pairing", false,
      {{"separate", kSeparate}, {"page_pairs", kPagePairs}, {"row_pairs", kRowPairs}},
      [](auto& s) -> auto& { return s.layout.kv; }));
  axes.push_back(field_axis<QueryOrder>(
      "q_order", false,
      {{"dense", QueryOrder::kDense},
       {"fused_qkv", QueryOrder::kFusedQkv},
       {"transposed", QueryOrder::kTransposed}},
      [](auto& s) -> auto& { return s.layout.q; }));
  axes.push_back(field_axis<OutputOrder>(
      "out_order", false,
      {{"dense", OutputOrder::kDense}, {"transposed", OutputOrder::kTransposed}},
      [](auto& s) -> auto& { return s.layout.out; }));
  axes.push_back(flag_axis(
      "broadcast", false, [](auto& s) -> auto& { return s.layout.broadcast; }));
  axes.push_back(drawn_axis("gap", "1 to 9", &MemoryLayout::gap, 0, 1, 9));
  axes.push_back(drawn_axis("offset", "1 to 33", &MemoryLayout::offset, 0, 1, 33));
  axes.push_back(drawn_axis("channel_stride", "2 or 3", &MemoryLayout::channel_stride, 1, 2, 3));
  axes.push_back(far_axis("row_stride", &MemoryLayout::row_stride));
  axes.push_back(far_axis("pool_offset", &MemoryLayout::pool_offset));
  for (AxisRule& rule : axes) rule.axis.of_layout = true;
  return axes;
}

}  // namespace attn::harness
