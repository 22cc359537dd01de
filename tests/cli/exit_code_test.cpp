#include "harness/cli/exit_code.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "harness/cli/ordered_pool.h"
#include "harness/cli/session.h"

namespace attn::cli {
namespace {

using harness::Report;
using harness::ReportRow;
using harness::Status;
using harness::Trouble;

ReportRow row(Status status, Trouble trouble = Trouble::kNone) {
  ReportRow result;
  result.verdict.status = status;
  result.trouble = trouble;
  return result;
}

/// From the highest rule to the lowest: each added on top of all lower ones decides.
TEST(ExitCode, TheHighestRuleWins) {
  Report report;
  EXPECT_EQ(exit_code(report), 4);  // nothing ran
  report.rows.push_back(row(Status::kSkipped));
  EXPECT_EQ(exit_code(report), 4);
  report.rows.push_back(row(Status::kPassed));
  EXPECT_EQ(exit_code(report), 0);
  report.rows.push_back(row(Status::kMistrusted));
  EXPECT_EQ(exit_code(report), 6);
  report.rows.push_back(row(Status::kFailed));
  EXPECT_EQ(exit_code(report), 1);
  report.rows.push_back(row(Status::kTimedOut));
  EXPECT_EQ(exit_code(report), 5);
  report.rows.push_back(row(Status::kPassed, Trouble::kUnreadable));
  EXPECT_EQ(exit_code(report), 3);
  report.interrupted = true;
  EXPECT_EQ(exit_code(report), 130);
  report.rows.push_back(row(Status::kPassed, Trouble::kInternal));
  EXPECT_EQ(exit_code(report), 70);
}

TEST(ExitCode, CrashedIsFiveAndUnsupportedIsOneUnlessAllowed) {
  Report report;
  report.rows = {row(Status::kPassed), row(Status::kUnsupported)};
  EXPECT_EQ(exit_code(report), 1);
  report.allow_unsupported = true;
  EXPECT_EQ(exit_code(report), 0);
  report.rows.push_back(row(Status::kCrashed));
  EXPECT_EQ(exit_code(report), 5);
}

TEST(ExitCode, MistrustedNeverCountsAsPassed) {
  Report report;
  report.rows = {row(Status::kMistrusted)};
  EXPECT_EQ(exit_code(report), 6);
  EXPECT_EQ(report.tally().passed, 0);
}

TEST(OrderedPool, EmitsInOrderAndStops) {
  std::vector<std::size_t> seen;
  const std::function<std::size_t(std::size_t)> work = [](std::size_t i) {
    std::this_thread::sleep_for(std::chrono::microseconds(200));
    return i * i;
  };
  const auto emit = [&](std::size_t value) { seen.push_back(value); };
  const auto idle = [](std::size_t) {};
  EXPECT_EQ(run_in_order<std::size_t>(100, 4, work, emit, idle, [] { return false; }), 100u);
  for (std::size_t i = 0; i < 100; ++i) EXPECT_EQ(seen[i], i * i);
}

TEST(OrderedPool, BeginsNothingMoreOnceItIsStopped) {
  constexpr std::size_t kEnough = 10;
  std::atomic<std::size_t> emitted{0};
  // Item 20 is not ended before ten were emitted, however slow the thread is that emits them.
  const std::function<std::size_t(std::size_t)> work = [&](std::size_t i) {
    while (i >= 2 * kEnough && emitted < kEnough) std::this_thread::yield();
    return i;
  };
  const std::size_t count = run_in_order<std::size_t>(
      1000, 2, work, [&](std::size_t) { ++emitted; }, [](std::size_t) {},
      [&] { return emitted >= kEnough; });
  EXPECT_EQ(count, emitted);
  EXPECT_GE(count, kEnough);
  EXPECT_LE(count, 2 * kEnough + 2);
}

TEST(ShellQuote, QuotesWhatAShellWouldRead) {
  EXPECT_EQ(shell_quote("data/golden/a-b_c.h5"), "data/golden/a-b_c.h5");
  EXPECT_EQ(shell_quote("a b"), "'a b'");
  EXPECT_EQ(shell_quote("it's"), "'it'\\''s'");
  EXPECT_EQ(shell_quote(""), "''");
}

}  // namespace
}  // namespace attn::cli
