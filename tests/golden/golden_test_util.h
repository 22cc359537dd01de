#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "golden/golden_file.h"
#include "reference/core/error.h"

namespace attn::golden {

/// Golden files of a folder of the repository, sorted.
inline std::vector<std::string> files_in(const std::string& folder) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(ATTN_SOURCE_DIR + folder)) {
    if (entry.path().extension() == ".h5") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

inline std::vector<std::string> all_vectors() {
  return files_in("/data/golden");
}

/// A folder of its own, removed at the end of the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "golden-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::vector<std::string> list() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  std::filesystem::path path_;
};

inline std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void put_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// The message of the refusal, "" when `action` was not refused. It is one line that names the
/// file.
template <typename Action>
std::string refusal(const std::string& path, ErrorKind kind, Action action) {
  try {
    action();
    ADD_FAILURE() << path << " was accepted";
    return "";
  } catch (const Error& error) {
    std::string message = error.what();
    EXPECT_EQ(error.kind(), kind) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_NE(message.find(path), std::string::npos) << message;
    return message;
  }
}

inline std::string read_refusal(const std::string& path) {
  return refusal(path, ErrorKind::kInput, [&] { read(path); });
}

/// A case with its expected stages, as read from a file of data/golden.
inline GoldenFile sealed_copy(const std::string& name) {
  const GoldenFile file = read(ATTN_SOURCE_DIR + ("/data/golden/" + name));
  const Case c = to_case(file, {});
  return make(c, expected(file, c), {});
}

}  // namespace attn::golden
