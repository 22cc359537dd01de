#include "harness/report/results.h"

#include <mutex>
#include <utility>

#include "harness/report/sqlite.h"
#include "harness/report/writers.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

/// "attn" in the file's header, so that another program's database is told apart.
constexpr int kApplicationId = 0x6174746e;

const char* const kTables = R"(
CREATE TABLE run (
  verb TEXT NOT NULL, version TEXT NOT NULL, git_commit TEXT NOT NULL, options TEXT NOT NULL,
  items_digest TEXT NOT NULL, items INTEGER NOT NULL, allow_unsupported INTEGER NOT NULL,
  waivers TEXT NOT NULL, command_line TEXT NOT NULL,
  shard INTEGER NOT NULL, shards INTEGER NOT NULL,
  finished INTEGER NOT NULL, exit_code INTEGER NOT NULL, seconds REAL NOT NULL);
CREATE TABLE item (
  item INTEGER PRIMARY KEY, name TEXT NOT NULL, note TEXT NOT NULL);
CREATE TABLE row (
  id INTEGER PRIMARY KEY, item INTEGER NOT NULL REFERENCES item(item), place INTEGER NOT NULL,
  name TEXT NOT NULL, backend TEXT NOT NULL, status TEXT NOT NULL, first_bad_stage TEXT,
  worst_stage TEXT, worst_ratio REAL, detail TEXT NOT NULL, seconds REAL NOT NULL,
  repro TEXT NOT NULL, json TEXT NOT NULL);
CREATE TABLE stage (
  row INTEGER NOT NULL REFERENCES row(id), stage TEXT NOT NULL, elements INTEGER NOT NULL,
  bad INTEGER NOT NULL, worst_ratio REAL, worst_where TEXT NOT NULL, got REAL, want REAL,
  bound REAL);
CREATE INDEX row_item ON row(item);
CREATE INDEX stage_row ON stage(row);
)";

/// Errors of result files as such, not of their contents.
[[noreturn]] void refuse(const std::string& path, const std::string& what) {
  throw Error(ErrorKind::kUsage, path + ": " + what, "--results");
}

std::int64_t number_of(Sqlite& database, const std::string& sql) {
  std::int64_t value = 0;
  Statement statement(database, sql);
  statement.each([&] { value = statement.integer(0); });
  return value;
}

void check_is_ours(Sqlite& database) {
  if (number_of(database, "PRAGMA application_id") != kApplicationId) {
    database.fail("is no result file of attn-compare");
  }
  const std::int64_t version = number_of(database, "PRAGMA user_version");
  if (version != kResultsSchemaVersion) {
    database.fail("has schema version " + std::to_string(version) + "; this program reads " +
                  std::to_string(kResultsSchemaVersion));
  }
}

void write_run(Sqlite& database, const RunInfo& info) {
  Statement(database, "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0)")
      .bind(info.verb)
      .bind(info.version)
      .bind(info.commit)
      .bind(info.options)
      .bind(info.items_digest)
      .bind(info.items)
      .bind(std::int64_t{info.allow_unsupported})
      .bind(info.waivers)
      .bind(info.command_line)
      .bind(info.shard.index)
      .bind(info.shard.count)
      .execute();
}

RunInfo read_run(Sqlite& database, ShardResults& results) {
  RunInfo info;
  bool found = false;
  Statement run(database,
                "SELECT verb, version, git_commit, options, items_digest, items, "
                "allow_unsupported, waivers, command_line, shard, shards, finished, seconds "
                "FROM run");
  run.each([&] {
    found = true;
    info.verb = run.text(0);
    info.version = run.text(1);
    info.commit = run.text(2);
    info.options = run.text(3);
    info.items_digest = run.text(4);
    info.items = run.integer(5);
    info.allow_unsupported = run.integer(6) != 0;
    info.waivers = run.text(7);
    info.command_line = run.text(8);
    info.shard = {run.integer(9), run.integer(10)};
    results.finished = run.integer(11) != 0;
    results.seconds = run.real(12);
  });
  if (!found) database.fail("holds no run");
  return info;
}

std::map<std::int64_t, ItemResult> read_items(Sqlite& database) {
  std::map<std::int64_t, ItemResult> items;
  Statement item(database, "SELECT item, note FROM item");
  item.each([&] { items[item.integer(0)].note = item.text(1); });
  Statement row(database, "SELECT item, json FROM row ORDER BY item, place");
  row.each([&] { items[row.integer(0)].rows.push_back(parse_json_row(row.text(1))); });
  return items;
}

/// What two runs differ in, "" when they are parts of one.
std::string difference(const RunInfo& a, const RunInfo& b) {
  const auto differ = [](const std::string& what, const std::string& one,
                         const std::string& other) {
    return one == other ? std::string() : what + " \"" + one + "\" and \"" + other + "\"";
  };
  for (const std::string& found :
       {differ("verbs", a.verb, b.verb), differ("versions", a.version, b.version),
        differ("commits", a.commit, b.commit), differ("options", a.options, b.options),
        differ("numbers of items", std::to_string(a.items), std::to_string(b.items)),
        differ("numbers of shards", std::to_string(a.shard.count),
               std::to_string(b.shard.count))}) {
    if (!found.empty()) return found;
  }
  if (a.items_digest != b.items_digest) return "other items, as many";
  if (a.waivers != b.waivers) return "other waivers";
  if (a.allow_unsupported != b.allow_unsupported) return "--allow-unsupported in one of them";
  return "";
}

void insert_stages(Sqlite& database, std::int64_t row, const Verdict& verdict) {
  Statement statement(database, "INSERT INTO stage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)");
  for (const StageReport& stage : verdict.stages) {
    statement.bind(row)
        .bind(name_of(stage.stage))
        .bind(stage.elements)
        .bind(stage.bad)
        .bind(stage.worst_ratio)
        .bind(std::string_view(stage.worst_where))
        .bind(stage.got)
        .bind(stage.want)
        .bind(stage.bound)
        .execute();
  }
}

void insert_row(Sqlite& database, std::int64_t item, std::int64_t place, const ReportRow& row) {
  const StageReport* const worst = headline_stage(row.verdict);
  Statement(database, "INSERT INTO row VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
      .bind(item)
      .bind(place)
      .bind(std::string_view(row.name))
      .bind(std::string_view(row.backend))
      .bind(outcome(row))
      .bind(row.verdict.first_bad ? name_of(*row.verdict.first_bad) : std::string_view())
      .bind(worst != nullptr ? name_of(worst->stage) : std::string_view())
      .bind(worst != nullptr ? worst->worst_ratio : 0.0)
      .bind(std::string_view(row.verdict.detail))
      .bind(row.seconds)
      .bind(std::string_view(row.repro))
      .bind(std::string_view(to_json_line(row)))
      .execute();
  insert_stages(database, database.last_row(), row.verdict);
}

}  // namespace

struct ResultFile::Database {
  explicit Database(std::string path) : sqlite(std::move(path), Sqlite::Mode::kWrite) {}
  Sqlite sqlite;
  std::mutex mutex;
};

ResultFile::ResultFile(std::string path, const RunInfo& info)
    : database_(std::make_unique<Database>(std::move(path))) {
  Sqlite& database = database_->sqlite;
  try {
    // One process has the file to the end; what another one wants to write fails at once.
    database.run("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT");
  } catch (const Error& error) {
    const std::string what = error.what();
    if (what.ends_with("is locked")) refuse(database.path(), "another run is writing it");
    database.fail("is no result file of attn-compare");
  }
  if (number_of(database, "SELECT count(*) FROM sqlite_master") == 0) {
    database.run("BEGIN; PRAGMA application_id = " + std::to_string(kApplicationId) +
                 "; PRAGMA user_version = " + std::to_string(kResultsSchemaVersion) + ";" +
                 kTables);
    write_run(database, info);
    database.run("COMMIT");
    return;
  }
  check_is_ours(database);
  ShardResults before;
  const RunInfo old = read_run(database, before);
  std::string other = difference(old, info);
  if (other.empty() && old.shard != info.shard) {
    other = "shards " + to_string(old.shard) + " and " + to_string(info.shard);
  }
  if (!other.empty())
    refuse(database.path(), "is of another run: " + other + "; give this run a new file");
  finished_ = read_items(database);
}

ResultFile::~ResultFile() = default;

const ItemResult* ResultFile::find(std::int64_t item) const {
  const auto it = finished_.find(item);
  return it == finished_.end() ? nullptr : &it->second;
}

void ResultFile::add(std::int64_t item, const std::string& name, const ItemResult& result) {
  const std::scoped_lock lock(database_->mutex);
  Sqlite& database = database_->sqlite;
  database.run("BEGIN");
  try {
    Statement(database, "INSERT INTO item VALUES (?, ?, ?)")
        .bind(item)
        .bind(std::string_view(name))
        .bind(std::string_view(result.note))
        .execute();
    std::int64_t place = 0;
    for (const ReportRow& row : result.rows) insert_row(database, item, place++, row);
    database.run("COMMIT");
  } catch (...) {
    database.run("ROLLBACK");
    throw;
  }
}

void ResultFile::finish(int exit_code, double seconds) {
  const std::scoped_lock lock(database_->mutex);
  Statement(database_->sqlite, "UPDATE run SET finished = 1, exit_code = ?, seconds = ?")
      .bind(std::int64_t{exit_code})
      .bind(seconds)
      .execute();
}

ShardResults read_results(const std::string& path) {
  Sqlite database(path, Sqlite::Mode::kRead);
  ShardResults results;
  results.path = path;
  try {
    check_is_ours(database);
  } catch (const Error& error) {
    if (std::string(error.what()).find("not a database") == std::string::npos) throw;
    database.fail("is no result file of attn-compare");
  }
  results.info = read_run(database, results);
  results.items = read_items(database);
  return results;
}

namespace {

void check_shards(const std::vector<ShardResults>& shards) {
  if (shards.empty()) throw Error(ErrorKind::kUsage, "no result file was named");
  const ShardResults& first = shards.front();
  std::map<std::int64_t, std::string> seen;
  for (const ShardResults& shard : shards) {
    const std::string other = difference(first.info, shard.info);
    if (!other.empty()) {
      refuse(shard.path, "is of another run than " + first.path + ": " + other);
    }
    const auto [it, is_new] = seen.emplace(shard.info.shard.index, shard.path);
    if (!is_new) {
      refuse(shard.path, "is shard " + to_string(shard.info.shard) + ", and " + it->second +
                             " is too; name each shard once");
    }
    if (!shard.finished) {
      refuse(shard.path, "shard " + to_string(shard.info.shard) + " did not finish, " +
                             std::to_string(shard.items.size()) +
                             " items are done; run the same command again");
    }
  }
  for (std::int64_t i = 1; i <= first.info.shard.count; ++i) {
    if (seen.count(i) > 0) continue;
    refuse(first.path, "shard " + to_string(Shard{i, first.info.shard.count}) +
                           " of this run is missing; name its file too");
  }
}

}  // namespace

Report merge_results(const std::vector<ShardResults>& shards) {
  check_shards(shards);
  const RunInfo& info = shards.front().info;
  Report report;
  report.verb = info.verb;
  report.version = info.version;
  report.commit = info.commit;
  report.allow_unsupported = info.allow_unsupported;
  std::map<std::int64_t, const ItemResult*> items;
  for (const ShardResults& shard : shards) {
    report.seconds += shard.seconds;
    for (const auto& [item, result] : shard.items) {
      if (!shard.info.shard.owns(item)) {
        refuse(shard.path, "holds item " + std::to_string(item) + ", which is not of its shard");
      }
      items[item] = &result;
    }
  }
  if (info.items >= 0 && std::ssize(items) != info.items) {
    refuse(shards.front().path, "the shards hold " + std::to_string(items.size()) + " items of " +
                                    std::to_string(info.items));
  }
  for (const auto& [item, result] : items) {
    report.rows.insert(report.rows.end(), result->rows.begin(), result->rows.end());
  }
  return report;
}

}  // namespace attn::harness
