#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/backends/exec_mode.h"
#include "harness/generate/case_spec.h"

namespace attn::harness {

/// A case that a backend failed on.
struct CorpusEntry {
  CaseSpec spec;
  std::uint64_t seed = 0;
  ExecMode exec = ExecMode::kPlain;
  std::string backend;  ///< that failed, for readers; the case is tried on any
  std::string stage;    ///< first bad one, "" when it crashed or timed out
  std::string relation;  ///< that was broken, "" when the answer itself was wrong
};

/// The file that an entry is kept in: a digest of spec, seed, mode and relation, so that the same failure is
/// kept once and folders of several machines can be copied together.
std::string corpus_file_name(const CorpusEntry& entry);

/// Every *.json of the folder, by name. An absent folder is empty. Throws Error(kInput) for a file
/// that is no entry.
std::vector<CorpusEntry> load_corpus(const std::string& folder);

/// Writes the entry, making the folder when it is absent. Throws Error(kInput).
void add_to_corpus(const std::string& folder, const CorpusEntry& entry);

}  // namespace attn::harness
