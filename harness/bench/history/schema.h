#pragma once

#include <string>

#include "harness/report/sqlite.h"

namespace attn::history {

/// Grows when a table or a column is renamed, removed or changes meaning.
inline constexpr int kSchemaVersion = 1;

/// Opens a database of benchmark runs; with kWrite makes one where there is none. docs/history.md
/// says what the columns mean. Throws Error(kInput) with the file's name for a file that is no such
/// database, is of another version or is damaged.
class Store {
 public:
  Store(const std::string& path, harness::Sqlite::Mode mode);
  harness::Sqlite& sqlite() { return sqlite_; }

 private:
  harness::Sqlite sqlite_;
};

/// The CREATE statements.
const char* table_definitions();

}  // namespace attn::history
