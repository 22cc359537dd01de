#include <algorithm>

#include "harness/generate/legal_points.h"
#include "harness/generate/space.h"

namespace attn::harness {
namespace {

constexpr std::size_t kSmokeCases = 100;

/// A seed that differs from that of every other index and plan.
std::uint64_t seed_at(std::uint64_t seed, std::string_view stream, std::int64_t index) {
  return RandomStream(seed, stream).bits(static_cast<std::uint64_t>(index)) >> 11U;
}

}  // namespace

std::vector<PlannedCase> covering_cases(const GatePlan& plan) {
  CoveringOptions options{plan.gate == Gate::kNightly ? 3 : 2, plan.seed, plan.max_compiles};
  std::vector<Point> points = covering_array(options);
  if (plan.gate == Gate::kSmoke && points.size() > kSmokeCases) points.resize(kSmokeCases);
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
  const Point point = LegalPoints::instance().draw_from(Point(space_axes().size(), -1), draw);
  return {spec_of(point, seed), seed};
}

}  // namespace attn::harness
