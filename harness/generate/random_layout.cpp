#include "harness/generate/random_layout.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "harness/generate/random_draw.h"

namespace attn::harness {
namespace {

constexpr std::int64_t kFeatures = 9;

void add_feature(std::int64_t feature, bool may_broadcast, Draw& draw, MemoryLayout& layout) {
  switch (feature) {
    case 0:
      layout.cache = CacheOrder::kHnd;
      return;
    case 1:
      layout.kv = draw.pick({KvPairing::kPagePairs, KvPairing::kRowPairs});
      return;
    case 2:
      layout.q = draw.pick({QueryOrder::kFusedQkv, QueryOrder::kTransposed});
      return;
    case 3:
      layout.out = OutputOrder::kTransposed;
      return;
    case 4:
      layout.broadcast = may_broadcast;
      return;
    case 5:
      layout.gap = draw.between(1, 9);
      return;
    case 6:
      layout.offset = draw.between(1, 33);
      return;
    case 7:
      layout.channel_stride = draw.between(2, 3);
      return;
    default:
      // Past 2^31, and past what wraps to the same place in 32 unsigned bits.
      if (draw.one_in(2))
        layout.pool_offset = draw.pick({std::int64_t{1} << 31, std::int64_t{1} << 32});
      if (layout.pool_offset == 0)
        layout.row_stride = draw.pick({std::int64_t{1} << 31, std::int64_t{1} << 32});
  }
}

MemoryLayout layout_of(bool may_broadcast, std::uint64_t seed) {
  Draw draw(seed, "random_layout");
  MemoryLayout layout;
  for (std::int64_t n = draw.pick({1, 1, 2, 3}); n > 0; --n) {
    add_feature(draw.between(0, kFeatures - 1), may_broadcast, draw, layout);
  }
  return layout;
}

struct DealtLayout {
  std::string name;
  MemoryLayout layout;
};

/// One feature each; the last is a place for a drawn one.
std::vector<DealtLayout> dealt() {
  std::vector<DealtLayout> list = {{"standard", {}}};
  const auto add = [&](const std::string& name, auto MemoryLayout::*field, auto value) {
    list.push_back({name, {}});
    list.back().layout.*field = value;
  };
  add("hnd", &MemoryLayout::cache, CacheOrder::kHnd);
  add("page_pairs", &MemoryLayout::kv, KvPairing::kPagePairs);
  add("row_pairs", &MemoryLayout::kv, KvPairing::kRowPairs);
  add("fused_qkv", &MemoryLayout::q, QueryOrder::kFusedQkv);
  add("transposed q", &MemoryLayout::q, QueryOrder::kTransposed);
  add("transposed out", &MemoryLayout::out, OutputOrder::kTransposed);
  add("gap", &MemoryLayout::gap, 5);
  add("offset", &MemoryLayout::offset, 7);
  add("channel_stride", &MemoryLayout::channel_stride, 2);
  add("row_stride", &MemoryLayout::row_stride, std::int64_t{1} << 31);
  add("pool_offset", &MemoryLayout::pool_offset, std::int64_t{1} << 32);
  list.push_back({"drawn", {}});
  return list;
}

}  // namespace

MemoryLayout random_layout(const CaseSpec& spec, std::uint64_t seed) {
  return layout_of(spec.config.starts_at_attention(), seed);
}

MemoryLayout layout_beside_values(std::uint64_t seed) { return layout_of(false, seed); }

std::vector<std::string> dealt_layouts() {
  std::vector<std::string> names;
  for (const DealtLayout& layout : dealt()) names.push_back(layout.name);
  return names;
}

std::vector<int> deal_layouts(std::span<const Point> points, std::span<PlannedCase> cases) {
  const std::vector<DealtLayout> layouts = dealt();
  /// A value of an axis: how many cases with it are to come, which layouts it has met.
  struct Met {
    double to_come = 0.0;
    std::set<std::size_t> layouts;
  };
  std::map<std::pair<std::size_t, int>, Met> values;
  for (const Point& point : points) {
    for (std::size_t axis = 0; axis < point.size(); ++axis) ++values[{axis, point[axis]}].to_come;
  }
  std::vector<int> given;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    // A value that has hardly more cases than layouts to meet comes first.
    std::vector<double> gain(layouts.size(), 0.0);
    for (std::size_t axis = 0; axis < points[i].size(); ++axis) {
      Met& value = values[{axis, points[i][axis]}];
      const double missing = static_cast<double>(layouts.size() - value.layouts.size());
      const double urgency = missing / value.to_come--;
      for (std::size_t l = 0; l < layouts.size(); ++l) {
        if (!value.layouts.contains(l)) gain[l] += urgency;
      }
    }
    const auto best = static_cast<std::size_t>(std::ranges::max_element(gain) - gain.begin());
    for (std::size_t axis = 0; axis < points[i].size(); ++axis) {
      values[{axis, points[i][axis]}].layouts.insert(best);
    }
    const bool is_drawn = best + 1 == layouts.size();
    cases[i].spec.layout = is_drawn ? layout_beside_values(cases[i].seed) : layouts[best].layout;
    given.push_back(static_cast<int>(best));
  }
  return given;
}

}  // namespace attn::harness
