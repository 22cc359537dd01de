// The command lines of examples/ are ones that the program takes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <string>

#include "tests/cli/program_runner.h"

namespace attn::test {
namespace {

using ::testing::HasSubstr;

/// Every attn-compare command of a file, on one line each: what follows in the same shell word
/// list, over lines that end in a backslash or, folded by YAML, begin with an option.
std::vector<std::string> commands_of(const std::string& name) {
  std::string text = read_file(std::string(ATTN_SOURCE_DIR) + "/examples/" + name);
  text = std::regex_replace(text, std::regex(R"(\\\n)"), " ");
  text = std::regex_replace(text, std::regex(R"(\n +--)"), " --");
  text = std::regex_replace(text, std::regex(R"(\$\{\{[^}]*\}\})"), "1");
  std::vector<std::string> commands;
  const std::regex command(R"(attn-compare (verify|fuzz|report)[^\n]*)");
  for (std::sregex_iterator it(text.begin(), text.end(), command), end; it != end; ++it) {
    commands.push_back(it->str());
  }
  return commands;
}

/// A command with --help parses its words and does nothing.
TEST(Examples, CommandLinesParse) {
  const std::string variables =
      "SLURM_ARRAY_TASK_ID=1 SLURM_ARRAY_TASK_COUNT=8 JOB_COMPLETION_INDEX=0 shard=1 kernel=cpu; ";
  for (const std::string name : {"slurm_array.sh", "kubernetes_job.yaml", "github_matrix.yml"}) {
    const std::vector<std::string> commands = commands_of(name);
    EXPECT_EQ(commands.size(), 4U) << name;  // a shard's and a merge's, of verify and of fuzz
    for (const std::string& command : commands) {
      const Outcome outcome = shell(variables + command + " --help");
      EXPECT_EQ(outcome.code, 0) << command << "\n" << outcome.err;
      EXPECT_THAT(outcome.out, HasSubstr("Usage:")) << command;
      EXPECT_EQ(shell(variables + command + " --shrad 1/2 --help").code, 2) << command;
    }
  }
}

/// The Slurm script as it stands, as the last of 62 tasks.
TEST(Examples, SlurmScriptRuns) {
  const ScratchFolder scratch;
  const Outcome outcome =
      shell("cd '" + scratch.path() +
            "' && ln -s '" ATTN_SOURCE_DIR
            "/data' data && KERNEL=cpu GATE=pr "
            "SLURM_ARRAY_TASK_ID=62 SLURM_ARRAY_TASK_COUNT=62 sh '" ATTN_SOURCE_DIR
            "/examples/slurm_array.sh'");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("shard 62/62: 2 files on cpu"));
  EXPECT_THAT(outcome.out, testing::ContainsRegex("shard 62/62: [0-9]+ cases on cpu"));
}

}  // namespace
}  // namespace attn::test
