#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "harness/compare/compare.h"
#include "harness/generate/case_spec.h"
#include "reference/core/case.h"
#include "reference/core/trace.h"

namespace attn::harness {

/// What is left of an answer when nothing of the inside is shown: out, or attn_out for entry point
/// attention, or the caches where the call is there to fill them.
Trace final_answer(const Case& c, Trace answer);

/// The part of the backend's final answer to a case that is wrong; nothing when it is right, or the
/// case cannot be run.
using FinalProbe = std::function<std::optional<Stage>(const Case&)>;

/// The first bad stage of a failing case, from final answers alone. Cases are made from the failing
/// one in which some stages cannot matter (attention alone; the cache alone; keys all equal, so
/// that queries say nothing; values all equal, so that only the sum of the probabilities counts; an
/// identity for the rotation; plain weights, plain cache), and what still fails leads to the stage.
Stage localise(const CaseSpec& spec, std::uint64_t seed, const FinalProbe& probe);

}  // namespace attn::harness
