#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "harness/compare/compare.h"

namespace attn::harness {

/// Why a row has no verdict of a comparison.
enum class Trouble {
  kNone,
  kUnreadable,  ///< the input could not be read; verdict.detail says why
  kInternal,    ///< the harness itself broke; verdict.detail says how
};

using PropertyValue = std::variant<std::int64_t, double, std::string>;

/// One judged thing: a case on a backend (verify, run), a dataset (diff), a written file (golden).
/// Every writer prints these rows and nothing else, so that they cannot disagree.
struct ReportRow {
  std::string name;     ///< a case's id, a dataset's path
  std::string file;     ///< the file it came from, "" for none
  std::string backend;  ///< the spec as the user gave it, "" for none
  Trouble trouble = Trouble::kNone;
  Verdict verdict;
  double seconds = 0.0;
  std::string repro;   ///< a command line that shows the same row again
  std::string waiver;  ///< link of the waiver that the case matches, "" for none
  std::vector<std::pair<std::string, PropertyValue>> properties;
};

/// Whether a failure is known and accepted for a while: failed, crashed or timed out under a
/// waiver.
bool is_waived(const ReportRow& row);

/// "passed", "failed", "unsupported", ..., "waived", "unreadable", "internal".
std::string_view outcome(const ReportRow& row);

struct Tally {
  std::int64_t passed = 0;
  std::int64_t failed = 0;
  std::int64_t unsupported = 0;
  std::int64_t skipped = 0;
  std::int64_t mistrusted = 0;
  std::int64_t crashed = 0;
  std::int64_t timed_out = 0;
  std::int64_t waived = 0;
  std::int64_t unreadable = 0;
  std::int64_t internal = 0;

  void add(const ReportRow& row);
};

/// "12 passed, 0 failed", then ", 3 unsupported" and so on for each other outcome that occurred.
std::string to_string(const Tally& tally);

/// Everything one run of a verb has to say.
struct Report {
  std::string verb;
  std::string command_line;
  std::string version;
  std::string commit;
  bool allow_unsupported = false;
  bool is_part = false;  ///< one shard of a run: it may have nothing to do
  bool interrupted = false;
  int exit_code = 0;
  double seconds = 0.0;
  std::vector<ReportRow> rows;

  Tally tally() const;
};

/// The stage that a one-line summary of the verdict names: the first bad one, else the one with the
/// largest error / bound. Null when nothing was compared.
const StageReport* headline_stage(const Verdict& verdict);

}  // namespace attn::harness
