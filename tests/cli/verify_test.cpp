#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "golden/golden_file.h"
#include "tests/cli/program_runner.h"

namespace attn::test {
namespace {

using ::testing::ContainsRegex;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(Verify, EveryGoldenFilePassesOnEveryBackend) {
  const Outcome outcome = attn_compare({"verify", "data/golden"});
  EXPECT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_THAT(last_line(outcome.out), ContainsRegex("^[0-9]+ passed, 0 failed$"));
  EXPECT_THAT(outcome.out, HasSubstr("page seed 1"));
  EXPECT_THAT(outcome.err, ContainsRegex("files in .* on [0-9]+ thread"));
}

TEST(Verify, BoundsPropagatedFromTheInputsPassToo) {
  const Outcome outcome =
      attn_compare({"verify", golden("mha-causal-f32"), "--backend", "cpu", "--no-taps"});
  EXPECT_EQ(outcome.code, 0) << outcome.out;
}

/// Every weight encoding, cache type and device count runs on every backend of our own.
TEST(Verify, NoGoldenFileIsUnsupported) {
  const ScratchFolder scratch;
  attn_compare({"verify", "data/golden", "--json", scratch / "r.json"});
  const auto report = nlohmann::json::parse(read_file(scratch / "r.json"));
  std::map<std::string, std::size_t> passed;
  for (const auto& row : report["rows"]) {
    EXPECT_EQ(row["status"], "passed") << row["name"] << " " << row["backend"];
    ++passed[row["backend"].get<std::string>()];
  }
  // The 74 vectors and at least 20 files of our own.
  for (const std::string backend : {"exact", "faithful", "cpu"}) EXPECT_GE(passed[backend], 94u);
}

TEST(Verify, AnUnsupportedFileFailsUnlessAllowed) {
  const std::string backend = ATTN_MINIMAL_PLUGIN;  // float32 only
  const std::string file = golden("nvfp4-weights");
  const Outcome strict = attn_compare({"verify", file, "--backend", backend});
  EXPECT_EQ(strict.code, 1);
  EXPECT_THAT(strict.out, HasSubstr("unsupported: "));
  EXPECT_EQ(last_line(strict.out), "0 passed, 0 failed, 1 unsupported");
  EXPECT_EQ(attn_compare(
                {"verify", file, "--backend", "cpu", "--backend", backend, "--allow-unsupported"})
                .code,
            0);
  // Nothing but unsupported files: nothing ran, which must not look like success.
  EXPECT_EQ(attn_compare({"verify", file, "--backend", backend, "--allow-unsupported"}).code, 4);
}

TEST(Verify, CallsAWrongExpectedValueWrong) {
  const ScratchFolder scratch;
  for (const std::string stage : {"attn_out", "q_rope", "cache_k", "lse", "out", "v_proj"}) {
    write_damaged_copy(golden("qk-norm"), scratch / "bad.h5", "expected/" + stage, 1e-6);
    const Outcome outcome = attn_compare({"verify", scratch / "bad.h5", "--backend", "exact"});
    EXPECT_EQ(outcome.code, 1) << stage;
    EXPECT_THAT(outcome.out, ContainsRegex("bad +expected +failed +" + stage));
    EXPECT_THAT(last_line(outcome.out), ContainsRegex("1 failed"));
  }
}

/// 1e-9 is the line: a tenth of it passes, so that the test above fails for its reason.
TEST(Verify, AcceptsAnExpectedValueWithinTheTolerance) {
  const ScratchFolder scratch;
  write_damaged_copy(golden("qk-norm"), scratch / "good.h5", "expected/attn_out", 1e-10);
  EXPECT_EQ(attn_compare({"verify", scratch / "good.h5", "--backend", "exact"}).code, 0);
}

TEST(Verify, NamesTheDamagedStageAndAReproLineThatReproduces) {
  const Outcome outcome = attn_compare(
      {"verify", golden("qk-norm"), "--backend", "damaged:cpu,stage=attn_out,factor=1.0005"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.out, HasSubstr("FAILED  "));
  EXPECT_THAT(outcome.out, HasSubstr("first bad stage  attn_out: "));
  EXPECT_THAT(outcome.out, ContainsRegex("worst element    row [0-9]+ \\(sequence"));
  const std::size_t repro = outcome.out.find("attn-compare verify ");
  ASSERT_NE(repro, std::string::npos);
  const std::string line = outcome.out.substr(repro, outcome.out.find('\n', repro) - repro);
  const Outcome again = shell(line);
  EXPECT_EQ(again.code, 1) << line;
  EXPECT_EQ(again.out, outcome.out);
}

TEST(Verify, EachKindOfDamageIsCaughtInItsStage) {
  for (const std::string damage : {"row_shift", "swap_heads", "factor=1.0005"}) {
    for (const std::string stage : {"q_proj", "k_rope", "lse", "attn_out"}) {
      const std::string spec = "damaged:cpu,stage=" + stage + "," + damage;
      const Outcome outcome = attn_compare({"verify", golden("mha-causal-f32"), "--backend", spec});
      EXPECT_EQ(outcome.code, 1) << spec;
      EXPECT_THAT(outcome.out, HasSubstr("first bad stage  " + stage)) << spec;
    }
  }
}

TEST(Verify, AnUnreadableFileDoesNotStopTheOthers) {
  const ScratchFolder scratch;
  const std::string bytes = read_file(golden("qk-norm"));
  write_file(scratch / "truncated.h5", bytes.substr(0, bytes.size() / 2));
  write_file(scratch / "empty.h5", "");
  const Outcome outcome =
      attn_compare({"verify", scratch / "truncated.h5", golden("qk-norm"), scratch / "empty.h5",
                    scratch / "absent.h5", "--backend", "cpu"});
  EXPECT_EQ(outcome.code, 3);
  EXPECT_EQ(last_line(outcome.out), "1 passed, 0 failed, 3 unreadable");
  EXPECT_THAT(outcome.out, HasSubstr(scratch / "truncated.h5"));
}

TEST(Verify, RefusesATamperedFile) {
  const ScratchFolder scratch;
  write_damaged_copy(golden("qk-norm"), scratch / "sealed.h5", "expected/out", 0.0);
  ASSERT_EQ(attn_compare({"verify", scratch / "sealed.h5", "--backend", "cpu"}).code, 0);
  std::string bytes = read_file(scratch / "sealed.h5");
  // One bit of the stored values of `expected/out`: found by their bytes.
  const golden::GoldenFile file = golden::read(scratch / "sealed.h5");
  const auto values = file.datasets.at("expected/out").bytes();
  const std::string needle(reinterpret_cast<const char*>(values.data()), 64);
  const std::size_t at = bytes.find(needle);
  ASSERT_NE(at, std::string::npos);
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  write_file(scratch / "tampered.h5", bytes);
  const Outcome outcome = attn_compare({"verify", scratch / "tampered.h5", "--backend", "cpu"});
  EXPECT_EQ(outcome.code, 3);
  EXPECT_THAT(outcome.out, HasSubstr("expected/out"));
}

TEST(Verify, UnreadableOutranksFailed) {
  EXPECT_EQ(attn_compare({"verify", golden("qk-norm"), "/absent.h5", "--backend",
                          "damaged:cpu,stage=out,factor=2"})
                .code,
            3);
}

TEST(Verify, PrintsTheSameInOrderWhateverTheNumberOfJobs) {
  const Outcome one = attn_compare({"verify", "data/golden", "--backend", "cpu", "--jobs", "1"});
  const Outcome four = attn_compare({"verify", "data/golden", "--backend", "cpu", "--jobs", "4"});
  EXPECT_EQ(one.code, 0);
  EXPECT_EQ(one.out, four.out);
}

TEST(Verify, AnotherPageOrderPassesToo) {
  const Outcome outcome =
      attn_compare({"verify", "data/golden", "--backend", "cpu", "--page-seed", "987654321"});
  EXPECT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_THAT(outcome.out, HasSubstr("page seed 987654321"));
}

TEST(Verify, FilesOfOneStemAreToldApartByTheirPaths) {
  const ScratchFolder scratch;
  std::filesystem::copy_file(golden("qk-norm"), scratch / "qk-norm.h5");
  const Outcome outcome = attn_compare(
      {"verify", golden("qk-norm"), scratch / "qk-norm.h5", "--backend", "cpu", "--json", "-"});
  const auto report = nlohmann::json::parse(outcome.out);
  EXPECT_NE(report["rows"][0]["name"], report["rows"][1]["name"]);
}

TEST(Verify, AFolderWithoutFilesRunsNothing) {
  const ScratchFolder scratch;
  const Outcome outcome = attn_compare({"verify", scratch.path()});
  EXPECT_EQ(outcome.code, 4);
  EXPECT_EQ(last_line(outcome.out), "0 passed, 0 failed");
}

TEST(Verify, VerboseListsEveryStage) {
  const Outcome outcome = attn_compare({"verify", golden("qk-norm"), "--backend", "cpu", "-v"});
  EXPECT_THAT(outcome.out, ContainsRegex("q_proj [0-9.<]+, k_proj .* out [0-9.]+"));
}

TEST(Verify, ColourOnlyWhereItIsWanted) {
  const std::vector<std::string> args = {"verify", golden("qk-norm"), "--backend", "cpu"};
  EXPECT_THAT(attn_compare(args).out, Not(HasSubstr("\033[")));
  EXPECT_THAT(attn_compare(args, {.environment = {{"FORCE_COLOR", "1"}}}).out, HasSubstr("\033["));
  EXPECT_THAT(attn_compare(args, {.environment = {{"FORCE_COLOR", "1"}, {"NO_COLOR", "1"}}}).out,
              Not(HasSubstr("\033[")));
}

TEST(Verify, InterruptedItReportsWhatFinished) {
  const ScratchFolder scratch, journals;
  // Interrupted when two files are finished, of so many that no machine ends them meanwhile.
  const std::string journal = journals / "journal";
  std::vector<std::string> args = {"verify", "--json", scratch / "r.json", "--resume", journal};
  args.insert(args.end(), 400, "data/golden");
  const Outcome outcome = attn_compare(args, {.interrupt_when = has_lines(journal, 3)});
  EXPECT_EQ(outcome.code, 130);
  EXPECT_THAT(outcome.err, ContainsRegex("interrupted: [0-9]+ of [0-9]+ files finished"));
  EXPECT_THAT(last_line(outcome.out), ContainsRegex("^[0-9]+ passed, 0 failed$"));
  const auto report = nlohmann::json::parse(read_file(scratch / "r.json"));
  EXPECT_TRUE(report["interrupted"]);
  EXPECT_EQ(report["exit_code"], 130);
  // The report is whole: nothing temporary is left beside it.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(scratch.path()), {}), 1);
}

}  // namespace
}  // namespace attn::test
