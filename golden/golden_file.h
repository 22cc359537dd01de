#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "reference/core/case.h"
#include "reference/core/paging.h"
#include "reference/core/trace.h"

namespace attn::golden {

inline constexpr std::int64_t kFormatVersion = 1;

/// Whether the file's digests were there and right. A wrong digest never gets this far: read()
/// refuses.
enum class Seal { kSealed, kUnsealed };

/// One golden file in memory: docs/golden-format.md. Caches are dense, in logical order.
struct GoldenFile {
  std::string path;
  std::string case_id;
  std::string config_json;  ///< the attribute's text, byte for byte
  std::string provenance_json;
  Seal seal = Seal::kUnsealed;
  std::string content_sha256;  ///< "" when unsealed
  std::map<std::string, Tensor>
      datasets;  ///< by path without leading slash: "inputs/x", "expected/out"

  AttentionConfig config() const;
  bool has(const std::string& dataset) const { return datasets.count(dataset) != 0; }
};

/// Reads a file. Hostile input is safe: sizes are checked against the file's length before anything
/// is allocated, external links and storage are refused. Throws Error(kInput), one line naming file
/// and dataset, for anything unreadable, malformed, tampered with or of a newer format version.
GoldenFile read(const std::string& path);

/// True when the file starts with HDF5's signature.
bool is_hdf5(const std::string& path);

/// The case, its dense cache laid into pages as `options` says. Throws Error(kConfig or kInput)
/// naming the file and dataset when tensors are missing, misshapen or break a rule.
Case to_case(const GoldenFile& file, const PagingOptions& options);

/// expected/* as a Trace of float64 tensors in stage_shape's shapes.
Trace expected(const GoldenFile& file, const Case& c);

struct WriteOptions {
  bool force = false;        ///< overwrite
  std::string command_line;  ///< for the provenance
  std::string generator = "attn-compare";
  std::string precision = "float64";
  std::uint64_t seed = 0;
  /// More of the provenance, by key: where imported tensors came from and what was left out.
  std::map<std::string, std::string> more;
};

/// Builds the file of a case: dense caches read back from its pages, expected/<stage> float64 for
/// every stage in `expected`, provenance (version, commit, compiler and flags, library versions,
/// CPU, command line, semantics version, date from SOURCE_DATE_EPOCH when set). Its seal is
/// kSealed; set kUnsealed where no second evaluation has agreed.
GoldenFile make(const Case& c, const Trace& expected, const WriteOptions& options);

/// Writes atomically (temporary file beside it, fsync, re-read and check, rename, fsync of the
/// folder). A kSealed file gets a sha256 per dataset and content_sha256, computed here; a kUnsealed
/// one gets none. An empty case_id becomes the file's name. Refuses to overwrite without force.
/// Same bytes for the same content. Throws Error(kUsage) or Error(kInput).
void write(const GoldenFile& file, const std::string& path, bool force);

/// Recomputes the digests: {path, sha256hex} and the content digest.
std::string dataset_sha256(const Tensor& tensor);
std::string content_sha256(const GoldenFile& file);

}  // namespace attn::golden
