#include "golden/golden_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
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

}  // namespace
}  // namespace attn::golden
