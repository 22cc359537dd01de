#include "harness/compare/lse_mistake.h"

#include <array>
#include <cmath>
#include <numbers>
#include <vector>

#include "harness/compare/bound.h"
#include "harness/compare/compare.h"
#include "harness/compare/stage_score.h"
#include "reference/reference.h"

namespace attn::harness {
namespace {

/// lse as it should be of a case, and its allowance.
struct ExactLse {
  std::vector<double> values;
  std::vector<double> allowed;
};

ExactLse exact_lse(const Case& c, const Trace& got, const Arithmetic& arithmetic) {
  Trace lse;
  lse[Stage::kLse] = got[Stage::kLse];
  const Trace exact = reference::evaluate(c, reference::Mode::kExact);
  StageAllowances allowed = allowances(c, lse, arithmetic);
  return {exact[Stage::kLse].values(), std::move(allowed[static_cast<std::size_t>(Stage::kLse)])};
}

struct Mistake {
  bool base2 = false;
  bool heads_first = false;
  bool no_sink = false;
};
/// The simplest explanation first.
constexpr std::array kMistakes = {Mistake{true, false, false}, Mistake{false, true, false},
                                  Mistake{false, false, true}, Mistake{true, true, false},
                                  Mistake{true, false, true},  Mistake{false, true, true},
                                  Mistake{true, true, true}};

/// Whether `got` [tokens, heads] is `exact` with the mistake made in it.
bool explains(const Mistake& mistake, const std::vector<double>& got, const ExactLse& exact,
              std::int64_t tokens, std::int64_t heads, ElementType type) {
  const double factor = mistake.base2 ? std::numbers::log2e : 1.0;
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const auto right = static_cast<std::size_t>(t * heads + h);
      const auto at =
          static_cast<std::size_t>(mistake.heads_first ? h * tokens + t : t * heads + h);
      const double want = factor * exact.values[right];
      double allowed = factor * exact.allowed[right];
      // The multiplication and its rounding, once more than the right lse has.
      if (mistake.base2 && std::isfinite(want)) {
        allowed += rounding(type, want, allowed) + rounding(ElementType::kFloat32, want, allowed);
      }
      if (error_ratio(got[at], want, allowed) > 1.0) return false;
    }
  }
  return true;
}

std::string words(const Mistake& mistake) {
  std::string text;
  const auto add = [&](bool made, const char* what) {
    if (made) text.append(text.empty() ? "" : ", ").append(what);
  };
  add(mistake.base2, "logarithm to base 2 instead of e");
  add(mistake.heads_first, "heads before tokens");
  add(mistake.no_sink, "without the sink");
  return text;
}

}  // namespace

std::string lse_mistake(const Case& c, const Trace& got, const Arithmetic& arithmetic) {
  const std::int64_t tokens = c.tokens(), heads = c.config.num_attention_heads;
  const std::vector<double> values = got[Stage::kLse].values();
  const ExactLse exact = exact_lse(c, got, arithmetic);
  if (values.size() != exact.values.size()) return "";
  ExactLse sinkless;
  if (c.has_sinks()) {
    Case without = c;
    without.weights.erase("sinks");
    sinkless = exact_lse(without, got, arithmetic);
  }
  for (const Mistake& mistake : kMistakes) {
    if (mistake.no_sink && !c.has_sinks()) continue;
    const ExactLse& want = mistake.no_sink ? sinkless : exact;
    if (explains(mistake, values, want, tokens, heads, arithmetic.lse)) return words(mistake);
  }
  return "";
}

}  // namespace attn::harness
