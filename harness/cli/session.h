#pragma once

#include <chrono>
#include <iosfwd>
#include <string>
#include <string_view>
#include <vector>

#include "harness/cli/console_io.h"
#include "harness/report/console.h"
#include "harness/report/report.h"

namespace attn::cli {

/// The options that every reporting verb shares.
struct ReportOptions {
  std::string json;   ///< file, "-" for stdout, "" for none
  std::string junit;  ///< likewise
  bool no_colour = false;
  bool verbose = false;
};

/// One invocation: where it writes and how it was called.
struct Session {
  Streams streams;
  std::string command_line;
};

/// A word as a POSIX shell reads it back.
std::string shell_quote(std::string_view word);
std::string join_command_line(const std::vector<std::string>& words);

/// Writes what a verb found: gathers rows, prints the human-readable part where it belongs (stderr
/// when
/// --json - or --junit - claims stdout), and at the end writes the files and says the exit code.
class Reporter {
 public:
  /// Throws Error(kUsage) when a report file could not be written later.
  Reporter(const Session& session, const ReportOptions& options, std::string verb);

  std::ostream& text() const { return *text_; }
  harness::ConsoleTable::Options table_options() const;
  harness::Report& report() { return report_; }
  double seconds() const;

  /// Settles exit code and time, writes --json and --junit. Returns the exit code. Called last, so
  /// that what was found is on the screen even when a report cannot be written.
  int finish();

 private:
  const Session& session_;
  ReportOptions options_;
  std::ostream* text_;
  harness::Report report_;
  std::chrono::steady_clock::time_point start_;
};

/// Writes `text` to a file, or to the session's stdout for "-".
void write_output(const Session& session, const std::string& path, const std::string& text);

/// Throws Error(kUsage) unless `path` is "" or "-" or lies in a folder that can be written to.
void check_writable(const std::string& option, const std::string& path);

}  // namespace attn::cli
