#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "reference/core/case.h"

namespace attn::harness {

/// kTop: shuffled too, but the highest numbers of a pool that is far larger than needed.
enum class PageOrder { kShuffled, kIdentity, kTop };

/// [cached, new] tokens of one sequence; for entry point attention [queries, keys].
struct RowSpec {
  std::int64_t first = 0;
  std::int64_t second = 0;
  friend bool operator==(const RowSpec&, const RowSpec&) = default;
};

/// What `--config` holds: with a seed it determines every byte of a case.
/// {"config": {...}, "rows": [[cached, new], ...], "pages": "shuffled" | "identity" | "top",
///  "profile": "normal", "layer": 0, "layers": 1, "layout": {...}}; a bare config object gets
///  default rows and pages. A string "source" says where the geometry comes from; it is no part of
///  the case.
struct CaseSpec {
  AttentionConfig config;
  std::vector<RowSpec> rows;
  PageOrder pages = PageOrder::kShuffled;
  std::string profile = "normal";
  bool sinks = false;  ///< draws weights/sinks
  std::int64_t layer = 0;
  std::int64_t layers = 1;
  MemoryLayout layout;  ///< to_json leaves out what is as by default
  friend bool operator==(const CaseSpec&, const CaseSpec&) = default;
};

/// Throws Error(kConfig) when the config breaks a rule, rows are negative or too many, the layer
/// does not exist, the profile is unknown, or a number of the layout is out of range.
void validate(const CaseSpec& spec);

/// Parses and validates JSON text. Throws Error(kConfig); unknown names come with the nearest
/// known.
CaseSpec parse_case_spec(std::string_view json);
/// JSON text or the name of a JSON file. What is wrong in a file is Error(kInput) with its name.
CaseSpec load_case_spec(const std::string& json_or_file);
/// A TOML case file (data/cases/*.toml) with the same keys and an optional `seed`.
struct TomlCase {
  CaseSpec spec;
  std::uint64_t seed = 0;
};
TomlCase load_toml_case(const std::string& path);
/// A JSON list of cases (data/cases/golden_set.json): [{"id": "...", "seed": N, "spec": {...}},
/// ...].
struct NamedCase {
  std::string id;
  CaseSpec spec;
  std::uint64_t seed = 0;
};
std::vector<NamedCase> load_case_list(const std::string& path);
/// Every key on one line; parse_case_spec(to_json(s)) == s.
std::string to_json(const CaseSpec& spec);

/// Makes the case. Deterministic to the byte on any machine and compiler (freqs_cis to 1 ulp).
/// case.repro is "--config '<json>' --seed N". Throws Error(kConfig) for an invalid spec.
Case make_case(const CaseSpec& spec, std::uint64_t seed);

/// Names of the data profiles, with a line each.
struct ProfileInfo {
  std::string name;
  std::string summary;
};
std::vector<ProfileInfo> list_profiles();

/// A random valid spec over every feature the reference supports; same seed, same spec.
/// Small: hidden 64-256, 4 to 32 query rows, up to 64 keys.
CaseSpec random_small_spec(std::uint64_t seed);

}  // namespace attn::harness
