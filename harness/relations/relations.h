#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "harness/backends/backend.h"
#include "reference/core/case.h"
#include "reference/core/trace.h"

/// Metamorphic relations: what must hold between two answers of one backend, whatever the right
/// answer is. Both sides are within their bound of the same exact value, so they differ by at most
/// the sum of the two bounds (docs/numerics.md, "Relations").

namespace attn::harness {

struct RelationOptions {
  /// Demand equal bits where Relation::bitwise allows it. A backend's own claims are always held
  /// against it.
  bool bitwise = false;
  int threads = 1;  ///< of the evaluation of the bounds
};

/// Where a relation does not hold.
struct Broken {
  std::string relation;
  Stage stage = Stage::kOut;
  std::string where;     ///< "row 3 (sequence 1, position 7), head 2, channel 5"
  double one = 0.0;      ///< what the case says there
  double other = 0.0;    ///< what its counterpart says
  double allowed = 0.0;  ///< largest difference of two correct answers; 0 for equal bits
  std::string detail;    ///< one line: which counterpart, how many elements of how many
};

/// A relation held against one case.
struct RelationResult {
  /// "" when it was checked, else why it was not: the backend does not run the counterpart.
  std::string skipped;
  std::optional<Broken> broken;
  double worst_ratio = 0.0;  ///< largest difference / allowed; infinity for unequal bits
};

/// One case on one backend; its answer and bounds are made once for all relations. Holds references
/// to both. One thread at a time.
class Subject {
 public:
  Subject(const Case& c, const Backend& backend, const RelationOptions& options = {});
  ~Subject();
  Subject(const Subject&) = delete;
  Subject& operator=(const Subject&) = delete;

  const Case& c() const;
  const Backend& backend() const;
  const RelationOptions& options() const;

  struct State;
  State& state() const { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

struct Relation {
  std::string_view name;     ///< "page_permutation"
  std::string_view summary;  ///< one line: what equals what
  /// When equal bits are demanded: with --bitwise, and then of every backend that sums in a fixed
  /// order; or only of one that claims batch invariance.
  enum class Bitwise { kNever, kOnDemand, kOfBatchInvariant } bitwise;
  /// Whether the case has what the relation is about.
  bool (*applies)(const Case& c);
  /// Only for cases that it applies to and configs that the backend supports. Throws what the
  /// backend throws.
  RelationResult (*check)(const Subject& subject);
};

/// All relations, cheapest first.
std::span<const Relation> relations();
/// Throws Error(kUsage) with the nearest known name.
const Relation& find_relation(std::string_view name);

/// The first relation of `which` (default: all) that applies and is broken.
std::optional<Broken> first_broken(const Case& c, const Backend& backend,
                                   const RelationOptions& options = {},
                                   std::span<const Relation> which = relations());

/// One line: "page_permutation: attn_out differs ...".
std::string to_string(const Broken& broken);

}  // namespace attn::harness
