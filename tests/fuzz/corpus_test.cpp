#include "harness/fuzz/corpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "harness/fuzz/case_source.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

class Corpus : public ::testing::Test {
 protected:
  Corpus() { std::filesystem::remove_all(folder_); }
  ~Corpus() override { std::filesystem::remove_all(folder_); }

  static CorpusEntry entry(std::int64_t n) {
    const PlannedCase planned = random_case({}, n);
    return {planned.spec, planned.seed, ExecMode::kSecondCall, "./kernel.so", "lse", ""};
  }

  const std::string folder_ = ::testing::TempDir() + "attn_corpus_" +
                              ::testing::UnitTest::GetInstance()->current_test_info()->name();
};

TEST_F(Corpus, AnAbsentFolderIsEmpty) { EXPECT_TRUE(load_corpus(folder_).empty()); }

TEST_F(Corpus, GivesBackWhatWasStored) {
  for (std::int64_t n = 0; n < 5; ++n) add_to_corpus(folder_, entry(n));
  const std::vector<CorpusEntry> loaded = load_corpus(folder_);
  ASSERT_EQ(loaded.size(), 5U);
  for (std::int64_t n = 0; n < 5; ++n) {
    const CorpusEntry want = entry(n);
    const auto found = std::ranges::find(loaded, want.seed, &CorpusEntry::seed);
    ASSERT_NE(found, loaded.end());
    EXPECT_EQ(found->spec, want.spec);
    EXPECT_EQ(found->exec, want.exec);
    EXPECT_EQ(found->backend, want.backend);
    EXPECT_EQ(found->stage, want.stage);
  }
}

TEST_F(Corpus, KeepsTheSameFailureOnce) {
  CorpusEntry other = entry(1);
  other.backend = "cuda";
  add_to_corpus(folder_, entry(1));
  add_to_corpus(folder_, other);
  EXPECT_EQ(load_corpus(folder_).size(), 1U);
  other.seed += 1;
  EXPECT_NE(corpus_file_name(other), corpus_file_name(entry(1)));
}

TEST_F(Corpus, ComesFirst) {
  const CaseSource source({entry(4)}, {});
  EXPECT_EQ(source.at(0).origin, CaseOrigin::kCorpus);
  EXPECT_EQ(source.at(0).spec, entry(4).spec);
  EXPECT_EQ(source.at(0).exec, ExecMode::kSecondCall);
  EXPECT_EQ(source.at(1).origin, CaseOrigin::kCovering);
  EXPECT_EQ(source.at(source.planned()).origin, CaseOrigin::kRandom);
}

TEST_F(Corpus, NamesTheFileThatIsNone) {
  std::filesystem::create_directories(folder_);
  std::ofstream(folder_ + "/broken.json") << "{\"seed\": 1}";
  try {
    load_corpus(folder_);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("broken.json"));
  }
}

}  // namespace
}  // namespace attn::harness
