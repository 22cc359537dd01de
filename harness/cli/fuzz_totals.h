#pragma once

#include <cstdint>
#include <iosfwd>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "harness/cli/fuzz_account.h"
#include "harness/generate/space.h"
#include "harness/report/report.h"

namespace attn::cli {

/// What one case of a fuzz run gave, as it is kept and merged: its row, and a note.
struct FuzzNote {
  std::vector<harness::Point> points;  ///< of the cases that were judged
  std::string account;                 ///< to_json of the failure group that it is the first of
  std::optional<std::int64_t> like;    ///< a failure: the item of the first of its group
};
std::string to_json(const FuzzNote& note);
/// Throws Error(kInput).
FuzzNote parse_note(const std::string& json);

/// The cases of a fuzz run, or of all its shards, counted.
class FuzzTotals {
 public:
  void add(const harness::ReportRow& row, const FuzzNote& note);

  /// How many cases of which origin, pairs, relations, and what was unsupported.
  void print(std::ostream& out, const std::string& backend) const;
  /// The share of legal pairs of features that were judged.
  harness::Coverage coverage() const;
  static std::string coverage_line(const harness::Coverage& coverage);

 private:
  std::int64_t cases_ = 0;
  std::map<std::string, std::int64_t> origins_;
  std::map<std::string, std::int64_t> pairs_;        ///< by what was degenerate
  std::map<std::string, std::int64_t> unsupported_;  ///< by reason
  std::int64_t fitted_ = 0;                          ///< without what the backend does not support
  std::int64_t related_ = 0;                         ///< cases put through relations
  std::int64_t relation_checks_ = 0;
  std::vector<harness::Point> points_;
};

}  // namespace attn::cli
