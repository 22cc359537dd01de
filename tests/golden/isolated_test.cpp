#include "golden/isolated.h"

#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string>
#include <vector>

namespace attn::golden {
namespace {

constexpr IsolationLimits kLimits = {1, std::uint64_t{64} << 20};

TEST(IsolatedProcess, StreamsWhatTheWorkSends) {
  const std::string text(1 << 20, 'x');  // more than a pipe holds
  IsolatedProcess process(kLimits, [&](const Send& send) { send(text.data(), text.size()); });
  std::string got(text.size(), ' ');
  EXPECT_TRUE(process.receive(got.data(), got.size()));
  EXPECT_EQ(got, text);
  char more = 0;
  EXPECT_FALSE(process.receive(&more, 1));
  EXPECT_EQ(process.cause_of_death(), "");
}

TEST(IsolatedProcess, ACrashEndsTheStreamOnly) {
  IsolatedProcess process(kLimits, [](const Send& send) {
    send("ab", 2);
    std::raise(SIGSEGV);
  });
  char got[3] = {};
  EXPECT_FALSE(process.receive(got, sizeof got));
  EXPECT_EQ(std::string(got, 2), "ab");
  EXPECT_NE(process.cause_of_death().find("crashed with signal 11"), std::string::npos);
}

TEST(IsolatedProcess, AnEndlessLoopIsEnded) {
  IsolatedProcess process(kLimits, [](const Send&) {
    volatile bool forever = true;
    while (forever) {
    }
  });
  char got = 0;
  EXPECT_FALSE(process.receive(&got, 1));
  EXPECT_EQ(process.cause_of_death(), kRanTooLong);
}

TEST(IsolatedProcess, MemoryIsLimited) {
  IsolatedProcess process(kLimits, [](const Send& send) {
    void* memory = std::malloc(std::size_t{1} << 30);
    if (memory != nullptr) send(memory, 1);
    std::free(memory);
  });
  char answer = 0;
  EXPECT_FALSE(process.receive(&answer, 1));
}

TEST(IsolatedProcess, AnAbandonedOneEnds) {
  // The destructor must not wait for a process that still wants to write.
  const auto start = std::chrono::steady_clock::now();
  {
    const std::vector<char> much(16 << 20);
    IsolatedProcess process(kLimits, [&](const Send& send) { send(much.data(), much.size()); });
  }
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  EXPECT_LT(taken.count(), 10.0);  // its own limit of wall time is 30 s
}

}  // namespace
}  // namespace attn::golden
