#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "harness/cli/fuzz_judge.h"
#include "harness/faults/dictionary.h"
#include "harness/fuzz/corpus.h"

namespace attn::cli {

/// Failures that look like one mistake.
struct FailureGroup {
  std::int64_t item = 0;  ///< of the case that was the first
  FuzzResult first;
  FuzzResult smallest;                      ///< `first`, shrunk
  bool shrunk = false;                      ///< whether that was tried
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

/// Whether there is an answer that can be compared with others.
bool has_answer(const FuzzResult& result);
/// Whether `features` has all kinds of features ("page_size" of "page_size: 16") that `needed` has.
bool has_kinds(const std::vector<std::string>& features, const std::vector<std::string>& needed);

/// What the screen says of the mistake.
void print_account(std::ostream& out, const FailureGroup& group);

/// The shrunk failure as a case to try first.
harness::CorpusEntry corpus_entry(const FailureGroup& group);

/// All of a group but its count, on one line, and back. Throws Error(kInput).
std::string to_json(const FailureGroup& group);
FailureGroup parse_group(const std::string& json);

/// Groups of several shards, in the order of their first cases; those that look like one mistake
/// are one.
std::vector<FailureGroup> merge_groups(std::vector<FailureGroup> groups);

}  // namespace attn::cli
