// What fuzz says of a user's attention kernel: cases that fit it, mistakes of lse by name, the
// stage that is wrong, and a line that shows the failure again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/plugin/plugin_runner.h"

namespace attn::test {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

Outcome fuzz(const std::string& backend, const std::string& cases) {
  return attn_compare({"fuzz", "--backend", backend, "--cases", cases, "--max-failures", "1"});
}

/// The line that shows a failure again, without the word before it.
std::string reproducing_line(const std::string& text) {
  const std::string before = "  reproduce  ";
  const std::size_t begin = text.find(before);
  if (begin == std::string::npos) return "";
  const std::size_t first = begin + before.size();
  return text.substr(first, text.find('\n', first) - first);
}

/// "2.0e+06x the bound, row 0 (sequence 0, position 0), head 2": what tells one failure from
/// another.
std::string account(const std::string& text) {
  const std::string line = unwrapped(text);
  const std::size_t begin = line.find("x the bound");
  const std::size_t from = line.rfind(", ", begin);
  return begin == std::string::npos ? "" : line.substr(from + 2, line.find(';', begin) - from - 2);
}

/// A kernel of float32, causal and no more is tried on what is left of every case.
TEST(FuzzOnPlugin, CasesAreFittedToWhatItSupports) {
  const Outcome outcome = attn_compare({"fuzz", "--backend", plugin("minimal"), "--cases", "40"});
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  EXPECT_THAT(outcome.out, ContainsRegex("[0-9]+ judged without the features that the backend"));
  EXPECT_THAT(last_line(outcome.out), ContainsRegex("^40 passed, 0 failed"));
}

TEST(FuzzOnPlugin, MistakesOfLseAreNamed) {
  for (const auto& [what, says] :
       {std::pair{"silent_base2", "looks like: logarithm to base 2 instead of e"},
        std::pair{"silent_heads_first", "looks like: heads before tokens"},
        std::pair{"silent_no_sink", "looks like: without the sink"}}) {
    const Outcome outcome = fuzz(plugin("bad", what), "60");
    EXPECT_EQ(outcome.code, 1) << what << outcome.out << outcome.err;
    EXPECT_THAT(unwrapped(outcome.out), HasSubstr("stage lse")) << what;
    EXPECT_THAT(unwrapped(outcome.out), HasSubstr(says)) << what;
  }
}

/// A paged kernel that attends to all slots of the pages it needs: stage, place, smallest case,
/// name.
TEST(FuzzOnPlugin, WholePagesAreNamed) {
  const Outcome outcome = fuzz(plugin("whole_pages"), "60");
  EXPECT_EQ(outcome.code, 1) << outcome.out << outcome.err;
  EXPECT_THAT(
      unwrapped(outcome.out),
      HasSubstr("attention, stage lse, got nan for 2.25398, row 0 (sequence 0, position 0), "
                "head 0 (NaN or infinity in 1 elements); shrunk to 1 head, 1 key, page 128; "
                "looks like: last page's tail not masked (within 0.012 of the bound)"));
}

/// In another process, from the line alone: the same error at the same place.
TEST(FuzzOnPlugin, TheLineShowsTheSameFailureAgain) {
  for (const std::string& backend :
       {plugin("bad", "silent_base2"), std::string("faulty:kv_head_modulo"),
        std::string("faulty:window_one_too_wide"), std::string("faulty:norm_eps_ignored"),
        std::string("faulty:fp8_truncated")}) {
    const Outcome outcome = fuzz(backend, "100");
    ASSERT_EQ(outcome.code, 1) << backend << outcome.out << outcome.err;
    const std::string line = reproducing_line(outcome.out);
    ASSERT_NE(line, "") << outcome.out;
    const Outcome first = shell(line), second = shell(line);
    EXPECT_EQ(first.code, 1) << line << first.out << first.err;
    EXPECT_EQ(first.out, second.out);
    const std::string ratio = account(outcome.out).substr(0, account(outcome.out).find('x'));
    EXPECT_THAT(first.out, HasSubstr(ratio)) << outcome.out;
  }
}

/// A kernel that shows its output alone, and reads one key too few: found inside.
TEST(FuzzOnPlugin, TheStageInsideIsFound) {
  const Outcome outcome = fuzz(plugin("bad", "last_key_dropped"), "60");
  EXPECT_EQ(outcome.code, 1) << outcome.out << outcome.err;
  EXPECT_THAT(unwrapped(outcome.out), HasSubstr("first bad stage inside: lse")) << outcome.out;
  EXPECT_THAT(unwrapped(outcome.out), HasSubstr("inside lse by")) << outcome.out;
  EXPECT_THAT(outcome.out, Not(HasSubstr("not surely")));
}

}  // namespace
}  // namespace attn::test
