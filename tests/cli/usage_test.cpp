#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/cli/program_runner.h"

namespace attn::test {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

struct Mistake {
  std::vector<std::string> args;
  std::string hint;
};

TEST(Usage, AMisspeltWordGetsTheNearestKnownOne) {
  const std::vector<Mistake> mistakes = {
      {{"verfiy", "x.h5"}, "did you mean \"verify\""},
      {{"golden", "mke"}, "did you mean \"make\""},
      {{"verify", "x.h5", "--bakend", "cpu"}, "did you mean \"--backend\""},
      {{"verify", "x.h5", "--allow-unsuported"}, "did you mean \"--allow-unsupported\""},
      {{"verify", "x.h5", "--backend", "cpuu"}, "did you mean \"cpu\""},
      {{"verify", "x.h5", "--backend", "cpu:blok=3"}, "did you mean \"block\""},
      {{"run", "--case", "x.h5", "--backend", "fathful"}, "did you mean \"faithful\""},
      {{"explain", "--case", "x.h5", "--backend", "cpu", "--stage", "attn_ot"},
       "did you mean \"attn_out\""},
      {{"list", "backend"}, "did you mean \"backends\""},
      {{"run", "--config", R"({"variant": "attention_with_ropes"})", "--backend", "cpu"},
       "attention_with_rope"},
  };
  for (const Mistake& mistake : mistakes) {
    const Outcome outcome = attn_compare(mistake.args);
    EXPECT_EQ(outcome.code, 2) << mistake.args[0];
    EXPECT_THAT(outcome.err, HasSubstr(mistake.hint));
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  }
}

TEST(Usage, WhatCli11RefusesIsExitTwo) {
  const std::vector<std::vector<std::string>> mistakes = {
      {"verify"},
      {"golden"},
      {"verify", "x.h5", "--jobs", "0"},
      {"verify", "x.h5", "--jobs", "many"},
      {"verify", "x.h5", "--page-seed", "-1"},
      {"verify", "x.h5", "--rows", "some"},
      {"verify", "x.h5", "--backend"},
      {"run", "--backend", "cpu"},
      {"run", "--backend", "cpu", "--case", "a.h5", "--config", "{}"},
      {"run", "--backend", "cpu", "--case", golden("qk-norm"), "--seed", "3"},
      {"run", "--backend", "cpu", "--case", golden("qk-norm"), "--bitwise"},
      {"diff", "a.h5"},
      {"diff", "a.h5", "b.h5", "c.h5"},
      {"golden", "make", "--random", "1"},
      {"golden", "make", "--random", "1", "-o", "/absent"},
      {"verify", golden("qk-norm"), "--json", "/absent/r.json"},
      {"verify", golden("qk-norm"), "--json", "-", "--junit", "-"},
      {"completion", "fish"},
  };
  for (const auto& args : mistakes) {
    const Outcome outcome = attn_compare(args);
    EXPECT_EQ(outcome.code, 2) << ::testing::PrintToString(args) << outcome.err;
    EXPECT_NE(outcome.err, "") << ::testing::PrintToString(args);
  }
}

TEST(Usage, VerbsOfAGroupAreNoneOfTheTop) {
  EXPECT_THAT(attn_compare({"history", "--help"}).out, HasSubstr("\n  dashboard "));
  EXPECT_EQ(attn_compare({"dashboard"}).code, 2);
}

TEST(Usage, BareCommandPrintsHelp) {
  const Outcome outcome = attn_compare({});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.out, HasSubstr("Examples:"));
}

TEST(Usage, HelpLeadsWithExamplesAndFitsTheLine) {
  const std::vector<std::vector<std::string>> verbs = {{},
                                                       {"verify"},
                                                       {"run"},
                                                       {"diff"},
                                                       {"golden"},
                                                       {"golden", "make"},
                                                       {"golden", "seal"},
                                                       {"inspect"},
                                                       {"list"},
                                                       {"explain"},
                                                       {"history"},
                                                       {"history", "import"},
                                                       {"history", "gate"},
                                                       {"history", "dashboard"},
                                                       {"doctor"},
                                                       {"completion"}};
  for (std::vector<std::string> args : verbs) {
    args.push_back("--help");
    const Outcome outcome = attn_compare(args);
    EXPECT_EQ(outcome.code, 0);
    EXPECT_LT(outcome.out.find("Examples:"), outcome.out.find("Usage:"));
    std::istringstream lines(outcome.out);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << line;
  }
}

TEST(Usage, VersionSaysWhatItWasBuiltWith) {
  const Outcome outcome = attn_compare({"--version"});
  EXPECT_EQ(outcome.code, 0);
  for (const std::string word :
       {"attn-compare 0", "commit", "compiler", "flags", "HDF5", "Eigen", "CUDA"}) {
    EXPECT_THAT(outcome.out, HasSubstr(word));
  }
}

TEST(List, WhatThereIs) {
  EXPECT_THAT(attn_compare({"list", "backends"}).out, ContainsRegex("exact .*\nfaithful .*\ncpu "));
  EXPECT_THAT(attn_compare({"list", "backends"}).out, Not(HasSubstr("damaged")));
  EXPECT_THAT(attn_compare({"list", "stages"}).out, HasSubstr("attn_out"));
  EXPECT_THAT(attn_compare({"list", "variants"}).out, HasSubstr("attention_with_rope"));
  EXPECT_THAT(attn_compare({"list", "profiles"}).out, HasSubstr("normal"));
  EXPECT_THAT(attn_compare({"list", "faults"}).out, HasSubstr("kv_head_modulo"));
  const auto json = nlohmann::json::parse(attn_compare({"list", "stages", "--json", "-"}).out);
  EXPECT_EQ(json["items"].size(), 13u);
}

TEST(Doctor, EndsWithReady) {
  const Outcome outcome = attn_compare({"doctor"});
  EXPECT_EQ(outcome.code, 0) << outcome.out;
  EXPECT_EQ(last_line(outcome.out), "ready");
  EXPECT_THAT(outcome.out, ContainsRegex("backend cpu +works"));
  EXPECT_TRUE(nlohmann::json::parse(attn_compare({"doctor", "--json", "-"}).out)["ready"]);
}

TEST(Completion, CompletesVerbsOptionsAndValues) {
  const auto complete = [](const std::string& words) {
    return shell("bash -c 'source <(attn-compare completion bash); COMP_WORDS=(attn-compare " +
                 words + "); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _attn_compare; " +
                 "echo \"${COMPREPLY[@]}\"'")
        .out;
  };
  EXPECT_EQ(complete("ver"), "verify\n");
  EXPECT_EQ(complete("golden \"\""), "make seal import\n");
  EXPECT_EQ(complete("run --backend \"\""), "exact faithful cpu cuda\n");
  EXPECT_EQ(complete("explain --stage attn"), "attn_out\n");
  EXPECT_EQ(complete("verify --allow"), "--allow-unsupported\n");
  EXPECT_EQ(complete("list st"), "stages\n");
}

}  // namespace
}  // namespace attn::test
