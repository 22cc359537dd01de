#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "golden/golden_file.h"
#include "harness/compare/compare.h"
#include "harness/generate/case_spec.h"
#include "harness/generate/space.h"
#include "reference/core/case.h"
#include "reference/core/trace.h"

namespace attn::cli {

/// How run and explain name their case: a golden or TOML file, or a config with a seed.
struct CaseOptions {
  std::string file;    ///< --case
  std::string config;  ///< --config: JSON text or a file's name
  std::optional<std::uint64_t> seed;
  std::uint64_t page_seed = 1;  ///< golden files: of the shuffled page table
};

struct LoadedCase {
  Case c;
  std::string file;               ///< "" when it came from JSON text
  std::optional<Trace> expected;  ///< golden files
  golden::Seal seal = golden::Seal::kSealed;
  std::string words;                      ///< the command-line words that name this case again
  std::optional<harness::CaseSpec> spec;  ///< unless it is a golden file
  std::uint64_t seed = 0;                 ///< of the spec
};

/// Reads a golden file into a shuffled page table. Errors of content become Error(kInput).
LoadedCase load_golden_case(const std::string& path, std::uint64_t page_seed);

/// Throws Error(kUsage) unless exactly one of file and config is given.
LoadedCase load_case(const CaseOptions& options);

/// Whether --config is the JSON itself rather than a file's name.
bool is_json_text(const std::string& config);

/// "all" (every row), "auto" (boundary rows and 64 random ones) or the number of random rows.
harness::RowSelection parse_rows(const std::string& text, std::uint64_t seed);

/// "smoke", "pr" or "nightly". Throws Error(kUsage).
harness::Gate parse_gate(const std::string& name);

}  // namespace attn::cli
