#include <gmock/gmock.h>

#include <iomanip>
#include <iostream>
#include <map>

#include "harness/backends/backend.h"
#include "harness/backends/damaged.h"
#include "harness/compare/compare.h"
#include "tests/harness/compare/golden_cases.h"

// The other side of the bound: a small mistake in any stage's output must be called wrong. Prints
// the table that docs/numerics.md records.

namespace attn::harness {
namespace {

struct Share {
  int damages = 0;
  int with_taps = 0;
  int without = 0;
  Share& operator+=(const Share& other) {
    damages += other.damages;
    with_taps += other.with_taps;
    without += other.without;
    return *this;
  }
};

struct DamageKind {
  std::string name;
  Damage::Kind kind;
};
const std::vector<DamageKind> kKinds = {{"scaled", Damage::Kind::kScale},
                                        {"row shifted", Damage::Kind::kRowShift},
                                        {"heads swapped", Damage::Kind::kSwapHeads}};

/// The declared type that the damage is sized for: by whom it is computed.
struct Class {
  std::string name;
  std::string backend;
  double factor;
};
std::vector<Class> classes_of(ElementType dtype) {
  std::vector<Class> classes{{"float32", "cpu", 1.0005}};
  if (dtype == ElementType::kBFloat16) classes.push_back({"bfloat16", "faithful", 1.03});
  if (dtype == ElementType::kFloat16) classes.push_back({"float16", "faithful", 1.005});
  return classes;
}

bool called_wrong(const Case& c, const Trace& trace, const Arithmetic& arithmetic, bool taps) {
  CompareOptions options;
  options.taps = taps;
  options.check_trust = false;
  return compare(c, trace, arithmetic, options).status == Status::kFailed;
}

bool is_quantised(const AttentionConfig& config) {
  return config.quant || element_size(config.kv_cache.dtype) == 1;
}

/// Damages one stage after another of one backend's trace of one case.
void damage_stages(const Case& c, const Class& by, std::map<std::string, Share>& shares) {
  const auto backend = make_backend(by.backend);
  const Arithmetic arithmetic = backend->arithmetic(c.config);
  const Trace right = backend->run(c, all_stages());
  for (const Stage stage : all_stages()) {
    for (const DamageKind& kind : kKinds) {
      Trace wrong = right;
      Damage damage;
      damage.stage = stage;
      damage.kind = kind.kind;
      damage.factor = by.factor;
      if (!apply_damage(c, damage, wrong)) continue;
      const Share share{1, called_wrong(c, wrong, arithmetic, true),
                        called_wrong(c, wrong, arithmetic, false)};
      shares["all"] += share;
      if (is_quantised(c.config)) shares["quantised, " + by.name + ", " + kind.name] += share;
      shares[by.name + ", " + kind.name] += share;
      shares[by.name + ", " + std::string(name_of(stage))] += share;
      if (share.with_taps == 0) {
        std::cout << "missed with taps: " << c.id << ", " << by.name << ", " << kind.name << ", "
                  << name_of(stage) << "\n";
      }
    }
  }
}

TEST(Power, SmallDamageToAnyStageIsCalledWrong) {
  std::map<std::string, Share> shares;
  for (const GoldenCase& golden : covered_golden_cases()) {
    for (const Class& by : classes_of(golden.c.config.dtype)) damage_stages(golden.c, by, shares);
  }
  std::cout << "| damage | cases | with taps | without |\n|---|---|---|---|\n" << std::fixed;
  for (const auto& [name, share] : shares) {
    std::cout << "| " << name << " | " << share.damages << " | " << std::setprecision(1)
              << 100.0 * share.with_taps / share.damages << " % | "
              << 100.0 * share.without / share.damages << " % |\n";
  }
  EXPECT_GT(shares["all"].damages, 1000);
  // The required share; measured with taps: all of them.
  EXPECT_GE(shares["all"].with_taps, 0.98 * shares["all"].damages);
  for (const auto& [name, share] : shares) {
    if (share.damages < 50) continue;  // one missed would be more than 2 %
    EXPECT_GE(share.with_taps, 0.98 * share.damages) << name;
  }
}

}  // namespace
}  // namespace attn::harness
