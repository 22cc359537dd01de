#include "tests/fuzz/planted.h"

#include <cstdlib>
#include <exception>

#include "harness/faults/dictionary.h"
#include "harness/faults/faulty_library.h"
#include "harness/fuzz/alike.h"
#include "harness/generate/space.h"

namespace attn::harness {
namespace {

[[maybe_unused]] const bool kLibraryIsNamed =
    setenv("ATTN_FAULTY_LIBRARY", ATTN_FAULTY_FILE, 1) == 0;

}  // namespace

std::unique_ptr<Backend> planted(std::string_view fault) {
  constexpr std::int64_t kOtherBlock = 24;
  static_assert(kOtherBlock != FaultyLibrary::kBlock);
  return FaultyLibrary::instance().make(fault, kOtherBlock);
}

Answer answer(std::string_view fault, const CaseSpec& spec, std::uint64_t seed, Taps taps) {
  const auto backend = planted(fault);
  Answer result{make_case(spec, seed), {}, {}};
  try {
    result.trace = backend->run(result.c, stages_of(result.c.config));
  } catch (const std::exception& error) {  // a bug may read sizes and pages that are none
    result.verdict.status = Status::kCrashed;
    result.verdict.detail = error.what();
    return result;
  }
  CompareOptions options;
  options.taps = taps == Taps::kAll;
  options.check_trust = false;
  if (taps == Taps::kNone) result.trace = final_answer(result.c, std::move(result.trace));
  result.verdict = compare(result.c, result.trace, backend->arithmetic(result.c.config), options);
  return result;
}

std::optional<Failure> find_failure(const FaultInfo& fault, std::int64_t most, Taps taps) {
  for (std::int64_t n = 0; n < most; ++n) {
    const PlannedCase planned = random_case({}, n);
    const Verdict verdict = answer(fault.id, planned.spec, planned.seed, taps).verdict;
    if (verdict.first_bad) return Failure{planned.spec, planned.seed, n, verdict};
  }
  return std::nullopt;
}

ShrinkResult shrunk(const FaultInfo& fault, const Failure& failure, Taps taps) {
  const FaultDictionary* const dictionary = FaultDictionary::instance();
  const auto evidence_of = [&](const Answer& a) {
    return std::vector<Evidence>{{a.c, a.trace, planted(fault.id)->arithmetic(a.c.config)}};
  };
  const Answer first = answer(fault.id, failure.spec, failure.seed, taps);
  const std::vector<Likeness> known = dictionary->look_up(evidence_of(first));
  return shrink(failure.spec, failure.seed, [&](const CaseSpec& spec, std::uint64_t seed) {
    const Answer tried = answer(fault.id, spec, seed, taps);
    if (!fails_alike(tried.verdict, failure.verdict)) return false;
    return known.empty() || dictionary->explains(known, evidence_of(tried));
  });
}

FinalProbe final_probe(std::string_view fault) {
  return [fault](const Case& c) -> FinalAnswer {
    const auto backend = planted(fault);
    CompareOptions options;
    options.taps = false;
    options.check_trust = false;
    FinalAnswer answer;
    answer.arithmetic = backend->arithmetic(c.config);
    try {
      answer.got = final_answer(c, backend->run(c, stages_of(c.config)));
    } catch (const std::exception&) {
      return answer;
    }
    answer.bad = compare(c, answer.got, answer.arithmetic, options).first_bad;
    answer.ran = true;
    return answer;
  };
}

}  // namespace attn::harness
