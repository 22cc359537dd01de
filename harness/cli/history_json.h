#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "harness/bench/history/records.h"
#include "harness/cli/session.h"

namespace attn::cli {

/// What the history verbs share: the text goes to stdout, or to stderr where --json - has that; at
/// the end the JSON is written.
class HistoryReport {
 public:
  HistoryReport(const Session& session, std::string json_path);
  std::ostream& text() const { return *text_; }
  /// Writes `content` with schema_version, tool, verb, command_line and exit_code, when it is
  /// wanted, and returns the exit code.
  int finish(const std::string& verb, nlohmann::json content, int exit_code) const;

 private:
  const Session& session_;
  std::string json_path_;
  std::ostream* text_;
};

nlohmann::json json_of(const history::Run& run);
nlohmann::json json_of(const history::Benchmark& benchmark);

}  // namespace attn::cli
