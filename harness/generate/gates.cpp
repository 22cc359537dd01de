#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "harness/generate/legal_points.h"
#include "harness/generate/space.h"

namespace attn::harness {
namespace {

constexpr std::size_t kSmokeCases = 100;

/// A seed that differs from that of every other index and plan.
std::uint64_t seed_at(std::uint64_t seed, std::string_view stream, std::int64_t index) {
  return RandomStream(seed, stream).bits(static_cast<std::uint64_t>(index)) >> 11U;
}

/// compile_points of a plan, made once.
const std::vector<Point>& compiled_for(const GatePlan& plan) {
  static std::mutex lock;
  static std::map<std::pair<std::uint64_t, std::int64_t>, std::vector<Point>> known;
  const std::scoped_lock guard(lock);
  std::vector<Point>& points = known[{plan.seed, *plan.max_compiles}];
  if (points.empty()) points = compile_points(plan.seed, *plan.max_compiles);
  return points;
}

/// Takes back most of the features of a random layout, so that cases have one or two, or none, and
/// few have equal heads, which hide mistakes. What is standard is legal beside everything.
void thin_layout(Point& point, Draw& draw) {
  const std::span<const Axis> axes = space_axes();
  for (std::size_t axis = 0; axis < axes.size(); ++axis) {
    if (!axes[axis].of_layout) continue;
    if (!draw.one_in(axes[axis].name == "broadcast" ? 8 : 4)) point[axis] = 0;
  }
}

}  // namespace

std::vector<PlannedCase> covering_cases(const GatePlan& plan) {
  CoveringOptions options;
  options.strength = plan.gate == Gate::kNightly ? 3 : 2;
  options.seed = plan.seed;
  options.max_compiles = plan.max_compiles;
  if (plan.gate == Gate::kSmoke) options.max_rows = kSmokeCases;
  const std::vector<Point> points = covering_array(options);
  std::vector<PlannedCase> cases;
  cases.reserve(points.size());
  for (std::size_t i = 0; i < points.size(); ++i) {
    const std::uint64_t seed = seed_at(plan.seed, "covering_cases", static_cast<std::int64_t>(i));
    cases.push_back({spec_of(points[i], seed), seed});
  }
  return cases;
}

PlannedCase random_case(const GatePlan& plan, std::int64_t n) {
  const std::uint64_t seed = seed_at(plan.seed, "random_case", n);
  Draw draw(seed, "random_case");
  Point start(space_axes().size(), -1);
  if (plan.max_compiles) start = draw.pick(compiled_for(plan));
  Point point = LegalPoints::instance().draw_from(start, draw);
  thin_layout(point, draw);
  return {spec_of(point, seed), seed};
}

}  // namespace attn::harness
