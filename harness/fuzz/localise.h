#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "harness/compare/arithmetic.h"
#include "harness/generate/case_spec.h"
#include "reference/core/case.h"
#include "reference/core/trace.h"

namespace attn::harness {

/// What is left of an answer when nothing of the inside is shown: out, or attn_out for entry point
/// attention, or the caches where the call is there to fill them.
Trace final_answer(const Case& c, Trace answer);

/// A backend's final answer to a case, judged.
struct FinalAnswer {
  bool ran = false;          ///< false: unsupported, or it broke
  std::optional<Stage> bad;  ///< the part that is wrong
  Trace got;                 ///< final_answer of it
  Arithmetic arithmetic;     ///< that the backend declares for the case
};
using FinalProbe = std::function<FinalAnswer(const Case&)>;

/// A case that the backend failed on.
struct FailingCase {
  CaseSpec spec;
  std::uint64_t seed = 0;
};

/// A first bad stage that was found from outside.
struct Localised {
  Stage stage = Stage::kOut;
  /// Whether the constructed cases leave no other stage; else it is the likeliest of several.
  bool sure = false;
  std::string because;  ///< what was seen: "wrong where queries alone carry values"
};

/// The first bad stage of cases that fail by one mistake, from final answers alone. Cases are
/// constructed from the failing ones in which only some stages can matter, and some stages are read
/// out: values that are an identity show the probabilities; keys of zero and values of one count
/// the visible keys; projections to zero leave queries, keys or values alone; two rows whose
/// attn_out must be equal must have equal outputs however wrong the output projection is.
Localised localise(std::span<const FailingCase> failing, const FinalProbe& probe);

}  // namespace attn::harness
