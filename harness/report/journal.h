#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace attn::harness {

/// The finished items of a run, on disk: one line of JSON each, appended and synced before add()
/// returns, so that a run that was killed goes on where it was. A line that was being written when
/// the run died is dropped. One run at a time has the file.
class Journal {
 public:
  /// What belongs to one item, in the order in which it was added.
  using Lines = std::vector<std::string>;

  /// Reads `path`, or makes it. `identity` names everything that the results depend on; a journal
  /// of another run is refused with Error(kUsage), what is no journal with Error(kInput).
  Journal(std::string path, const std::string& identity);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  /// Items that the file had when it was opened.
  std::size_t size() const { return finished_.size(); }
  /// Null when the item was not finished. Stays valid.
  const Lines* find(const std::string& item) const;
  /// `lines` are free of line breaks. Safe to call from several threads. Throws Error(kInput) when
  /// the disk is full.
  void add(const std::string& item, const Lines& lines);

 private:
  [[noreturn]] void fail(const std::string& what) const;
  void read_all(const std::string& identity);
  void append(const std::string& line);

  std::string path_;
  int file_ = -1;
  std::map<std::string, Lines> finished_;
  std::mutex mutex_;
};

}  // namespace attn::harness
