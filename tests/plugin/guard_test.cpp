// Every single-element access beside a tensor is caught and named.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/backends/guarded_memory.h"
#include "tests/plugin/plugin_runner.h"

namespace attn::test {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

/// Every tensor but the indices is a whole number of memory pages: 64 rows, 16 heads, 16 channels.
constexpr char kWholePages[] = "whole-pages";
constexpr char kWholePagesConfig[] =
    R"({"config": {"variant": "attention", "entry_point": "attention", "num_attention_heads": 16,
    "num_key_value_heads": 16, "head_dim": 16, "head_dim_v": 16, "dtype": "float32",
    "mask": {"variant": "causal"}, "kv_cache": {"page_size": 16, "dtype": "float32"}},
    "rows": [[32, 64], [32, 48]]})";

/// Scales for each token and head, a page of the machine each: 64 slots, 16 heads.
constexpr char kScales[] = "scales";
constexpr char kScalesConfig[] =
    R"({"config": {"variant": "attention", "entry_point": "attention", "num_attention_heads": 16,
    "num_key_value_heads": 16, "head_dim": 16, "head_dim_v": 16, "dtype": "float32",
    "mask": {"variant": "causal"}, "kv_cache": {"page_size": 16, "dtype": "float8_e4m3fn",
    "scale_granularity": "token_head"}}, "rows": [[8, 16]]})";

Outcome run_on(const std::string& backend, const std::string& file) {
  if (file != kWholePages && file != kScales) return verify_on(backend, {file});
  return attn_compare({"run", "--config", file == kScales ? kScalesConfig : kWholePagesConfig,
                       "--backend", backend});
}

TEST(PluginGuards, TheCaseOfWholePagesPasses) {
  const Outcome outcome = run_on(plugin("minimal"), kWholePages);
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
}

/// One element before or after one tensor, read or written.
struct Access {
  std::string file;  ///< of data/golden, or kWholePages
  std::string verb, place, tensor;
};

void PrintTo(const Access& a, std::ostream* out) {
  *out << a.verb << " " << a.place << " " << a.tensor << " of " << a.file;
}

std::vector<Access> accesses() {
  std::vector<Access> list;
  const auto add = [&](const std::string& file, const std::vector<std::string>& tensors) {
    for (const std::string& tensor : tensors) {
      for (const std::string verb : {"read", "write"}) {
        for (const std::string place : {"before", "after"}) {
          list.push_back({file, verb, place, tensor});
        }
      }
    }
  };
  const std::vector<std::string> all = {"q",          "k_cache",     "v_cache",
                                        "page_table", "row_offsets", "key_lengths",
                                        "attn_out",   "lse",         "workspace"};
  add(kWholePages, all);
  add("core-zero-keys", {"q", "page_table", "attn_out", "lse"});
  add("core-zero-keys-sinks", {"sinks"});
  add("core-mask-tensor", {"mask"});
  add(kScales, {"k_scale", "v_scale"});
  return list;
}

class PluginGuard : public testing::TestWithParam<Access> {};

TEST_P(PluginGuard, CatchesIt) {
  const auto& [file, verb, place, tensor] = GetParam();
  const Outcome outcome = run_on(plugin("bad", verb + "_" + place + "_" + tensor), file);
  EXPECT_TRUE(outcome.code == 5 || outcome.code == 1) << outcome.out << outcome.err;
  const std::string past = place == "before" ? "before the start of " : "past the end of ";
  // A write into the filling beside a tensor is found after the call, at the nearest byte.
  const std::string where = place == "before" ? ": element -[14], byte -[1-4]( |$)"
                                              : ": element ([0-9]+) of [0-9]+, byte [0-9]+";
  EXPECT_THAT(unwrapped(outcome.out),
              ContainsRegex((verb == "read" ? "read " : "wrote ") + past + tensor + where));
}

INSTANTIATE_TEST_SUITE_P(All, PluginGuard, testing::ValuesIn(accesses()), [](const auto& test) {
  std::string name =
      test.param.verb + "_" + test.param.place + "_" + test.param.tensor + "_" + test.param.file;
  for (char& c : name) c = c == '-' ? '_' : c;
  return name;
});

TEST(PluginInputs, AChangedElementIsNamedWithItsValues) {
  for (const std::string tensor : {"q", "k_cache", "v_cache", "page_table", "key_lengths"}) {
    const Outcome outcome = run_on(plugin("bad", "write_into_" + tensor), "mha-causal-f32");
    EXPECT_EQ(outcome.code, 1) << outcome.out;
    EXPECT_THAT(unwrapped(outcome.out),
                ContainsRegex("changed its input " + tensor + ", element 0 of [0-9]+: .* became "));
  }
}

TEST(PluginInputs, OneThatIsWrittenAndRestoredIsFoundToo) {
  const Outcome outcome = verify_on(plugin("bad", "restore_into_q"), {"mha-causal-f32"});
  EXPECT_EQ(outcome.code, 5);
  EXPECT_THAT(unwrapped(outcome.out), HasSubstr("wrote into the input q: element 0 of "));
}

using harness::GuardedEnd;
using harness::GuardedMemory;

TEST(GuardedMemory, HoldsWhatIsAskedForAtItsAlignment) {
  for (const std::size_t bytes : {0U, 1U, 2U, 48U, 4095U, 4096U, 4097U, 65536U}) {
    for (const std::size_t alignment : {1U, 4U, 16U, 256U, 4096U}) {
      for (const GuardedEnd end : {GuardedEnd::kLast, GuardedEnd::kFirst}) {
        GuardedMemory memory("t", bytes, 1, alignment, end);
        EXPECT_EQ(memory.bytes().size(), bytes);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory.data()) % alignment, 0U);
        for (const std::byte b : memory.bytes()) ASSERT_EQ(b, harness::kPoison);
        std::fill_n(memory.data(), bytes, std::byte{0});
        EXPECT_EQ(memory.overrun(), "");
      }
    }
  }
}

/// Alignment leaves bytes that no page protects; they are checked.
TEST(GuardedMemory, FindsWritesIntoTheRestOfItsPages) {
  GuardedMemory last("t", 20, 4, 16, GuardedEnd::kLast);
  last.data()[20] = std::byte{0};
  EXPECT_EQ(last.overrun(), "wrote past the end of t: element 5 of 5, byte 20");
  GuardedMemory before("t", 20, 4, 4, GuardedEnd::kLast);
  before.data()[-4] = std::byte{0};
  EXPECT_EQ(before.overrun(), "wrote before the start of t: element -1, byte -4");
  GuardedMemory first("t", 20, 4, 4, GuardedEnd::kFirst);
  first.data()[27] = std::byte{0};
  EXPECT_EQ(first.overrun(), "wrote past the end of t: element 6 of 5, byte 27");
}

TEST(GuardedMemory, AFaultIsPlacedByItsAddress) {
  GuardedMemory a("a", 64, 4, 4, GuardedEnd::kLast);
  const std::byte* const start = a.data();
  const harness::FaultPlace after = harness::locate_fault(start + 64);
  ASSERT_NE(after.name, nullptr);
  EXPECT_STREQ(after.name, "a");
  EXPECT_EQ(after.offset, 64);
  EXPECT_EQ(harness::describe_fault(harness::locate_fault(start - 8192), false),
            "read before the start of a: element -2048, byte -8192");
  EXPECT_EQ(harness::locate_fault(&a).name, nullptr);
  const std::byte* gone = nullptr;
  {
    GuardedMemory b("b", 64, 4, 4, GuardedEnd::kLast);
    gone = b.data() + 64;
  }
  EXPECT_EQ(harness::locate_fault(gone).name, nullptr);
}

}  // namespace
}  // namespace attn::test
