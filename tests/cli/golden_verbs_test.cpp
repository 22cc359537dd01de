#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "golden/golden_file.h"
#include "tests/cli/program_runner.h"

namespace attn::test {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

TEST(GoldenMake, WritesSealedFilesThatVerify) {
  const ScratchFolder scratch;
  const Outcome made =
      attn_compare({"golden", "make", "--random", "3", "--seed", "20", "-o", scratch.path()});
  EXPECT_EQ(made.code, 0) << made.out << made.err;
  EXPECT_EQ(last_line(made.out), "3 passed, 0 failed");
  EXPECT_EQ(golden::read(scratch / "random-21.h5").seal, golden::Seal::kSealed);
  EXPECT_EQ(attn_compare({"verify", scratch.path()}).code, 0);
}

TEST(GoldenMake, SameCommandAndDateSameBytes) {
  const ScratchFolder scratch;
  const std::vector<std::string> args = {"golden", "make", "--random",     "1",      "--seed",
                                         "5",      "-o",   scratch.path(), "--force"};
  const How how{.environment = {{"SOURCE_DATE_EPOCH", "1700000000"}}};
  ASSERT_EQ(attn_compare(args, how).code, 0);
  const std::string first = read_file(scratch / "random-5.h5");
  ASSERT_EQ(attn_compare(args, how).code, 0);
  EXPECT_EQ(read_file(scratch / "random-5.h5"), first);
}

TEST(GoldenMake, BeginsNothingWhenAFileIsInTheWay) {
  const ScratchFolder scratch;
  write_file(scratch / "random-6.h5", "precious");
  const Outcome outcome =
      attn_compare({"golden", "make", "--random", "3", "--seed", "5", "-o", scratch.path()});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("random-6.h5"));
  EXPECT_FALSE(std::filesystem::exists(scratch / "random-5.h5"));
  EXPECT_EQ(read_file(scratch / "random-6.h5"), "precious");
}

TEST(GoldenMake, ARefusedConfigIsAUsageError) {
  const ScratchFolder scratch;
  const Outcome outcome = attn_compare(
      {"golden", "make", "--config", R"({"num_atention_heads": 4})", "-o", scratch.path()});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("num_attention_heads"));
}

TEST(GoldenSeal, AddsDigestsOnceASecondEvaluationAgrees) {
  const ScratchFolder scratch;
  std::filesystem::copy_file(golden("rope-yarn"), scratch / "f.h5");
  ASSERT_EQ(golden::read(scratch / "f.h5").seal, golden::Seal::kUnsealed);
  const Outcome outcome = attn_compare({"golden", "seal", scratch / "f.h5"});
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  EXPECT_EQ(golden::read(scratch / "f.h5").seal, golden::Seal::kSealed);
  EXPECT_EQ(attn_compare({"diff", golden("rope-yarn"), scratch / "f.h5"}).code, 0);
}

/// 1e-10 is within what verify allows but not within what sealing demands (1e-11).
TEST(GoldenSeal, LeavesAFileAloneThatDisagrees) {
  const ScratchFolder scratch;
  std::filesystem::copy_file(golden("rope-yarn"), scratch / "f.h5");
  golden::GoldenFile file = golden::read(scratch / "f.h5");
  Tensor& out = file.datasets.at("expected/out");
  double largest = 0.0;
  for (const double value : out.values()) largest = std::max(largest, std::abs(value));
  // Changed in place, so that the file stays unsealed.
  std::string bytes = read_file(scratch / "f.h5");
  const std::string before(reinterpret_cast<const char*>(out.data()), 8);
  out.set_value(0, out.value(0) + 1e-10 * largest);
  const std::string after(reinterpret_cast<const char*>(out.data()), 8);
  const std::size_t at = bytes.find(before);
  ASSERT_NE(at, std::string::npos);
  bytes.replace(at, 8, after);
  write_file(scratch / "f.h5", bytes);
  const Outcome outcome = attn_compare({"golden", "seal", scratch / "f.h5"});
  EXPECT_EQ(outcome.code, 1) << outcome.out << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("disagree at out"));
  EXPECT_EQ(read_file(scratch / "f.h5"), bytes);
}

TEST(Inspect, ShowsConfigProvenanceDatasetsAndDigests) {
  const Outcome text = attn_compare({"inspect", golden("qk-norm")});
  EXPECT_EQ(text.code, 0);
  EXPECT_THAT(text.out, HasSubstr("unsealed"));
  EXPECT_THAT(text.out, ContainsRegex("inputs/x +bfloat16 +\\[10, 128\\]"));
  const Outcome json = attn_compare({"inspect", golden("qk-norm"), "--json", "-"});
  const auto object = nlohmann::json::parse(json.out);
  EXPECT_EQ(object["schema_version"], 1);
  EXPECT_EQ(object["config"]["head_dim"], 32);
  EXPECT_FALSE(object["sealed"]);
  EXPECT_EQ(attn_compare({"inspect", "/absent.h5"}).code, 3);
}

}  // namespace
}  // namespace attn::test
