#include "harness/report/journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "reference/core/error.h"

namespace attn::harness {
namespace {

using nlohmann::json;
constexpr int kJournalVersion = 1;

std::string first_line(const std::string& identity) {
  return json{{"attn_compare_journal", kJournalVersion}, {"run", identity}}.dump(
             -1, ' ', false, json::error_handler_t::replace) +
         "\n";
}

}  // namespace

Journal::Journal(std::string path, const std::string& identity) : path_(std::move(path)) {
  constexpr mode_t kReadableByAll = 0644;
  file_ = open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, kReadableByAll);
  if (file_ < 0) fail(std::strerror(errno));
  try {
    // The kernel takes the lock from a process that dies.
    if (flock(file_, LOCK_EX | LOCK_NB) != 0) {
      throw Error(ErrorKind::kUsage, path_ + ": another run is writing it; give each its own file",
                  "--resume");
    }
    read_all(identity);
  } catch (...) {
    close(file_);
    throw;
  }
}

Journal::~Journal() { close(file_); }

void Journal::fail(const std::string& what) const {
  throw Error(ErrorKind::kInput, path_ + ": " + what, "--resume");
}

void Journal::read_all(const std::string& identity) {
  std::ostringstream stream;
  stream << std::ifstream(path_, std::ios::binary).rdbuf();
  const std::string text = stream.str();
  const std::size_t last = text.rfind('\n');
  const std::size_t whole = last == std::string::npos ? 0 : last + 1;
  const std::string header = first_line(identity);
  // A file that died in its first line is a prefix of one, and holds nothing.
  if (whole == 0 && !header.starts_with(text)) fail("is no journal of attn-compare");
  if (ftruncate(file_, static_cast<off_t>(whole)) != 0) fail(std::strerror(errno));
  if (whole == 0) return append(header);

  std::istringstream lines(text.substr(0, whole));
  std::string line;
  std::getline(lines, line);
  if (line + "\n" != header) {
    if (!line.starts_with("{\"attn_compare_journal\"")) fail("is no journal of attn-compare");
    throw Error(ErrorKind::kUsage,
                path_ +
                    ": is of a run with other options, another version, or a plug-in that was "
                    "built again since; give this run a new file",
                "--resume");
  }
  while (std::getline(lines, line)) {
    try {
      const json entry = json::parse(line);
      finished_[entry.at("item")] = entry.at("lines").get<Lines>();
    } catch (const json::exception& error) {
      fail(std::string("is damaged: ") + error.what());
    }
  }
}

const Journal::Lines* Journal::find(const std::string& item) const {
  const auto it = finished_.find(item);
  return it == finished_.end() ? nullptr : &it->second;
}

void Journal::add(const std::string& item, const Lines& lines) {
  const json entry{{"item", item}, {"lines", lines}};
  const std::string line = entry.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  const std::scoped_lock lock(mutex_);
  append(line);
}

void Journal::append(const std::string& line) {
  std::size_t written = 0;
  while (written < line.size()) {
    const ssize_t n = write(file_, line.data() + written, line.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(std::strerror(errno));
    written += static_cast<std::size_t>(n);
  }
  if (fsync(file_) != 0) fail(std::strerror(errno));
}

}  // namespace attn::harness
