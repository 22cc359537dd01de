#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "harness/fuzz/localise.h"
#include "harness/generate/draft.h"

namespace attn::harness {

/// How a case is made from a failing one; any part may be empty.
struct Construct {
  std::function<void(CaseSpec&)> spec;
  std::function<void(Draft&)> shape;  ///< before weights and cache are quantised
  std::function<void(Case&)> data;    ///< of the finished case

  /// This one, then the other.
  Construct with(const Construct& next) const;
};

enum class Outcome {
  kUnknown,  ///< nothing of it could be run
  kPasses,
  kFails,
};

/// Runs constructed cases of several failing ones.
class Constructs {
 public:
  Constructs(std::vector<FailingCase> bases, const FinalProbe& probe)
      : bases_(std::move(bases)), probe_(probe) {}

  const std::vector<FailingCase>& bases() const { return bases_; }
  /// Fails when it does with one of the bases, for one of a few seeds.
  Outcome outcome(const Construct& construct) const;
  bool fails(const Construct& construct) const { return outcome(construct) == Outcome::kFails; }
  /// False as well where nothing of it could be run: that is no evidence.
  bool passes(const Construct& construct) const { return outcome(construct) == Outcome::kPasses; }
  /// One case and its answer; nothing when it cannot be made or run.
  struct Run {
    Case c;
    FinalAnswer answer;
  };
  std::optional<Run> run(const FailingCase& base, std::uint64_t seed,
                         const Construct& construct) const;
  /// The answer to a case made elsewhere.
  FinalAnswer answer(const Case& c) const { return probe_(c); }

  static constexpr std::uint64_t kSeeds = 2;

 private:
  std::vector<FailingCase> bases_;
  const FinalProbe& probe_;
};

// Constructs, of specs.
Construct plain_cache();       ///< the config's type, and plain_pages()
Construct plain_cache_type();  ///< the config's type, pages as they are
Construct plain_pages();       ///< one layer on pages of 128 in order, in the standard layout
Construct without_norm();
Construct without_sinks();
Construct full_rotation();  ///< of all channels of a head
Construct dense_weights();
// Of data.
Construct zero_projection(Projection projection);  ///< of x: q, k or v of the new tokens is 0
Construct zero_keys();                             ///< in the cache before the call
Construct zero_values();
Construct no_rotation();  ///< positions turn nothing
Construct equal_heads();  ///< every head of the cache, and of given queries, like the first
/// Keys of zero, values of one wherever the pool has a slot, equal sinks: how many keys a row sees
/// is all that an output depends on.
Construct counting();
/// Values of one wherever the pool has a slot, equal sinks: where values lie cannot matter.
Construct values_of_one();
/// Every slot of the pool holds the first token's value, and none NaN.
Construct values_everywhere();
/// The slots of the new tokens hold zero before the call, instead of NaN.
Construct stored_zeros();

}  // namespace attn::harness
