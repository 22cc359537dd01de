#pragma once

#include <cstddef>
#include <iosfwd>
#include <string>
#include <vector>

#include "harness/report/report.h"

namespace attn::harness {

/// The table that verify and run print: one line a row as it comes, then an account of each row
/// that did not pass, then the tally as the last line.
class ConsoleTable {
 public:
  struct Options {
    bool colour = false;
    bool verbose = false;  ///< every stage's error / bound under each row
    bool allow_unsupported = false;
    std::size_t name_width = 24;
    std::size_t backend_width = 8;
    std::size_t max_blocks = 20;  ///< accounts printed; the JSON report has all of them
  };

  ConsoleTable(std::ostream& out, const Options& options) : out_(out), options_(options) {}

  void header();
  void row(const ReportRow& row);
  /// The accounts and the last line.
  void finish(const Report& report);

 private:
  std::string coloured(const std::string& text, const ReportRow& row) const;
  bool needs_account(const ReportRow& row) const;

  std::ostream& out_;
  Options options_;
};

}  // namespace attn::harness
