#include "golden/golden_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "reference/core/error.h"

namespace attn::golden {
namespace {

const std::string kSource = ATTN_SOURCE_DIR;

std::vector<std::string> vectors() {
  std::vector<std::string> files;
  for (const char* folder : {"/data/golden", "/tests/data/unsupported"}) {
    for (const auto& entry : std::filesystem::directory_iterator(kSource + folder)) {
      if (entry.path().extension() == ".h5") files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

/// A folder of this process, removed at the end of the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "golden-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::vector<std::string> list() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }

 private:
  std::filesystem::path path_;
};

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> names(const GoldenFile& file) {
  std::vector<std::string> out;
  for (const auto& [name, tensor] : file.datasets) out.push_back(name);
  return out;
}

TEST(Read, EveryVector) {
  EXPECT_GE(vectors().size(), 74U);
  for (const std::string& path : vectors()) {
    SCOPED_TRACE(path);
    const GoldenFile file = read(path);
    const Case c = to_case(file, {});
    const Trace stages = expected(file, c);
    const auto count = std::count_if(all_stages().begin(), all_stages().end(),
                                     [&](Stage stage) { return stages.has(stage); });
    EXPECT_GE(count, 2);
    EXPECT_EQ(c.id, std::filesystem::path(path).stem());
  }
}

TEST(Write, SameBytesAsBeforeAndSameContentForEveryVector) {
  const TemporaryFolder folder;
  for (const std::string& path : vectors()) {
    SCOPED_TRACE(path);
    const GoldenFile file = read(path);
    const Case c = to_case(file, {});
    GoldenFile made = make(c, expected(file, c), {});
    // What make() keeps is what the case needs: everything the vectors hold.
    EXPECT_EQ(names(made), names(file));
    EXPECT_EQ(made.datasets, file.datasets);
    write(made, folder / "one.h5", true);
    write(made, folder / "two.h5", true);
    EXPECT_EQ(bytes_of(folder / "one.h5"), bytes_of(folder / "two.h5"));
    const GoldenFile again = read(folder / "one.h5");
    EXPECT_EQ(again.datasets, file.datasets);
    EXPECT_EQ(again.config_json, to_json(c.config));
    EXPECT_EQ(again.seal, Seal::kSealed);
    EXPECT_EQ(again.content_sha256, made.content_sha256);
  }
}

}  // namespace
}  // namespace attn::golden
