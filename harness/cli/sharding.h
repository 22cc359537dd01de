#pragma once

#include <memory>
#include <string>
#include <vector>

#include "harness/report/results.h"

namespace attn::cli {

/// How a verb runs a part of its items and keeps what they gave.
struct ShardOptions {
  std::string shard;    ///< "I/N", "" for the whole run
  std::string results;  ///< SQLite file, "" for none
};

/// Throws Error(kUsage).
harness::Shard shard_of(const ShardOptions& options);

/// The result file that the options name, or null. `info` is complete but for version, commit and
/// shard, which are filled in. Throws Error(kUsage) when the file is of another run.
std::unique_ptr<harness::ResultFile> open_results(const ShardOptions& options,
                                                  harness::RunInfo info);

/// What tells one list of items from another, wherever it is.
std::string digest_of(const std::vector<std::string>& names);
/// " (sha256 of the library)" for a spec that names a plug-in, which other machines may have built
/// at another time; "" for ours.
std::string plugin_digest(const std::string& spec);

}  // namespace attn::cli
