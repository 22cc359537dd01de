#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "harness/cli/fuzz_account.h"

namespace attn::cli {

/// Gathers the failures of a fuzz run: one group, one shrunk case and one account for each mistake.
class FuzzFailures {
 public:
  FuzzFailures(const FuzzOptions& options, const FuzzJudge& judge)
      : options_(options), judge_(judge) {}

  /// Counts the failure of a case with those that look like the same mistake, or shrinks it as a
  /// new one. Returns the item of the group's first case.
  std::int64_t add(std::int64_t item, const FuzzResult& seen);
  /// Takes a group, or one more failure of it, from an earlier part of the run.
  void restore(FailureGroup group) { groups_.push_back(std::move(group)); }
  void count_again(std::int64_t item);

  const std::vector<FailureGroup>& groups() const { return groups_; }
  const FailureGroup& group(std::int64_t item) const;

 private:
  FuzzResult confirm(const FuzzResult& failure) const;
  bool belongs(const FuzzResult& failure, const std::vector<std::string>& features,
               const FailureGroup& group) const;
  FuzzResult shrink(const FuzzResult& failure) const;
  std::vector<harness::Likeness> look_up(const FuzzResult& first, const FuzzResult& smallest) const;
  std::optional<FailureGroup::Inside> look_inside(const FailureGroup& group) const;

  const FuzzOptions& options_;
  const FuzzJudge& judge_;
  std::vector<FailureGroup> groups_;
};

}  // namespace attn::cli
