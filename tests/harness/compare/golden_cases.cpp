#include "tests/harness/compare/golden_cases.h"

#include <algorithm>
#include <filesystem>

#include "reference/reference.h"

namespace attn::harness {
namespace {

const std::filesystem::path kFolder = std::filesystem::path(ATTN_SOURCE_DIR) / "data" / "golden";

GoldenCase load(const std::filesystem::path& path) {
  GoldenCase golden{attn::golden::read(path.string()), {}};
  golden.c = attn::golden::to_case(golden.file, PagingOptions{.seed = 7, .spare_pages = 3});
  return golden;
}

}  // namespace

std::vector<GoldenCase> covered_golden_cases() {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
    if (entry.path().extension() == ".h5") paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<GoldenCase> cases;
  for (const auto& path : paths) {
    GoldenCase golden = load(path);
    if (reference::unsupported_reason(golden.c.config).empty()) cases.push_back(std::move(golden));
  }
  return cases;
}

GoldenCase golden_case(const std::string& id) { return load(kFolder / (id + ".h5")); }

}  // namespace attn::harness
