#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

struct sqlite3;
struct sqlite3_stmt;

namespace attn::harness {

/// One SQLite database. Every error is an Error(kInput) with the file's name. One thread at a time.
class Sqlite {
 public:
  enum class Mode { kRead, kWrite };
  Sqlite(std::string path, Mode mode);
  ~Sqlite();
  Sqlite(const Sqlite&) = delete;
  Sqlite& operator=(const Sqlite&) = delete;

  const std::string& path() const { return path_; }
  /// Statements without values.
  void run(const std::string& sql);
  std::int64_t last_row() const;
  [[noreturn]] void fail(const std::string& what) const;

 private:
  friend class Statement;
  std::string path_;
  sqlite3* database_ = nullptr;
};

/// One prepared statement: values for its question marks in order, then execute() or each().
class Statement {
 public:
  Statement(Sqlite& database, const std::string& sql);
  ~Statement();
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& bind(std::int64_t value);
  Statement& bind(double value);
  Statement& bind(std::string_view value);
  /// NULL for what is absent.
  Statement& bind(std::optional<double> value);
  Statement& bind(std::optional<std::int64_t> value);
  Statement& bind_null();
  void execute();
  /// Calls visit for each row of the result.
  void each(const std::function<void()>& visit);
  std::int64_t integer(int column) const;
  double real(int column) const;
  std::string text(int column) const;
  bool is_null(int column) const;

 private:
  void check(int code) const;

  Sqlite& database_;
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
};

}  // namespace attn::harness
