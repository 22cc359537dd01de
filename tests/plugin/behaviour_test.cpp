// What a plug-in can do wrong while it runs, and that the run survives it.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cfenv>
#include <chrono>
#include <clocale>
#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>

#include "harness/backends/backend.h"
#include "harness/generate/case_spec.h"
#include "tests/plugin/plugin_runner.h"

namespace attn::test {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

/// Three files that the plug-in passes when it behaves. The second has kBadRows query rows, which
/// no other has.
const std::vector<std::string> kFiles = {"mha-causal-f32", "core-zero-keys", "rope-llama3"};
constexpr char kBadRows[] = "@3";

struct Misbehaviour {
  std::string what;
  std::string outcome;  ///< "crashed", "timed out", "failed"
  std::string says;
  std::string name() const { return what; }
};

void PrintTo(const Misbehaviour& m, std::ostream* out) { *out << m.what; }

class PluginBehaviour : public testing::TestWithParam<Misbehaviour> {};

/// The case is named with its outcome, the two others pass, in order.
TEST_P(PluginBehaviour, CostsItsOwnCaseAndNoOther) {
  const auto& [what, word, says] = GetParam();
  if (what == "memory" && kSanitized) GTEST_SKIP() << "a sanitizer's shadow has no limit";
  // Where the time is not what is tested, a slow machine may take its own.
  const std::string timeout = word == "timed out" ? "4" : "120";
  const Outcome outcome =
      verify_on(plugin("bad", what + kBadRows), kFiles,
                {"--timeout", timeout, "--memory-limit", kSanitized ? "8" : "0.25"});
  const std::string text = unwrapped(outcome.out);
  const bool died = word == "crashed" || word == "timed out";
  EXPECT_EQ(outcome.code, died                                        ? 5
                          : word == "failed" || word == "unsupported" ? 1
                                                                      : 0)
      << outcome.out << outcome.err;
  EXPECT_THAT(text, ContainsRegex("core-zero-keys [^ ]+ " + word)) << outcome.out;
  EXPECT_THAT(text, ContainsRegex(says));
  EXPECT_THAT(text, ContainsRegex("mha-causal-f32 [^ ]+ passed .*rope-llama3 [^ ]+ passed"));
  const std::string passed = word == "passed" ? "3" : "2";
  EXPECT_THAT(last_line(outcome.out), testing::StartsWith(passed + " passed, "));
}

INSTANTIATE_TEST_SUITE_P(
    All, PluginBehaviour,
    testing::Values(
        Misbehaviour{"segfault", "crashed", "signal 11 .*wrote to address 0x10"},
        Misbehaviour{"abort", "crashed", "signal 6 "},
        Misbehaviour{"divide", "crashed", "signal 8 "},
        Misbehaviour{"stack", "crashed", "signal 11 "},
        Misbehaviour{"exit0", "crashed", "ended its process with exit code 0"},
        Misbehaviour{"exit_quietly", "crashed", "ended its process with exit code 3"},
        Misbehaviour{"loop", "timed out", "ran for longer than [0-9]+ s \\(--timeout\\)"},
        Misbehaviour{"stop", "timed out", "ran for longer than"},
        Misbehaviour{"just_under", "timed out", "ran for longer than"},
        Misbehaviour{"kill_group", "crashed", "signal 9 "},
        // A sanitizer finds it, where there is one, and ends the process itself.
        Misbehaviour{"heap", "crashed",
                     kSanitized ? "exit code 1;.*ABORTING" : "signal 6 .*it printed: "},
        Misbehaviour{"heap_at_exit", "passed", "3 passed, 0 failed"},
        Misbehaviour{"hang_at_exit", "passed", "3 passed, 0 failed"},
        Misbehaviour{"survivor", "passed", "3 passed, 0 failed"},
        Misbehaviour{"daemon", "passed", "3 passed, 0 failed"},
        Misbehaviour{"close_std", "passed", "3 passed, 0 failed"},
        Misbehaviour{"alarm", "passed", "3 passed, 0 failed"},
        Misbehaviour{"arithmetic", "passed", "3 passed, 0 failed"},
        Misbehaviour{"traps", "passed", "3 passed, 0 failed"},
        Misbehaviour{"elsewhere", "passed", "3 passed, 0 failed"},
        Misbehaviour{"flood", "passed", "3 passed, 0 failed"},
        Misbehaviour{"flood_then_abort", "crashed", "signal 6 .*it printed: [.][.][.]####"},
        Misbehaviour{"half_reply", "crashed", "stopped in the middle of its answer"},
        Misbehaviour{"half_reply_hang", "timed out", "ran for longer than"},
        Misbehaviour{"forged_reply", "crashed", "wrote something into its answer"},
        Misbehaviour{"garbage_reply", "crashed", "wrote something into its answer"},
        Misbehaviour{"close_socket", "crashed", "closed its connection"},
        Misbehaviour{"orphan", "crashed", "exit code 4"},
        Misbehaviour{"close_everything", "crashed", "signal|closed its connection|exit code"},
        Misbehaviour{"block_signals", "passed", "3 passed, 0 failed"},
        Misbehaviour{"block_signals_loop", "timed out", "ran for longer than"},
        Misbehaviour{"thread", "passed", "3 passed, 0 failed"},
        Misbehaviour{
            "memory", "crashed",
            "out of memory: it used [0-9]+ MiB of the 256 MiB .*it printed: no more memory"},
        Misbehaviour{"last_words", "crashed", "it printed: first line . the kernel says goodbye"},
        Misbehaviour{"noise", "passed", "3 passed, 0 failed"},
        Misbehaviour{"error", "failed",
                     "run\\(\\) reported an error: no kernel image for this device"},
        Misbehaviour{"late_unsupported", "unsupported", "too many rows for one launch"},
        Misbehaviour{"unwritten", "failed", "attn_out: 384 of 384 elements were never written"},
        Misbehaviour{"last_row_unwritten", "failed",
                     "attn_out: 128 of 384 elements were never written, the first in row 2"}),
    [](const auto& test) { return test.param.what; });

/// In every case, and where there is no case yet.
class PluginDeath : public testing::TestWithParam<Misbehaviour> {};

TEST_P(PluginDeath, IsNamed) {
  const auto& [what, word, says] = GetParam();
  const Outcome outcome = verify_on(plugin("bad", what), {"core-zero-keys"}, {"--timeout", "30"});
  EXPECT_EQ(outcome.code, word == "failed" || word == "unsupported" ? 1
                          : word == "passed"                        ? 0
                                                                    : 5)
      << outcome.out << outcome.err;
  EXPECT_THAT(unwrapped(outcome.out), ContainsRegex("core-zero-keys [^ ]+ " + word));
  EXPECT_THAT(unwrapped(outcome.out), ContainsRegex(says));
}

INSTANTIATE_TEST_SUITE_P(
    All, PluginDeath,
    testing::Values(
        Misbehaviour{"crash_in_create", "crashed", "while it was loaded: signal 11"},
        Misbehaviour{"crash_in_query", "crashed", "signal 6"},
        Misbehaviour{"crash_in_plan", "crashed", "signal 6"},
        Misbehaviour{"hang_in_destroy", "passed", "1 passed, 0 failed"},
        Misbehaviour{"unsupported", "unsupported", "only on Tuesdays and Fridays"},
        Misbehaviour{"unended_message", "unsupported", "xxxx"},
        Misbehaviour{"bad_dtype", "failed", "declares out \\{77, 0, 0\\}; use one of DLPack's"},
        Misbehaviour{"bad_alignment", "failed", "tensor_alignment 3; use a power of two"},
        Misbehaviour{"nondeterministic", "failed",
                     "attn_out differs between two equal calls; declared: deterministic"},
        Misbehaviour{"empty_rows_written", "failed",
                     "row 0, which sees no key, was written; declared: untouched"},
        Misbehaviour{"empty_rows_infinite", "failed",
                     "row 0, which sees no key, is not finite; declared: finite"}),
    [](const auto& test) { return test.param.what; });

/// C++ behind the C interface: what it throws costs the case and is quoted.
TEST(PluginIsolation, ExceptionsThatCrossTheInterfaceAreNamed) {
  for (const auto& [what, says] : {std::pair{"error", "threw an exception: no such tile"},
                                   std::pair{"number", "threw an exception: one that is no std"},
                                   std::pair{"memory", "threw an exception: std::bad_alloc"}}) {
    const Outcome outcome = verify_on(plugin("throwing", what), {"core-zero-keys"});
    EXPECT_EQ(outcome.code, 5) << outcome.out << outcome.err;
    EXPECT_THAT(unwrapped(outcome.out), HasSubstr(says));
  }
}

/// Rounding, subnormals, traps and the locale after a call are those of before it: the next case's
/// reference and the report depend on them.
TEST(PluginIsolation, ACallLeavesOurArithmeticAlone) {
  const Case c = harness::make_case(
      harness::parse_case_spec(
          R"({"config": {"variant": "attention", "entry_point": "attention", "dtype": "float32",
              "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
              "mask": {"variant": "causal"}}, "rows": [[3, 9]]})"),
      1);
  for (const char* what : {"arithmetic", "traps", "locale"}) {
    const auto backend = harness::make_backend(plugin("bad", what));
    const std::string locale = setlocale(LC_ALL, nullptr);
    backend->run(c, stages_of(c.config));
    EXPECT_EQ(std::fegetround(), FE_TONEAREST) << what;
    volatile double smallest = std::numeric_limits<double>::min();
    EXPECT_GT(smallest / 2, 0.0) << what;
    volatile double three = 3.0;
    EXPECT_GT(1.0 / three, 0.0) << what;  // inexact: traps where that is on
    EXPECT_EQ(setlocale(LC_ALL, nullptr), locale) << what;
  }
}

TEST(PluginIsolation, NoiseOfAPluginStaysOutOfTheReport) {
  const Outcome outcome = verify_on(plugin("bad", "noise"), kFiles, {"--json", "-"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.out, Not(HasSubstr("noise 1")));
  EXPECT_THAT(outcome.err, Not(HasSubstr("noise 1")));
}

TEST(PluginIsolation, OurOwnBackendsGiveTheSameBitsInAProcessOfTheirOwn) {
  const std::vector<std::string> files = {"mha-causal-f32", "gqa-ragged-cache-bf16",
                                          "materialize-kv", "core-mla-absorbed"};
  const Outcome here = verify_on("cpu", files, {"-v"});
  const Outcome apart = verify_on("cpu", files, {"-v", "--isolate"});
  EXPECT_EQ(here.code, 0);
  EXPECT_EQ(here.out, apart.out);
}

TEST(PluginIsolation, ResultsComeInOrderWhateverTheNumberOfJobs) {
  std::vector<std::string> files;
  for (int i = 0; i < 4; ++i) files.insert(files.end(), kFiles.begin(), kFiles.end());
  const Outcome one = verify_on(plugin("bad", "abort@3"), files, {"--jobs", "1"});
  const Outcome four = verify_on(plugin("bad", "abort@3"), files, {"--jobs", "4"});
  EXPECT_EQ(one.code, 5);
  EXPECT_EQ(last_line(one.out), "8 passed, 0 failed, 4 crashed");
  EXPECT_EQ(one.out, four.out);
}

TEST(PluginIsolation, OptionsThatExcludeEachOtherAreRefused) {
  const Outcome outcome =
      verify_on(plugin("minimal"), {"core-zero-keys"}, {"--isolate", "--no-isolate"});
  EXPECT_EQ(outcome.code, 2);
  for (const char* seconds : {"0", "-1", "x"}) {
    EXPECT_EQ(verify_on("cpu", {"core-zero-keys"}, {"--timeout", seconds}).code, 2) << seconds;
  }
}

TEST(PluginIsolation, TheHiddenVerbIsNoVerbOfTheUser) {
  const Outcome outcome = attn_compare({"worker", "1000000"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("worker"));
}

/// The processes whose parent is `parent`.
std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> children;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::string pid, command, state;
    pid_t of = 0;
    std::ifstream(entry.path() / "stat") >> pid >> command >> state >> of;
    if (of == parent) children.push_back(std::stoi(name));
  }
  return children;
}

template <typename Condition>
bool within(std::chrono::milliseconds time, const Condition& condition) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

/// Whether a process has used the processor for so long: its backend is at work.
bool has_run_for(pid_t process, double seconds) {
  std::ifstream stat("/proc/" + std::to_string(process) + "/stat");
  std::string field;
  constexpr int kUserTime = 14;
  for (int i = 1; i < kUserTime; ++i) stat >> field;
  long ticks = 0;
  stat >> ticks;
  return static_cast<double>(ticks) > seconds * static_cast<double>(sysconf(_SC_CLK_TCK));
}

/// Whether a process has ended; who inherited it may take its time to ask how.
bool has_ended(pid_t process) {
  std::ifstream stat("/proc/" + std::to_string(process) + "/stat");
  std::string pid, command, state;
  stat >> pid >> command >> state;
  return !stat || state == "Z";
}

class PluginOrphan : public testing::TestWithParam<std::string> {};

/// The parent is killed while run() is busy, whatever the plug-in did to signals and descriptors.
TEST_P(PluginOrphan, EndsWithItsParent) {
  const std::string file = golden("core-zero-keys");
  const std::string backend = plugin("bad", GetParam());
  const pid_t parent = fork();
  if (parent == 0) {
    const int null = open("/dev/null", O_WRONLY);
    dup2(null, STDOUT_FILENO);
    execl(ATTN_COMPARE, "attn-compare", "verify", file.c_str(), "--backend", backend.c_str(),
          "--timeout", "600", nullptr);
    _exit(127);
  }
  std::vector<pid_t> workers;
  constexpr std::chrono::seconds kToStart{60};
  ASSERT_TRUE(within(kToStart, [&] {
    workers = children_of(parent);
    return !workers.empty() && has_run_for(workers.front(), 0.2);
  }));
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  constexpr std::chrono::seconds kToEnd{30};
  EXPECT_TRUE(within(kToEnd, [&] { return has_ended(workers.front()); })) << "it is still there";
  if (HasFailure()) kill(workers.front(), SIGKILL);
}

INSTANTIATE_TEST_SUITE_P(All, PluginOrphan, testing::Values("loop", "block_signals_loop"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace attn::test
