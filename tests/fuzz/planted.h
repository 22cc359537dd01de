#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "harness/backends/backend.h"
#include "harness/compare/compare.h"
#include "harness/faults/catalogue.h"
#include "harness/fuzz/localise.h"
#include "harness/generate/case_spec.h"
#include "harness/generate/shrink.h"

namespace attn::harness {

/// A backend with a planted bug that is not bit for bit the dictionary's: it takes other blocks of
/// keys at a time.
std::unique_ptr<Backend> planted(std::string_view fault);

/// What the backend answered to a case, and how that was judged.
struct Answer {
  Case c;
  Trace trace;
  Verdict verdict;
};
/// What of a backend is seen: every stage, or the final answer alone.
enum class Taps { kAll, kNone };
Answer answer(std::string_view fault, const CaseSpec& spec, std::uint64_t seed,
              Taps taps = Taps::kAll);

/// The first random case on which the fault shows in a value; nothing within `most` cases.
struct Failure {
  CaseSpec spec;
  std::uint64_t seed = 0;
  std::int64_t number = 0;  ///< of the random case
  Verdict verdict;
};
std::optional<Failure> find_failure(const FaultInfo& fault, std::int64_t most,
                                    Taps taps = Taps::kAll);

/// The failure, shrunk as fuzz does.
ShrinkResult shrunk(const FaultInfo& fault, const Failure& failure, Taps taps = Taps::kAll);

/// The planted backend without its inside.
FinalProbe final_probe(std::string_view fault);

}  // namespace attn::harness
