#include "harness/generate/case_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "reference/core/error.h"

namespace attn::harness {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const std::string kConfig =
    R"({"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "hidden_size": 64})";
const std::string kAttentionConfig =
    R"({"variant": "attention", "entry_point": "attention", "num_attention_heads": 4,)"
    R"( "num_key_value_heads": 2, "head_dim": 16})";

std::string spec_with(const std::string& more) {
  return "{\"config\": " + kConfig + ", " + more + "}";
}

std::string refusal(const std::string& json) {
  try {
    parse_case_spec(json);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kConfig);
    return error.what();
  }
  return "accepted";
}

/// A file with the given content, removed at the end.
class TemporaryFile {
 public:
  TemporaryFile(const std::string& name, const std::string& content)
      : path_(std::filesystem::temp_directory_path() / ("case_spec_test_" + name)) {
    std::ofstream(path_) << content;
  }
  ~TemporaryFile() { std::filesystem::remove(path_); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

TEST(CaseSpec, ReadsEveryKey) {
  const CaseSpec spec = parse_case_spec(
      spec_with(R"("rows": [[3, 4], [0, 0]], "pages": "identity", "profile": "q_x4",)"
                R"( "sinks": true, "layer": 1, "layers": 3)"));
  EXPECT_EQ(spec.config.num_attention_heads, 4);
  EXPECT_EQ(spec.rows, (std::vector<RowSpec>{{3, 4}, {0, 0}}));
  EXPECT_EQ(spec.pages, PageOrder::kIdentity);
  EXPECT_EQ(spec.profile, "q_x4");
  EXPECT_TRUE(spec.sinks);
  EXPECT_EQ(spec.layer, 1);
  EXPECT_EQ(spec.layers, 3);
}

TEST(CaseSpec, BareConfigGetsDefaultRowsAndPages) {
  const CaseSpec spec = parse_case_spec(kConfig);
  EXPECT_EQ(spec, parse_case_spec("{\"config\": " + kConfig + "}"));
  EXPECT_EQ(spec.pages, PageOrder::kShuffled);
  EXPECT_FALSE(spec.rows.empty());
  for (const RowSpec& row : parse_case_spec(kAttentionConfig).rows) {
    EXPECT_LE(row.first, row.second) << "queries, keys";
  }
}

TEST(CaseSpec, PrintsAsOneLineThatReadsBack) {
  for (const std::string& json :
       {kConfig, kAttentionConfig,
        spec_with(R"("rows": [], "sinks": true, "layers": 2, "profile": "needles")")}) {
    const CaseSpec spec = parse_case_spec(json);
    EXPECT_EQ(parse_case_spec(to_json(spec)), spec);
    EXPECT_THAT(to_json(spec), Not(HasSubstr("\n")));
  }
}

TEST(CaseSpec, RefusesWithOneClearLine) {
  const std::vector<std::pair<std::string, std::string>> refusals = {
      {spec_with(R"("row": [[1, 2]])"), "row: not a key of a case; did you mean \"rows\"?"},
      {spec_with(R"("seed": 1)"), "seed: given with --seed"},
      {R"({"rows": [[1, 2]]})", "config: missing"},
      {spec_with(R"("pages": "shufled")"), "did you mean \"shuffled\"?"},
      {spec_with(R"("profile": "needle")"), "did you mean \"needles\"?"},
      {spec_with(R"("profile": 3)"), "profile: 3 is not a string"},
      {spec_with(R"("rows": 3)"), "rows: 3 is not a list of pairs"},
      {spec_with(R"("rows": [[1]])"), "rows: [1] is not a list of pairs"},
      {spec_with(R"("rows": [[1, 2.5]])"), "rows: 2.5 is not an integer"},
      {spec_with(R"("rows": [[1, 18446744073709551615]])"), "is not an integer of 64 bits"},
      {spec_with(R"("rows": [[-1, 2]])"), "rows: [-1,2] has a negative count"},
      {spec_with(R"("rows": [[2147483647, 1]])"), "rows: [2147483647,1] is longer than 2^31 - 1"},
      {spec_with(R"("sinks": 1)"), "sinks: 1 is not true or false"},
      {spec_with(R"("layers": 0)"), "layers: 0 is below 1"},
      {spec_with(R"("layer": 2, "layers": 2)"), "layer: 2 is not one of the 2 layers"},
      {spec_with(R"("layer": -1)"), "layer: -1 is not one of the 1 layers"},
      {spec_with(R"("sinks": true, "sinks": false)"), "sinks: given twice"},
      {R"({"config": {"head_dim": 16, "head_dim": 32}})", "head_dim: given twice"},
      {"{\"head_dims\": 16, " + kConfig.substr(1), "did you mean \"head_dim\"?"},
      {R"({"config": 3})", "config"},
      {"[1]", "a case is an object"},
      {R"({"config": )", "JSON: parse error at line 1"},
  };
  for (const auto& [json, message] : refusals) {
    EXPECT_THAT(refusal(json), HasSubstr(message)) << json;
    EXPECT_THAT(refusal(json), Not(HasSubstr("\n"))) << json;
  }
}

TEST(CaseSpec, LoadsTextOrAFile) {
  const std::string json = spec_with(R"("sinks": true)");
  const TemporaryFile file("spec.json", json);
  EXPECT_EQ(load_case_spec("  " + json), parse_case_spec(json));
  EXPECT_EQ(load_case_spec(file.path()), parse_case_spec(json));
}

TEST(CaseSpec, BlamesTheFile) {
  const TemporaryFile file("wrong.json", spec_with(R"("sinks": 2)"));
  const auto message = [](const std::string& path) -> std::string {
    try {
      load_case_spec(path);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInput);
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message(file.path()), file.path() + ": sinks: 2 is not true or false");
  EXPECT_THAT(message("no/such/file.json"), HasSubstr("no/such/file.json: cannot be read"));
  EXPECT_THAT(message(std::filesystem::temp_directory_path().string()),
              HasSubstr("cannot be read"));
}

TEST(CaseSpec, TomlMeansTheSameAsJson) {
  const TemporaryFile file("case.toml", R"(
seed = 7
rows = [[16, 1], [0, 5]]
sinks = true
pages = "identity"
[config]
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 16
hidden_size = 64
scale = -0.5
rope = {theta = 5e5, interleaved = false}
mask = {variant = "sliding_window_causal", window_size = 4}
)");
  const TomlCase read = load_toml_case(file.path());
  EXPECT_EQ(read.seed, 7U);
  EXPECT_EQ(read.spec, parse_case_spec(R"({"rows": [[16, 1], [0, 5]], "sinks": true,
      "pages": "identity", "config": {"num_attention_heads": 4, "num_key_value_heads": 2,
      "head_dim": 16, "hidden_size": 64, "scale": -0.5,
      "rope": {"theta": 5e5, "interleaved": false},
      "mask": {"variant": "sliding_window_causal", "window_size": 4}}})"));
}

TEST(CaseSpec, TomlRefusesWithTheFileAndTheReason) {
  const std::vector<std::pair<std::string, std::string>> refusals = {
      {"seed = -1\n", "seed: -1 is not a whole number"},
      {"rows = [[1, 2]\n", "line "},
      {"profile = 2020-01-01\n", "profile: a date"},
      {"[config]\nscale = nan\n", "scale: a date or a number that is not finite"},
      {"sink = true\n[config]\nhead_dim = 2\n", "did you mean \"sinks\"?"},
  };
  for (const auto& [toml, message] : refusals) {
    const TemporaryFile file("wrong.toml", toml);
    try {
      load_toml_case(file.path());
      ADD_FAILURE() << "accepted: " << toml;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInput);
      EXPECT_THAT(error.what(), HasSubstr(file.path() + ": "));
      EXPECT_THAT(error.what(), HasSubstr(message));
      EXPECT_THAT(error.what(), Not(HasSubstr("\n")));
    }
  }
}

TEST(CaseFiles, AreReadable) {
  int files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(ATTN_SOURCE_DIR) + "/data/cases")) {
    if (entry.path().extension() != ".toml") continue;
    EXPECT_NO_THROW(load_toml_case(entry.path().string())) << entry.path();
    ++files;
  }
  EXPECT_GE(files, 10);
}

TEST(GoldenSet, HoldsSmallCasesAtRealGeometry) {
  const auto cases = load_case_list(std::string(ATTN_SOURCE_DIR) + "/data/cases/golden_set.json");
  std::set<std::string> ids;
  std::set<std::int64_t> head_dims;
  std::set<std::int64_t> groups;
  std::set<MaskVariant> masks;
  std::set<RopeScalingType> scalings;
  std::set<ElementType> types;
  std::set<EntryPoint> entry_points;
  for (const NamedCase& named : cases) {
    const AttentionConfig& config = named.spec.config;
    EXPECT_TRUE(ids.insert(named.id).second) << named.id << " twice";
    head_dims.insert(config.head_dim);
    groups.insert(config.group_size());
    masks.insert(config.mask.variant);
    scalings.insert(config.rope.scaling.type);
    types.insert(config.dtype);
    entry_points.insert(config.entry_point);
  }
  EXPECT_GE(cases.size(), 20U);
  EXPECT_THAT(head_dims, ::testing::IsSupersetOf({64, 96, 128, 256}));
  EXPECT_THAT(groups, ::testing::IsSupersetOf({1, 4, 7, 8}));
  EXPECT_EQ(masks.size(), 6U);
  EXPECT_EQ(scalings.size(), 7U);
  EXPECT_EQ(types.size(), 3U);
  EXPECT_EQ(entry_points.size(), 3U);
}

}  // namespace
}  // namespace attn::harness
