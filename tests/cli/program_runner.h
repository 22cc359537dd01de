#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace attn::test {

struct Outcome {
  int code = -1;  ///< exit code, or 128 + the signal that ended it
  std::string out;
  std::string err;
};

struct How {
  std::vector<std::pair<std::string, std::string>> environment = {};  ///< added to ours
  std::function<bool()> interrupt_when = {};  ///< asked every millisecond; SIGINT once it says yes
  std::function<bool()> kill_when = {};       ///< the same with SIGKILL
};

/// Runs attn-compare with these arguments in the source folder.
Outcome attn_compare(const std::vector<std::string>& args, const How& how = {});

/// Runs a line in the shell with attn-compare on its PATH: what a user does with a repro line.
Outcome shell(const std::string& line);

/// Says yes once `path` has been written `times` times since it was first seen. For kill_when: it
/// depends on what the program has done, not on how fast the machine is.
std::function<bool()> written(const std::filesystem::path& path, int times);

/// Says yes once `path` has so many lines: a journal has one at its head and one for each item.
std::function<bool()> has_lines(const std::filesystem::path& path, std::ptrdiff_t lines);

/// The last line of a text, without its newline.
std::string last_line(const std::string& text);

std::string read_file(const std::filesystem::path& path);
void write_file(const std::filesystem::path& path, const std::string& bytes);

/// A file of data/golden.
std::string golden(const std::string& name);

/// A fresh folder that goes away with the object.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

/// A copy of a golden file with one element of a dataset moved by `relative` of the dataset's
/// largest magnitude, digests made anew: the file is whole but wrong.
void write_damaged_copy(const std::string& from, const std::string& to, const std::string& dataset,
                        double relative);

}  // namespace attn::test
