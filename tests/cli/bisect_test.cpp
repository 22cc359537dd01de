// bisect-step under the real git, on a plug-in that goes bad at a commit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "tests/cli/program_runner.h"

namespace attn::test {
namespace {

using ::testing::HasSubstr;

const std::string kConfig =
    R"({"config": {"variant": "attention", "entry_point": "attention", "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "head_dim_v": 16, "dtype": "float32",
        "mask": {"variant": "causal"}, "kv_cache": {"page_size": 4}}, "rows": [[5, 9], [3, 7]]})";

constexpr const char* kHeader = ATTN_SOURCE_DIR "/harness/backends";

class Bisect : public testing::Test {
 protected:
  const ScratchFolder scratch_;
  const std::string build_ =
      "cc -shared -fPIC -I " + std::string(kHeader) + " plugin.c -o plugin.so -lm";

  void SetUp() override {
    if (shell("git --version && cc --version").code != 0) GTEST_SKIP() << "needs git and cc";
    write_file(scratch_ / "case.json", kConfig);
    in_folder(
        "git init -q . && git config user.email a@b.c && git config user.name a && "
        "printf 'plugin.so\n' > .gitignore");
  }
  Outcome in_folder(const std::string& line) const {
    return shell("cd '" + scratch_.path() + "' && " + line);
  }
  std::string step() const {
    return "attn-compare bisect-step --build '" + build_ +
           "' --config case.json --backend ./plugin.so";
  }
  void commit(const std::string& source, const std::string& subject) const {
    write_file(scratch_ / "plugin.c", source);
    ASSERT_EQ(in_folder("git add -A && git commit -qm '" + subject + "'").code, 0);
  }
};

TEST_F(Bisect, FindsTheCommitThatBrokeThePlugIn) {
  const std::string good = read_file(ATTN_SOURCE_DIR "/examples/plugin_minimal.c");
  std::string bad = good;
  const std::size_t at = bad.find("expf(");
  ASSERT_NE(at, std::string::npos);
  bad.replace(at, 5, "1.001f * expf(");
  commit(good, "one: right");
  commit(good + "/* two */\n", "two: right");
  commit(good + "#error three\n", "three: does not compile");
  commit(good + "/* four */\n", "four: right");
  commit(bad, "five: wrong");
  commit(bad + "/* six */\n", "six: wrong");
  commit(bad + "/* seven */\n", "seven: wrong");

  const Outcome outcome =
      in_folder("git bisect start HEAD HEAD~6 && git bisect run " + step() + " 2>&1");
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("is the first bad commit"));
  EXPECT_THAT(in_folder("git log -1 --format=%s refs/bisect/bad").out, HasSubstr("five: wrong"));
}

TEST_F(Bisect, WhatCannotBeJudgedIs125) {
  commit("#error none\n", "does not compile");
  const Outcome build = in_folder(step());
  EXPECT_EQ(build.code, 125);
  EXPECT_THAT(build.out, HasSubstr("the build ended with 1"));
  commit(read_file(ATTN_SOURCE_DIR "/examples/plugin_minimal.c"), "right");
  EXPECT_EQ(in_folder(step()).code, 0);
  const std::string begin = "attn-compare bisect-step --backend ./plugin.so ";
  EXPECT_EQ(in_folder(begin + "--case " + golden("qk-norm")).code, 125);  // unsupported: bfloat16
  EXPECT_EQ(in_folder(begin + "--case nothing.h5").code, 125);
  EXPECT_EQ(in_folder(begin + "--case").code, 125);
  EXPECT_EQ(in_folder(begin + "--no-such-option").code, 125);
  EXPECT_EQ(in_folder("attn-compare bisect-step --config case.json --backend ./none.so").code, 125);
}

TEST_F(Bisect, ACrashIsBad) {
  const std::string crash = std::string(ATTN_BAD_PLUGIN) + ":abort";
  const Outcome outcome =
      in_folder("attn-compare bisect-step --config case.json --backend '" + crash + "'");
  EXPECT_EQ(outcome.code, 1) << outcome.out << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("bad: crashed"));
}

}  // namespace
}  // namespace attn::test
