#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

namespace {

/// Quoted includes of a source text, and bracketed ones that name a file with a folder or an
/// extension: those are not the standard library's.
std::vector<std::string> project_includes(const std::string& text) {
  static const std::regex kInclude(
      R"re((?:^|\n)[ \t]*#[ \t]*include[ \t]*("[^"\n]*"|<[^>\n]*>))re");
  std::vector<std::string> found;
  for (std::sregex_iterator it(text.begin(), text.end(), kInclude), end; it != end; ++it) {
    const std::string word = (*it)[1];
    const std::string name = word.substr(1, word.size() - 2);
    if (word[0] == '"' || name.find_first_of("/.") != std::string::npos) found.push_back(name);
  }
  return found;
}

/// What makes the cpu backend an implementation of its own: it may use the types of reference/core
/// and the interface it fulfils, and nothing else of the project or of other libraries.
bool is_allowed(const std::string& include) {
  return include.starts_with("reference/core/") || include.starts_with("harness/backends/cpu/") ||
         include == "harness/backends/backend.h" || include == "harness/compare/arithmetic.h";
}

std::vector<std::string> forbidden_includes(const std::string& text) {
  std::vector<std::string> forbidden;
  for (const std::string& include : project_includes(text)) {
    if (!is_allowed(include) || include.find("..") != std::string::npos) {
      forbidden.push_back(include);
    }
  }
  return forbidden;
}

TEST(CpuIncludes, EveryFileKeepsToTheCore) {
  const std::filesystem::path folder =
      std::filesystem::path(ATTN_SOURCE_DIR) / "harness" / "backends" / "cpu";
  int files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream stream(entry.path());
    std::stringstream text;
    text << stream.rdbuf();
    EXPECT_EQ(forbidden_includes(text.str()), std::vector<std::string>{}) << entry.path();
    ++files;
  }
  EXPECT_GE(files, 10) << "the scan did not find the backend's sources in " << folder;
}

TEST(CpuIncludes, TheScanSeesWhatIsForbidden) {
  EXPECT_EQ(forbidden_includes("#include \"reference/stages/rope.h\"\n"),
            std::vector<std::string>{"reference/stages/rope.h"});
  EXPECT_EQ(forbidden_includes("int a;\n  #  include <Eigen/Core>\n"),
            std::vector<std::string>{"Eigen/Core"});
  EXPECT_EQ(forbidden_includes("#include \"reference/core/../reference.h\"\n"),
            std::vector<std::string>{"reference/core/../reference.h"});
  EXPECT_EQ(forbidden_includes("#include <hdf5.h>\n#include <cmath>\n"),
            std::vector<std::string>{"hdf5.h"});
  EXPECT_EQ(forbidden_includes("#include \"reference/core/case.h\"\n#include <vector>\n"),
            std::vector<std::string>{});
}

}  // namespace
