// data/models/*.json: the geometry of public models, each usable as --config.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "harness/generate/case_spec.h"
#include "reference/core/case.h"
#include "tests/import/files.h"

namespace attn::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::StartsWith;

/// Weights above which a model runs in the slow tests only: a few seconds each.
constexpr double kLarge = 5e7;

std::vector<std::string> model_files() {
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(fs::path(ATTN_SOURCE_DIR) / "data/models")) {
    const bool table = entry.path().filename() == "checkpoint_names.json";
    if (entry.path().extension() == ".json" && !table) files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

double weights_of(const std::string& file) {
  double total = 0.0;
  for (const TensorSpec& spec : expected_weights(harness::load_case_spec(file).config)) {
    total += static_cast<double>(num_elements(spec.shape));
  }
  return total;
}

TEST(PublicModels, AreThereWithTheirSources) {
  const std::vector<std::string> files = model_files();
  EXPECT_GE(files.size(), 12U);
  for (const std::string& file : files) {
    SCOPED_TRACE(file);
    EXPECT_NO_THROW(harness::load_case_spec(file));
    EXPECT_THAT(nlohmann::json::parse(read_bytes(file)).value("source", ""),
                StartsWith("https://"));
  }
}

class PublicModel : public testing::TestWithParam<std::string> {};

TEST_P(PublicModel, RunsOnTheCpuBackend) {
  const Ran ran = run({"run", "--config", GetParam(), "--backend", "cpu", "--no-color"});
  EXPECT_EQ(ran.code, 0) << ran.out << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("1 passed, 0 failed"));
}

std::vector<std::string> chosen_files() {
#ifdef ATTN_LARGE_MODELS
  const bool large = true;
#else
  const bool large = false;
#endif
  std::vector<std::string> files = model_files();
  std::erase_if(files,
                [&](const std::string& file) { return (weights_of(file) > kLarge) != large; });
  return files;
}

INSTANTIATE_TEST_SUITE_P(Files, PublicModel, testing::ValuesIn(chosen_files()),
                         [](const auto& file) {
                           std::string name = fs::path(file.param).stem().string();
                           std::replace_if(
                               name.begin(), name.end(), [](char c) { return !std::isalnum(c); },
                               '_');
                           return name;
                         });

}  // namespace
}  // namespace attn::test
