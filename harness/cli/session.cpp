#include "harness/cli/session.h"

#include <unistd.h>

#include <filesystem>
#include <ostream>

#include "harness/cli/build_info.h"
#include "harness/cli/exit_code.h"
#include "harness/cli/interrupt.h"
#include "harness/report/writers.h"
#include "reference/core/error.h"

namespace attn::cli {

std::string shell_quote(std::string_view word) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=:,+@%";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string_view::npos) {
    return std::string(word);
  }
  std::string quoted = "'";
  for (const char c : word) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted += c;
    }
  }
  return quoted + "'";
}

std::string join_command_line(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) {
    if (!line.empty()) line += ' ';
    line += shell_quote(word);
  }
  return line;
}

void check_writable(const std::string& option, const std::string& path) {
  if (path.empty() || path == "-") return;
  const std::filesystem::path folder = std::filesystem::absolute(path).parent_path();
  if (::access(folder.c_str(), W_OK | X_OK) != 0 || std::filesystem::is_directory(path)) {
    throw Error(ErrorKind::kUsage,
                option + " " + path +
                    ": cannot be written; name a file in a folder that exists and "
                    "can be written to",
                option);
  }
}

void write_output(const Session& session, const std::string& path, const std::string& text) {
  if (path == "-") {
    session.streams.out << text << std::flush;
  } else if (!path.empty()) {
    harness::write_text_file(path, text);
  }
}

Reporter::Reporter(const Session& session, const ReportOptions& options, std::string verb)
    : session_(session), options_(options), start_(std::chrono::steady_clock::now()) {
  if (options.json == "-" && options.junit == "-") {
    throw Error(ErrorKind::kUsage, "--json - and --junit - both want stdout; give one a file name");
  }
  check_writable("--json", options.json);
  check_writable("--junit", options.junit);
  const bool stdout_taken = options.json == "-" || options.junit == "-";
  text_ = stdout_taken ? &session.streams.err : &session.streams.out;
  report_.verb = std::move(verb);
  report_.command_line = session.command_line;
  report_.version = version();
  report_.commit = commit();
}

harness::ConsoleTable::Options Reporter::table_options() const {
  harness::ConsoleTable::Options options;
  const bool to_stdout = text_ == &session_.streams.out;
  options.colour =
      wants_colour(to_stdout ? session_.streams.out_is_terminal : session_.streams.err_is_terminal,
                   options_.no_colour);
  options.verbose = options_.verbose;
  options.allow_unsupported = report_.allow_unsupported;
  return options;
}

double Reporter::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

int Reporter::finish() {
  report_.interrupted = interrupted();
  report_.seconds = seconds();
  report_.exit_code = exit_code(report_);
  if (!options_.json.empty()) write_output(session_, options_.json, harness::to_json(report_));
  if (!options_.junit.empty()) write_output(session_, options_.junit, harness::to_junit(report_));
  return report_.exit_code;
}

}  // namespace attn::cli
