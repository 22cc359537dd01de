#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "tests/variants/variants_table.h"

namespace attn::variants {
namespace {

std::string text_of(const std::string& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

const std::vector<Row>& rows() {
  static const std::vector<Row> all = proven_rows();
  return all;
}

TEST(Variants, EveryNameHasAProofThatHolds) {
  ASSERT_GT(rows().size(), 200u);
  for (const Row& row : rows()) EXPECT_EQ(row.failure, "") << row.seed.page << " " << row.seed.name;
}

TEST(Variants, EveryNamedTestRunsAndPasses) {
  std::vector<std::string> tests;
  for (const Row& row : rows()) tests.insert(tests.end(), row.tests.begin(), row.tests.end());
  EXPECT_THAT(missing_tests(tests), testing::IsEmpty());
}

TEST(Variants, ATestThatIsNotThereIsMissing) {
  const std::vector<std::string> tests{"no_such_program.Suite.Name"};
  EXPECT_EQ(missing_tests(tests), tests);
}

/// What has nothing to implement: Python typing, graph building, device placement, and names that
/// the pages list although no version has them.
TEST(Variants, OnlyTheseNamesAreNotApplicable) {
  std::set<std::string> names;
  for (const Row& row : rows()) {
    if (!row.not_applicable.empty()) names.insert(row.seed.name);
  }
  const std::vector<std::string> known = {
      "AttentionWithRope.devices",
      "AttentionWithRope.linear_cls",
      "AttentionWithRopeNoOpaque.devices",
      "AttentionWithRopeNoOpaque.linear_cls",
      "DataParallelAttentionWithRope.linear_cls",
      "GGUFQAttentionWithRope.devices",
      "GGUFQAttentionWithRope.linear_cls",
      "GPTQAttentionWithRope.devices",
      "GPTQAttentionWithRope.float8_config",
      "GPTQAttentionWithRope.linear_cls",
      "GPTQAttentionWithRope.sharding_strategy",
      "MHAMaskVariant.CAUSAL_ALIBI_MASK",
      "TensorParallelAttentionWithRope.__call__().signal_buffers",
      "TensorParallelAttentionWithRope.linear_cls",
  };
  EXPECT_THAT(names, testing::ElementsAreArray(known));
}

TEST(Variants, ThePageIsWhatTheTablePrints) {
  EXPECT_EQ(text_of(ATTN_SOURCE_DIR "/docs/variants.md"), markdown(rows()))
      << "run build/release/bin/write_variants > docs/variants.md";
}

/// The pages themselves lie beside the repository where it is developed: every name in bold type of
/// them, a constructor's argument or a property, must be in data/seed-names.txt.
TEST(Variants, TheSeedPagesHoldNoOtherName) {
  const std::string folder = ATTN_SOURCE_DIR "/../shared/seeds/";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no seed pages at " << folder;
  std::set<std::string> known;
  for (const SeedName& seed : seed_names()) {
    std::istringstream parts(std::regex_replace(seed.name, std::regex(R"(\(\))"), ""));
    for (std::string part; std::getline(parts, part, '.');) known.insert(part);
  }
  const std::regex signature(R"((?:class|property)\s+([\w.]+)\(?([^:)]*)|(\w+)\s\([^)]*\)\s)");
  for (const char* page : {"attention_with_rope-older.txt", "attention_with_rope-newer.txt"}) {
    std::istringstream lines(text_of(folder + page));
    for (std::string line; std::getline(lines, line);) {
      std::smatch found;
      if (!std::regex_search(line, found, signature, std::regex_constants::match_continuous)) {
        continue;
      }
      const std::string path = found[1].matched ? found[1].str() : found[3].str();
      EXPECT_TRUE(known.count(path.substr(path.rfind('.') + 1))) << page << ": " << line;
      const std::regex argument(R"((?:^|, )(_?[a-z]\w*)(?==|,|$))");
      const std::string arguments = found[2].str();
      for (std::sregex_iterator a(arguments.begin(), arguments.end(), argument), end; a != end;
           ++a) {
        EXPECT_TRUE(known.count((*a)[1].str())) << page << ": " << (*a)[1].str();
      }
    }
  }
}

}  // namespace
}  // namespace attn::variants
