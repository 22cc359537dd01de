// The score of the pr gate, made by the real program, against the recorded one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "harness/faults/catalogue.h"
#include "harness/faults/memory_faults.h"
#include "harness/faults/score.h"

namespace attn::harness {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const std::string kScoreFile = std::string(ATTN_SOURCE_DIR) + "/data/faults/score.json";

std::string read(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(FaultGate, KillsWhatTheRecordedScoreHas) {
  const std::string report = std::string(ATTN_BINARY_DIR) + "/faults_pr.json";
  const std::string command = std::string("'") + ATTN_COMPARE + "' faults --gate pr --json '" +
                              report + "' > /dev/null 2>&1";
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
  const json found = json::parse(read(report));
  const GateScore recorded = load_score(kScoreFile).gates.at("pr");

  std::int64_t killed = 0, controls = 0;
  std::vector<std::string> survivors;
  MemoryScore memory{recorded.memory.cases, 0, 0, {}, {}};
  for (const json& row : found.at("rows")) {
    const std::string id = row.at("name");
    if (row.at("properties").at("kind") == "memory") {
      ++memory.planted;
      if (row.at("properties").at("killed") == "no") {
        memory.survivors.push_back(id);
        continue;
      }
      ++memory.killed;
      ++memory.killed_by[row.at("properties").at("detector")];
      continue;
    }
    const FaultInfo& fault = find_fault(id);
    const json& properties = row.at("properties");
    if (properties.at("control") == "yes") {
      ++controls;
      EXPECT_EQ(properties.at("killed"), "no") << id;
      EXPECT_EQ(properties.at("infected"), "yes") << id << " is no control: it changes nothing";
      continue;
    }
    if (properties.at("killed") == "no") {
      survivors.push_back(id);
      continue;
    }
    ++killed;
    // What a plain run shows first, lse or the values, a slot or NaN, depends on the case's data.
    const std::string noticed = properties.at("detector");
    if (fault.detector == Detector::kLse) {
      EXPECT_EQ(noticed, "lse") << id;
    }
    const bool is_plain = properties.at("mode") == "plain";
    const bool lives_in_a_mode = fault.detector == Detector::kSecondCall ||
                                 fault.detector == Detector::kRepeat ||
                                 fault.detector == Detector::kScratch;
    EXPECT_NE(is_plain, lives_in_a_mode) << id << " was noticed by: " << noticed;
  }
  EXPECT_EQ(killed, recorded.killed);
  EXPECT_EQ(survivors, recorded.survivors) << "record a better score: --record " << kScoreFile;
  EXPECT_EQ(killed + std::ssize(survivors), recorded.planted);
  EXPECT_GE(100 * killed, 95 * recorded.planted);
  EXPECT_GE(controls, 3);
  EXPECT_EQ(memory, recorded.memory);
  EXPECT_EQ(memory.planted, std::ssize(memory_faults()));
  EXPECT_GE(100 * memory.killed, 95 * memory.planted);
}

TEST(FaultScore, HoldsAtLeastTwentyHardBugs) {
  const FaultScore score = load_score(kScoreFile);
  EXPECT_GE(score.random_cases, 200);
  EXPECT_GE(hard_faults(score).size(), 20U);
  EXPECT_TRUE(score.gates.at("nightly").survivors.empty());
}

TEST(FaultScore, IsTheOneInTheReadme) {
  const std::string readme = read(std::string(ATTN_SOURCE_DIR) + "/README.md");
  EXPECT_THAT(readme, HasSubstr("<!-- score -->\n" + score_table(load_score(kScoreFile)) +
                                "<!-- /score -->"));
}

TEST(FaultScore, ReadsBackWhatWasWritten) {
  const FaultScore score = load_score(kScoreFile);
  const std::string copy = testing::TempDir() + "attn_score_copy.json";
  save_score(copy, score);
  EXPECT_EQ(load_score(copy), score);
  EXPECT_EQ(read(copy), read(kScoreFile)) << "not written by --record";
}

}  // namespace
}  // namespace attn::harness
