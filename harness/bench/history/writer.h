#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "harness/bench/history/parsed.h"
#include "harness/bench/history/schema.h"

namespace attn::history {

/// Adds runs to a database in one transaction, begun by the constructor and ended by commit();
/// without that, and when the process is killed, the database stays as it was. Another process that
/// writes is waited for. Errors are Error(kInput) with the file's name.
class Writer {
 public:
  explicit Writer(Store& store);
  ~Writer();
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  struct Added {
    std::int64_t run = 0;
    bool is_new = false;
  };
  /// A run whose SHA-256 is there already is not added again; commit, subject and date are filled
  /// in where the database has none. Throws Error(kUsage) where it has another commit.
  Added add(const ParsedRun& run);
  void commit();

 private:
  std::int64_t machine_row(const Machine& machine);
  std::int64_t benchmark_row(const Benchmark& benchmark);
  std::int64_t insert_run(const Run& run);
  void insert_result(std::int64_t run, const ParsedResult& parsed);
  void fill_in(std::int64_t id, const Run& run);

  harness::Sqlite& sqlite_;
  bool is_open_ = false;
  std::map<std::string, std::int64_t> benchmarks_;  ///< identity -> row, of those seen here
  harness::Statement context_, result_, metric_, sample_, score_;
};

}  // namespace attn::history
