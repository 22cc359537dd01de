#pragma once

#include <chrono>
#include <cstdint>
#include <iosfwd>
#include <string>

namespace attn::cli {

/// Where a verb writes: results to out, messages and progress to err.
struct Streams {
  std::ostream& out;
  std::ostream& err;
  bool out_is_terminal = false;
  bool err_is_terminal = false;
};

/// Colour on a terminal, unless NO_COLOR is set (to anything) or TERM is dumb; FORCE_COLOR and
/// CLICOLOR_FORCE switch it on for files and pipes. `no_colour` is the option --no-color.
bool wants_colour(bool is_terminal, bool no_colour);

/// How far a long run is, on stderr: one line rewritten on a terminal, else a plain line each ten
/// seconds. Used from one thread.
class Progress {
 public:
  Progress(const Streams& streams, std::int64_t total, std::string unit);
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(std::int64_t done, std::int64_t not_passed);
  /// Takes the line away, before results are printed to the same terminal.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;

  std::string text(std::int64_t done, std::int64_t not_passed, double seconds) const;

  std::ostream& err_;
  bool bar_ = false;
  bool shown_ = false;
  std::int64_t total_ = 0;
  std::string unit_;
  Clock::time_point start_;
  Clock::time_point last_;
};

}  // namespace attn::cli
