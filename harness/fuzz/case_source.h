#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "harness/generate/case_spec.h"

namespace attn::harness {

/// Why a fuzz run tries a case.
enum class CaseOrigin {
  kCorpus,    ///< it failed before
  kCovering,  ///< it holds combinations of features that no other does
  kRandom,
};
std::string_view name_of(CaseOrigin origin);

/// A case of a fuzz run: the spec and the seed of its values.
struct FuzzCase {
  CaseSpec spec;
  std::uint64_t seed = 0;
  CaseOrigin origin = CaseOrigin::kRandom;
};

/// The cases of a fuzz run in their order: past failures, then those that cover the space, then
/// random ones without end. Case n is the same in every run.
class CaseSource {
 public:
  CaseSource(std::vector<FuzzCase> corpus, std::uint64_t seed);

  /// Cases before the random ones begin.
  std::int64_t planned() const { return std::ssize(planned_); }
  FuzzCase at(std::int64_t n) const;

 private:
  std::vector<FuzzCase> planned_;
  std::uint64_t seed_;
};

}  // namespace attn::harness
