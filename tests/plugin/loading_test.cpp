// What is loaded and what is refused, seen from the command line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "tests/plugin/plugin_runner.h"

namespace attn::test {
namespace {

namespace fs = std::filesystem;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(PluginLoading, TheExamplePassesEveryGoldenFileThatItSupports) {
  const Outcome outcome = attn_compare(
      {"verify", "data/golden", "--backend", plugin("minimal"), "--allow-unsupported"});
  EXPECT_EQ(outcome.code, 0) << outcome.out;
  // Layers too: they are fed with the reference's queries and cache.
  EXPECT_THAT(outcome.out, ContainsRegex("rope-llama3 .*passed"));
  EXPECT_THAT(outcome.out, ContainsRegex("core-zero-keys .*passed"));
  EXPECT_THAT(last_line(outcome.out), ContainsRegex("^[2-9][0-9] passed, 0 failed, "));
}

TEST(PluginLoading, TheExampleIsShortAndBuildsOutsideOfTheTree) {
  const fs::path source(ATTN_SOURCE_DIR);
  const std::string text = read_file(source / "examples/plugin_minimal.c");
  EXPECT_LE(std::ranges::count(text, '\n'), 60);
  const ScratchFolder scratch;
  fs::copy_file(source / "examples/plugin_minimal.c", scratch / "mine.c");
  fs::copy_file(source / "harness/backends/attn_plugin.h", scratch / "attn_plugin.h");
  const Outcome outcome =
      shell("cd " + scratch.path() +
            " && cc -std=c99 -pedantic -Wall -Wextra -Werror -shared -fPIC -O2"
            " mine.c -o lib.so -lm && attn-compare verify " +
            golden("mha-causal-f32") + " --backend ./lib.so" + " && attn-compare verify " +
            golden("mha-causal-f32") + " --backend lib.so");
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  EXPECT_EQ(last_line(outcome.out), "1 passed, 0 failed");
}

TEST(PluginLoading, TheHeaderIsCppToo) {
  const Outcome outcome = shell(
      "echo '#include \"harness/backends/attn_plugin.h\"' | c++ -std=c++17 -pedantic -Wall "
      "-Wextra -Werror -I. -fsyntax-only -x c++ -");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
}

TEST(PluginLoading, APluginOfTheFirstHeaderStillLoadsAndPasses) {
  const Outcome outcome = verify_on(plugin("frozen_1_0"), {"mha-causal-f32", "core-zero-keys"});
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  EXPECT_EQ(last_line(outcome.out), "2 passed, 0 failed");
}

TEST(PluginLoading, ALayerOfTheSecondHeaderStillLoadsAndPasses) {
  const Outcome outcome = verify_on(plugin("frozen_1_1", "1-1ffe--1"), {"rope-llama3"});
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  EXPECT_EQ(last_line(outcome.out), "1 passed, 0 failed");
}

TEST(PluginLoading, ANewerMinorVersionLoads) {
  EXPECT_EQ(attn_compare({"list", "backends", "--backend", plugin("newer_minor")}).code, 0);
}

TEST(PluginLoading, EveryVerbTakesAPlugin) {
  const std::string backend = plugin("minimal");
  const std::string file = golden("mha-causal-f32");
  EXPECT_EQ(attn_compare({"verify", file, "--backend", backend}).code, 0);
  const Outcome run = attn_compare({"run", "--case", file, "--backend", backend});
  EXPECT_EQ(run.code, 0) << run.out;
  EXPECT_EQ(attn_compare({"run", "--case", file, "--backend", "cpu", "--against", backend}).code,
            0);
  EXPECT_EQ(attn_compare({"explain", "--case", file, "--backend", backend}).code, 0);
  const Outcome list = attn_compare({"list", "backends", "--backend", backend});
  EXPECT_THAT(list.out, HasSubstr(backend + "  plug-in minimal"));
  EXPECT_EQ(attn_compare({"verify", file, "--backend", backend, "--no-isolate"}).code, 0);
  const Outcome damaged = attn_compare(
      {"verify", file, "--backend", "damaged:" + backend + ",stage=attn_out,factor=1.001"});
  EXPECT_EQ(damaged.code, 1) << damaged.err;
}

/// A plug-in's own stages are judged, not those that it was fed with.
TEST(PluginLoading, StagesThatWereFedAreNotJudged) {
  const Outcome outcome = verify_on(plugin("minimal"), {"rope-llama3"}, {"-v"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.out, ContainsRegex("\n    lse [0-9.<]+, attn_out [0-9.<]+\n"));
  EXPECT_EQ(verify_on(plugin("minimal"), {"rope-llama3"}, {"--no-taps"}).code, 0);
}

/// One layer of a pool that three share: the tensors begin behind their data.
TEST(PluginLoading, ALayerInTheMiddleOfAPool) {
  const std::string config =
      R"({"config": {"variant": "attention", "entry_point": "attention", "num_attention_heads": 4,
      "num_key_value_heads": 2, "head_dim": 8, "head_dim_v": 8, "dtype": "float32",
      "mask": {"variant": "causal"}, "kv_cache": {"page_size": 4, "dtype": "float32"}},
      "rows": [[3, 10], [1, 5]], "layer": 1, "layers": 3})";
  const Outcome outcome = attn_compare({"run", "--config", config, "--backend", plugin("minimal")});
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
}

/// What a kernel may do differently as long as it says so: the same without saying so fails.
TEST(PluginDeclarations, CountWhatIsDeclared) {
  for (const std::string what : {"base2", "heads_first", "empty_rows_untouched",
                                 "empty_rows_finite", "aligned", "only_out"}) {
    const Outcome outcome = verify_on(plugin("bad", what), {"core-zero-keys", "mha-causal-f32"});
    EXPECT_EQ(outcome.code, 0) << what << outcome.out << outcome.err;
    EXPECT_EQ(last_line(outcome.out), "2 passed, 0 failed") << what;
  }
  const std::pair<std::string, std::string> silent[] = {
      {"silent_base2", "first bad stage lse"},
      {"silent_empty_untouched", "lse: 8 of 12 elements were never written"},
      {"silent_empty_finite", "first bad stage lse"}};
  for (const auto& [what, says] : silent) {
    const Outcome outcome = verify_on(
        plugin("bad", what), {what == "silent_base2" ? "mha-causal-f32" : "core-zero-keys"});
    EXPECT_EQ(outcome.code, 1) << what << outcome.out << outcome.err;
    EXPECT_THAT(unwrapped(outcome.out), HasSubstr(says)) << what;
  }
}

struct Refusal {
  std::string library;
  std::string says;
};

class PluginRefusal : public testing::TestWithParam<Refusal> {};

TEST_P(PluginRefusal, InOneLineThatNamesTheLibrary) {
  for (const std::string mode : {"", "--no-isolate"}) {
    const std::string library = GetParam().library;
    std::vector<std::string> args = {"verify", golden("mha-causal-f32"), "--backend", library};
    if (!mode.empty()) args.push_back(mode);
    const Outcome outcome = attn_compare(args);
    EXPECT_EQ(outcome.code, 2);
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
    EXPECT_THAT(outcome.err,
                StartsWith("attn-compare verify: " + library.substr(0, library.find(':')) + ": "));
    EXPECT_THAT(outcome.err, ContainsRegex(GetParam().says));
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, PluginRefusal,
    testing::Values(
        Refusal{plugin("newer_major"),
                "built for plug-in interface 2\\.[0-9]+; this program has 1"},
        Refusal{plugin("wrong_size"), "attn_call has [0-9]+ bytes; in interface 1\\.[0-9] it has"},
        Refusal{plugin("newer_minor_smaller"), "1\\.99 it has at least [0-9]+"},
        Refusal{plugin("no_symbol"), "exports no attn_plugin_entry"},
        Refusal{plugin("null_entry"), "attn_plugin_entry returned NULL"},
        Refusal{plugin("no_run"), "has no query\\(\\) or no run\\(\\)"},
        Refusal{plugin("missing_function"), "undefined symbol: nowhere_to_be_found"},
        Refusal{std::string(ATTN_SOURCE_DIR) + "/README.md",
                "cannot be loaded: .*(ELF|file too short)"},
        Refusal{"./absent.so", "there is no such file"},
        Refusal{ATTN_PLUGINS, "there is no such file"},
        Refusal{plugin("minimal", "fast"), "takes no options"},
        Refusal{plugin("bad", "refuse_options"), "create\\(\\) refused: no such option, sorry"}));

TEST(PluginLoading, PathsAreToldFromNames) {
  EXPECT_THAT(attn_compare({"verify", golden("qk-norm"), "--backend", "absent.so"}).err,
              HasSubstr("there is no such file"));
  EXPECT_THAT(attn_compare({"verify", golden("qk-norm"), "--backend", "cpuu"}).err,
              HasSubstr("did you mean \"cpu\""));
}

}  // namespace
}  // namespace attn::test
