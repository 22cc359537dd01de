#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "harness/backends/exec_mode.h"
#include "harness/fuzz/corpus.h"
#include "harness/generate/case_spec.h"
#include "harness/generate/space.h"

namespace attn::harness {

/// Why a fuzz run tries a case.
enum class CaseOrigin {
  kCorpus,    ///< it failed before
  kCovering,  ///< it holds combinations of features that no other does
  kRandom,
};
std::string_view name_of(CaseOrigin origin);
/// The origin of that name. Throws Error(kInput).
CaseOrigin parse_origin(std::string_view name);

/// A case of a fuzz run: the spec and the seed of its values.
struct FuzzCase {
  CaseSpec spec;
  std::uint64_t seed = 0;
  CaseOrigin origin = CaseOrigin::kRandom;
  std::optional<ExecMode> exec;  ///< of a past failure: the mode that it failed in
  std::string relation;          ///< of a past failure: the relation that it broke
};

/// The cases of a fuzz run in their order: past failures, then those that cover the space, then
/// random ones without end. Case n is the same in every run.
class CaseSource {
 public:
  CaseSource(const std::vector<CorpusEntry>& corpus, const GatePlan& plan);

  /// Cases before the random ones begin.
  std::int64_t planned() const { return std::ssize(planned_); }
  FuzzCase at(std::int64_t n) const;

 private:
  std::vector<FuzzCase> planned_;
  GatePlan plan_;
};

/// Another case of the same config, for modes that run one before: other values, other lengths
/// (longer or shorter, as the seed falls), other pages. `keeps_rows`: every other seed has as many
/// queries as before, so that a kernel for one query a sequence is asked too.
struct OtherCase {
  CaseSpec spec;
  std::uint64_t seed = 0;
};
OtherCase other_case(const CaseSpec& spec, std::uint64_t seed, bool keeps_rows = false);

/// Why the values of a case show little by themselves: "all keys equal", "scale 0" and "one visible
/// key" make every softmax a mean, and "no visible key" leaves none. "" for a case that is not so
/// and for calls that only write the cache. Such a case is judged together with a neighbour.
std::string degeneracy(const CaseSpec& spec, const Case& c);

/// The neighbour of a degenerate case: the same config and features with ordinary data and scores,
/// several rows and keys.
CaseSpec trusted_neighbour(const CaseSpec& spec);

}  // namespace attn::harness
