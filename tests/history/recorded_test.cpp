// The GPU runs that the repository records are history that can be imported, and hold what
// docs/benchmarks.md says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "harness/bench/history/import.h"
#include "harness/bench/history/series.h"
#include "tests/history/scratch.h"

namespace attn::history {
namespace {

/// Every file below data/bench, or below the folder that it was before.
std::vector<std::string> recorded_files() {
  std::vector<std::string> files;
  for (const char* const folder : {"/data/bench", "/data/gpu"}) {
    const std::filesystem::path root = std::string(ATTN_SOURCE_DIR) + folder;
    if (!std::filesystem::exists(root)) continue;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
      const std::string extension = entry.path().extension().string();
      if (extension == ".json" || extension == ".csv") files.push_back(entry.path().string());
    }
  }
  std::ranges::sort(files);
  return files;
}

/// What the conformance runs themselves say that they tried.
std::int64_t recorded_cases() {
  std::int64_t cases = 0;
  for (const std::string& file : recorded_files()) {
    if (!file.ends_with("conformance.json")) continue;
    cases += nlohmann::json::parse(std::ifstream(file)).at("cases").get<std::int64_t>();
  }
  return cases;
}

TEST(Recorded, RunsAreImported) {
  const test::Scratch scratch;
  const std::vector<std::string> files = recorded_files();
  ASSERT_GE(files.size(), 3U);
  const std::vector<Imported> imported = import_files(scratch / "db", files, {});
  Database database(scratch / "db");
  EXPECT_EQ(database.runs().size(), files.size());
  for (const Imported& file : imported) {
    EXPECT_TRUE(file.is_new) << file.file;
    EXPECT_GT(file.results + file.scores, 0U) << file.file;
  }
  // Every file of ours has its shapes known, its times, and its peers beside it.
  std::size_t decodes = 0;
  std::size_t peers = 0;
  for (const Series& series : all_series(database)) {
    EXPECT_GT(*series.results.back().median_ns, 0.0) << series.benchmark.name;
    decodes += series.benchmark.kind == "decode" ? 1 : 0;
    peers += series.benchmark.is_peer ? 1 : 0;
  }
  EXPECT_GT(decodes, 5U);
  EXPECT_GT(peers, 5U);
  std::int64_t cases = 0;
  for (const Score& score : database.scores()) {
    if (score.kind == "conformance") {
      cases += *score.total;
      EXPECT_GE(*score.passed, *score.total - 2) << score.name;
    } else if (score.kind == "error_bound") {
      EXPECT_LE(*score.value, 1.0) << score.name;
    }
  }
  EXPECT_EQ(cases, recorded_cases());
}

}  // namespace
}  // namespace attn::history
