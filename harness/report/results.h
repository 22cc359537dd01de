#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "harness/report/report.h"
#include "harness/report/shard.h"

namespace attn::harness {

/// The version of the tables below; it grows when one changes meaning.
inline constexpr int kResultsSchemaVersion = 1;

/// What a result file says of the run that it is a part of. All shards of a run agree in everything
/// but command_line and shard.
struct RunInfo {
  std::string verb;
  std::string version;
  std::string commit;
  std::string options;  ///< every option that the results depend on, as words
  std::string
      items_digest;        ///< of the names of all items in their order, "" where they have no end
  std::int64_t items = 0;  ///< of the whole run; -1: no end, the run stops by the clock
  bool allow_unsupported = false;
  std::string waivers;  ///< text of the file of waivers, "" for none
  std::string command_line;
  Shard shard;
};

/// What one item gave: its rows, and a line for whoever wrote it.
struct ItemResult {
  std::vector<ReportRow> rows;
  std::string note;
};

/// The results of one shard in a SQLite file: tables run, item, row and stage (docs/cli.md). Each
/// item is one transaction, so that a run that is killed leaves what it had finished. The same run
/// goes on there.
class ResultFile {
 public:
  /// Makes `path`, or goes on with it. Throws Error(kUsage) when it is of another run or another
  /// process writes it, Error(kInput) when it is no result file.
  ResultFile(std::string path, const RunInfo& info);
  ~ResultFile();
  ResultFile(const ResultFile&) = delete;
  ResultFile& operator=(const ResultFile&) = delete;

  /// Items that the file had when it was opened.
  std::size_t size() const { return finished_.size(); }
  /// Null when the item was not finished. Stays valid.
  const ItemResult* find(std::int64_t item) const;
  /// Safe to call from several threads. Throws Error(kInput) when the disk is full.
  void add(std::int64_t item, const std::string& name, const ItemResult& result);
  /// The shard has done all of its items.
  void finish(int exit_code, double seconds);

 private:
  struct Database;
  std::unique_ptr<Database> database_;
  std::map<std::int64_t, ItemResult> finished_;
};

/// A result file read back.
struct ShardResults {
  std::string path;
  RunInfo info;
  bool finished = false;
  double seconds = 0.0;
  std::map<std::int64_t, ItemResult> items;
};

/// Throws Error(kInput).
ShardResults read_results(const std::string& path);

/// The shards as the run that they are parts of, rows in the order of the whole run. Throws
/// Error(kUsage), one clear line, unless they are all shards of one run, each once and finished.
Report merge_results(const std::vector<ShardResults>& shards);

}  // namespace attn::harness
