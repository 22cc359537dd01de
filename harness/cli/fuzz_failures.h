#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "harness/cli/fuzz_judge.h"
#include "harness/faults/dictionary.h"

namespace attn::cli {

/// Failures that look like one mistake.
struct FailureGroup {
  FuzzResult first;
  FuzzResult smallest;                      ///< `first`, shrunk
  std::vector<std::string> features;        ///< of the smallest
  std::vector<harness::Likeness> likeness;  ///< known mistakes that explain it
  /// Which of the stages that the backend does not show is the first bad one.
  struct Inside {
    Stage stage;
    std::string how;  ///< "lse by construction: right without sinks"
  };
  std::optional<Inside> inside;
  std::int64_t count = 0;
};

/// Gathers the failures of a fuzz run: one group, one shrunk case and one account for each mistake.
class FuzzFailures {
 public:
  FuzzFailures(const FuzzOptions& options, const FuzzJudge& judge)
      : options_(options), judge_(judge) {}

  /// Counts the failure with those that look like the same mistake, or shrinks it as a new one and
  /// stores it in the corpus.
  void add(const FuzzResult& seen);
  const std::vector<FailureGroup>& groups() const { return groups_; }
  void print(std::ostream& out) const;

 private:
  FuzzResult confirm(const FuzzResult& failure) const;
  bool belongs(const FuzzResult& failure, const std::vector<std::string>& features,
               const FailureGroup& group) const;
  FuzzResult shrink(const FuzzResult& failure) const;
  std::vector<harness::Likeness> look_up(const FuzzResult& first, const FuzzResult& smallest) const;
  std::optional<FailureGroup::Inside> look_inside(const FailureGroup& group) const;
  void print(std::ostream& out, const FailureGroup& group) const;

  const FuzzOptions& options_;
  const FuzzJudge& judge_;
  std::vector<FailureGroup> groups_;
};

}  // namespace attn::cli
