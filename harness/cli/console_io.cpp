#include "harness/cli/console_io.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ostream>

#include "harness/report/format.h"

namespace attn::cli {
namespace {

constexpr std::chrono::milliseconds kRedraw{100};
constexpr std::chrono::seconds kMilestone{10};

bool is_set(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

bool dumb_terminal() {
  const char* term = std::getenv("TERM");
  return term != nullptr && std::strcmp(term, "dumb") == 0;
}

}  // namespace

bool wants_colour(bool is_terminal, bool no_colour) {
  if (no_colour || is_set("NO_COLOR")) return false;
  if (is_set("FORCE_COLOR") || is_set("CLICOLOR_FORCE")) return true;
  return is_terminal && !dumb_terminal();
}

Progress::Progress(const Streams& streams, std::int64_t total, std::string unit)
    : err_(streams.err),
      bar_(streams.err_is_terminal && !dumb_terminal()),
      total_(total),
      unit_(std::move(unit)),
      start_(Clock::now()),
      last_(start_) {}

std::string Progress::text(std::int64_t done, std::int64_t not_passed, double seconds) const {
  std::string line = std::to_string(done) + "/" + std::to_string(total_) + " " + unit_ + ", " +
                     std::to_string(not_passed) + " not passed";
  if (done > 0 && seconds > 0) {
    const double each = seconds / static_cast<double>(done);
    line += ", " + harness::format_seconds(each * static_cast<double>(total_ - done)) + " to go";
  }
  return line;
}

void Progress::update(std::int64_t done, std::int64_t not_passed) {
  const Clock::time_point now = Clock::now();
  if (now - last_ < (bar_ ? Clock::duration(kRedraw) : Clock::duration(kMilestone))) return;
  last_ = now;
  const std::string line =
      text(done, not_passed, std::chrono::duration<double>(now - start_).count());
  if (!bar_) {
    err_ << line << std::endl;
    return;
  }
  constexpr std::int64_t kCells = 24;
  const std::int64_t filled = total_ == 0 ? 0 : kCells * done / total_;
  err_ << "\r\033[K[" << std::string(static_cast<std::size_t>(filled), '#')
       << std::string(static_cast<std::size_t>(kCells - filled), '.') << "] " << line << std::flush;
  shown_ = true;
}

void Progress::clear() {
  if (shown_) err_ << "\r\033[K" << std::flush;
  shown_ = false;
}

}  // namespace attn::cli
