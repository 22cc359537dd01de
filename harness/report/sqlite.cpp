#include "harness/report/sqlite.h"

#include <sqlite3.h>

#include <cmath>
#include <utility>

#include "reference/core/error.h"

namespace attn::harness {

Sqlite::Sqlite(std::string path, Mode mode) : path_(std::move(path)) {
  // A reader may have to roll back what a run that was killed had begun.
  const int flags = SQLITE_OPEN_READWRITE | (mode == Mode::kWrite ? SQLITE_OPEN_CREATE : 0);
  if (sqlite3_open_v2(path_.c_str(), &database_, flags, nullptr) == SQLITE_OK) return;
  const std::string what = database_ != nullptr ? sqlite3_errmsg(database_) : "out of memory";
  sqlite3_close(database_);
  throw Error(ErrorKind::kInput, path_ + ": cannot be opened: " + what, path_);
}

Sqlite::~Sqlite() { sqlite3_close(database_); }

void Sqlite::fail(const std::string& what) const {
  throw Error(ErrorKind::kInput, path_ + ": " + what, path_);
}

void Sqlite::run(const std::string& sql) {
  if (sqlite3_exec(database_, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
    fail(sqlite3_errmsg(database_));
  }
}

std::int64_t Sqlite::last_row() const { return sqlite3_last_insert_rowid(database_); }

Statement::Statement(Sqlite& database, const std::string& sql) : database_(database) {
  check(sqlite3_prepare_v2(database.database_, sql.c_str(), -1, &statement_, nullptr));
}

Statement::~Statement() { sqlite3_finalize(statement_); }

void Statement::check(int code) const {
  if (code == SQLITE_OK || code == SQLITE_ROW || code == SQLITE_DONE) return;
  database_.fail(sqlite3_errmsg(database_.database_));
}

Statement& Statement::bind(std::int64_t value) {
  check(sqlite3_bind_int64(statement_, ++bound_, value));
  return *this;
}

Statement& Statement::bind(double value) {
  // SQLite has no NaN: it stores NULL.
  ++bound_;
  check(std::isnan(value) ? sqlite3_bind_null(statement_, bound_)
                          : sqlite3_bind_double(statement_, bound_, value));
  return *this;
}

Statement& Statement::bind(std::string_view value) {
  // The bytes may go before the statement does, so they are copied.
  check(sqlite3_bind_text(statement_, ++bound_, value.data(), static_cast<int>(value.size()),
                          SQLITE_TRANSIENT));
  return *this;
}

Statement& Statement::bind_null() {
  check(sqlite3_bind_null(statement_, ++bound_));
  return *this;
}

Statement& Statement::bind(std::optional<double> value) {
  return value ? bind(*value) : bind_null();
}

Statement& Statement::bind(std::optional<std::int64_t> value) {
  return value ? bind(*value) : bind_null();
}

void Statement::execute() {
  each([] {});
}

void Statement::each(const std::function<void()>& visit) {
  int code = sqlite3_step(statement_);
  for (; code == SQLITE_ROW; code = sqlite3_step(statement_)) visit();
  check(code);
  check(sqlite3_reset(statement_));
  bound_ = 0;
}

std::int64_t Statement::integer(int column) const {
  return sqlite3_column_int64(statement_, column);
}

double Statement::real(int column) const { return sqlite3_column_double(statement_, column); }

bool Statement::is_null(int column) const {
  return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

std::string Statement::text(int column) const {
  const auto* const bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  if (bytes == nullptr) return "";
  return {bytes, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column))};
}

}  // namespace attn::harness
