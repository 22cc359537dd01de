// How many planted bugs the relations alone find, without a right answer.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "harness/faults/catalogue.h"
#include "harness/generate/case_spec.h"
#include "harness/relations/relations.h"

namespace attn::harness {
namespace {

struct Kill {
  std::string relation;
  int cases = 0;
};

/// Whether two answers differ by more than float32 can explain. A wrong answer has wrong bounds,
/// and two roundings of it may differ by more than these: such a find would be luck.
bool is_plain(const Broken& broken) {
  constexpr double kFarBeyondFloat32 = 1e-4;
  const double magnitude = std::max(std::abs(broken.one), std::abs(broken.other));
  return !(std::abs(broken.one - broken.other) <= kFarBeyondFloat32 * magnitude);
}

std::optional<Kill> hunt(const Backend& faulty, int cases) {
  for (int i = 1; i <= cases; ++i) {
    const auto seed = static_cast<std::uint64_t>(i);
    const Case c = make_case(random_small_spec(seed), seed);
    const Subject subject(c, faulty);
    for (const Relation& relation : relations()) {
      if (!relation.applies(c)) continue;
      const RelationResult result = relation.check(subject);
      if (result.broken && is_plain(*result.broken)) return Kill{result.broken->relation, i};
    }
  }
  return std::nullopt;
}

TEST(RelationPower, FindsMostValueFaults) {
  setenv("ATTN_FAULTY_LIBRARY", ATTN_FAULTY_FILE, 1);
  const char* const env = std::getenv("CASES");
  const int cases = env != nullptr ? std::atoi(env) : 300;
  int killed = 0, all = 0;
  std::map<std::string, int> by_relation;
  for (const FaultInfo& fault : fault_catalogue()) {
    if (fault.detector != Detector::kValue && fault.detector != Detector::kLse) continue;
    if (!fault.equivalent_because.empty()) continue;
    if (std::getenv("ONLY") && fault.id != std::getenv("ONLY")) continue;
    ++all;
    const auto kill = hunt(*make_backend("faulty:" + std::string(fault.id)), cases);
    std::printf("%-34s %s %d\n", std::string(fault.id).c_str(),
                kill ? kill->relation.c_str() : "SURVIVED", kill ? kill->cases : cases);
    std::fflush(stdout);
    if (!kill) continue;
    ++killed;
    ++by_relation[kill->relation];
  }
  std::printf("killed %d of %d\n", killed, all);
  for (const auto& [name, n] : by_relation) std::printf("  %-20s %d\n", name.c_str(), n);
}

}  // namespace
}  // namespace attn::harness
