#include "harness/bench/history/schema.h"

#include <cstdint>
#include <filesystem>

#include "reference/core/error.h"

namespace attn::history {
namespace {

using harness::Sqlite;
using harness::Statement;

/// "bhis" in the file's header, so that another program's database is told apart.
constexpr int kApplicationId = 0x62686973;

const char* const kTables = R"(
CREATE TABLE machine (
  id INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE,
  gpu TEXT NOT NULL, gpu_count INTEGER NOT NULL, cpu TEXT NOT NULL, num_cpus INTEGER NOT NULL,
  caches TEXT NOT NULL, host TEXT NOT NULL);
CREATE TABLE run (
  id INTEGER PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, date TEXT NOT NULL,
  git_commit TEXT NOT NULL, subject TEXT NOT NULL,
  machine INTEGER NOT NULL REFERENCES machine(id),
  driver TEXT NOT NULL, cuda TEXT NOT NULL, clocks TEXT NOT NULL, compiler TEXT NOT NULL,
  build_type TEXT NOT NULL, libraries TEXT NOT NULL, program TEXT NOT NULL,
  source_name TEXT NOT NULL, source_kind TEXT NOT NULL);
CREATE INDEX run_date ON run(date);
CREATE TABLE context (
  run INTEGER NOT NULL REFERENCES run(id), name TEXT NOT NULL, value TEXT NOT NULL,
  PRIMARY KEY (run, name)) WITHOUT ROWID;
CREATE TABLE benchmark (
  id INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE,
  program TEXT NOT NULL, name TEXT NOT NULL, backend TEXT NOT NULL, timer TEXT NOT NULL,
  shape TEXT NOT NULL, is_peer INTEGER NOT NULL,
  kind TEXT NOT NULL, batch INTEGER, q_len INTEGER, kv_len INTEGER, heads INTEGER,
  kv_heads INTEGER, head_dim INTEGER, hidden_size INTEGER, dtype TEXT NOT NULL,
  mask TEXT NOT NULL, weights TEXT NOT NULL, page_size INTEGER, threads INTEGER);
CREATE INDEX benchmark_shape ON benchmark(shape);
CREATE TABLE parameter (
  benchmark INTEGER NOT NULL REFERENCES benchmark(id), name TEXT NOT NULL, value TEXT NOT NULL,
  PRIMARY KEY (benchmark, name)) WITHOUT ROWID;
CREATE TABLE result (
  id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES run(id),
  benchmark INTEGER NOT NULL REFERENCES benchmark(id),
  time_unit TEXT NOT NULL, label TEXT NOT NULL, error TEXT NOT NULL,
  samples INTEGER NOT NULL, repetitions INTEGER NOT NULL,
  median_ns REAL, mean_ns REAL, stddev_ns REAL, min_ns REAL, max_ns REAL,
  tflops REAL, gbps REAL, roofline REAL, error_bound REAL, instructions REAL,
  UNIQUE (run, benchmark));
CREATE INDEX result_benchmark ON result(benchmark);
CREATE TABLE metric (
  result INTEGER NOT NULL REFERENCES result(id), name TEXT NOT NULL, value REAL,
  PRIMARY KEY (result, name)) WITHOUT ROWID;
CREATE TABLE sample (
  result INTEGER NOT NULL REFERENCES result(id), repetition INTEGER NOT NULL,
  time_ns REAL, cpu_ns REAL, iterations INTEGER NOT NULL, counters TEXT NOT NULL,
  PRIMARY KEY (result, repetition)) WITHOUT ROWID;
CREATE TABLE score (
  run INTEGER NOT NULL REFERENCES run(id), kind TEXT NOT NULL, name TEXT NOT NULL,
  passed INTEGER, total INTEGER, value REAL,
  PRIMARY KEY (run, kind, name)) WITHOUT ROWID;
)";

std::int64_t number_of(Sqlite& database, const std::string& sql) {
  std::int64_t value = 0;
  Statement statement(database, sql);
  statement.each([&] { value = statement.integer(0); });
  return value;
}

void check_is_ours(Sqlite& database) {
  if (number_of(database, "PRAGMA application_id") != kApplicationId) {
    database.fail("is no database of benchmark runs (attn-compare history import makes one)");
  }
  const std::int64_t version = number_of(database, "PRAGMA user_version");
  if (version != kSchemaVersion) {
    database.fail("has schema version " + std::to_string(version) + "; this program reads " +
                  std::to_string(kSchemaVersion));
  }
}

const std::string& existing(const std::string& path, Sqlite::Mode mode) {
  if (mode == Sqlite::Mode::kRead && !std::filesystem::exists(path)) {
    throw Error(ErrorKind::kInput,
                path + ": no such database; attn-compare history import --db " + path +
                    " FILE... makes one",
                path);
  }
  return path;
}

}  // namespace

const char* table_definitions() { return kTables; }

Store::Store(const std::string& path, Sqlite::Mode mode) : sqlite_(existing(path, mode), mode) {
  try {
    // Another process's import is waited for: it takes seconds.
    sqlite_.run("PRAGMA busy_timeout = 60000");
    if (mode == Sqlite::Mode::kWrite) {
      sqlite_.run("BEGIN IMMEDIATE");
      if (number_of(sqlite_, "SELECT count(*) FROM sqlite_master") == 0) {
        sqlite_.run("PRAGMA application_id = " + std::to_string(kApplicationId) +
                    "; PRAGMA user_version = " + std::to_string(kSchemaVersion) + ";" + kTables);
      }
      sqlite_.run("COMMIT");
    }
    check_is_ours(sqlite_);
  } catch (const Error& error) {
    if (std::string(error.what()).find("not a database") == std::string::npos) throw;
    sqlite_.fail("is no database of benchmark runs (attn-compare history import makes one)");
  }
}

}  // namespace attn::history
