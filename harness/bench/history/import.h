#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "harness/bench/history/parsed.h"

namespace attn::history {

/// What the files do not say; each goes to the runs that have none of it.
struct ImportOptions {
  std::string commit;
  std::string subject;
  std::string date;  ///< UTC, as utc_date writes it
};

struct Imported {
  std::string file;
  std::string sha256;
  std::string source_kind;
  bool is_new = false;  ///< false: the database had it
  std::size_t results = 0;
  std::size_t samples = 0;
  std::size_t scores = 0;
};

/// Reads files of measurements into the database at `path`, which is made when there is none: all
/// of them or, when one is refused, none. `watch` is called before each file with the number done.
/// Throws Error(kInput) for a file or a database that cannot be read.
std::vector<Imported> import_files(const std::string& path, const std::vector<std::string>& files,
                                   const ImportOptions& options,
                                   const std::function<void(std::size_t)>& watch = {});

struct Merged {
  std::size_t added = 0;
  std::size_t known = 0;
};

/// Copies the runs of the databases `from` that the one at `into` (made when there is none) does
/// not have, all or none.
Merged merge_databases(const std::vector<std::string>& from, const std::string& into);

/// Reads one run back as it was imported, with the file's SHA-256.
class Database;
ParsedRun read_run(Database& database, const Run& run);

}  // namespace attn::history
