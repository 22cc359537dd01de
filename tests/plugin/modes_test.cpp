// Plug-ins that replay what they captured, and batches padded to a bucket.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <span>

#include "harness/backends/backend_failure.h"
#include "harness/backends/execution.h"
#include "harness/backends/guarded_memory.h"
#include "harness/backends/plugin.h"
#include "harness/backends/plugin_modes.h"
#include "harness/compare/compare.h"
#include "harness/fuzz/case_source.h"
#include "harness/generate/case_spec.h"
#include "reference/core/error.h"
#include "tests/plugin/plugin_runner.h"

namespace attn::test {
namespace {

using harness::ExecMode;
using ::testing::HasSubstr;
using Words = std::vector<std::string>;

/// Random cases that the plug-in runs.
Words fuzz_on(const std::string& options, const std::string& mode) {
  return {"fuzz",           "--backend", plugin("replay", options),
          "--cases",        "24",        "--no-shrink",
          "--max-failures", "1",         "--relations",
          "none",           "--exec",    mode};
}

harness::CaseSpec spec() {
  harness::CaseSpec spec;
  spec.config.num_attention_heads = 4;
  spec.config.num_key_value_heads = 2;
  spec.config.head_dim = spec.config.head_dim_v = 8;
  spec.config.entry_point = EntryPoint::kAttention;
  spec.config.dtype = spec.config.kv_cache.dtype = ElementType::kFloat32;
  spec.config.kv_cache.page_size = 4;
  spec.config.mask.variant = MaskVariant::kCausal;
  spec.rows = {{1, 9}, {5, 7}, {0, 3}};
  return spec;
}

struct Mistake {
  std::string name;
  std::string mode;  ///< the one in which it shows
  std::string says;
};

void PrintTo(const Mistake& m, std::ostream* out) { *out << m.name << " in " << m.mode; }

class ReplayMistake : public testing::TestWithParam<Mistake> {};

TEST_P(ReplayMistake, ShowsInItsMode) {
  const auto& [name, mode, says] = GetParam();
  const Outcome outcome = attn_compare(fuzz_on(name, mode));
  EXPECT_THAT(outcome.code, testing::AnyOf(1, 5)) << outcome.out << outcome.err;  // 5: it crashed
  EXPECT_THAT(unwrapped(outcome.out), HasSubstr(says));
}

TEST_P(ReplayMistake, DoesNotShowInAPlainCall) {
  const auto backend = harness::make_plugin_backend(plugin("replay", GetParam().name));
  const Case c = harness::make_case(spec(), 7);
  const Trace got = backend->run(c, stages_of(c.config));
  EXPECT_EQ(harness::compare(c, got, backend->arithmetic(c.config)).status,
            harness::Status::kPassed);
}

INSTANTIATE_TEST_SUITE_P(
    All, ReplayMistake,
    testing::Values(Mistake{"offsets_kept", "graph_replay", "; only with --exec graph_replay"},
                    Mistake{"lengths_kept", "graph_replay", "; only with --exec graph_replay"},
                    Mistake{"pages_kept", "graph_replay", "; only with --exec graph_replay"},
                    Mistake{"zero_declared_only", "padded", "declared: zero"},
                    Mistake{"padding_written", "padded", "declared: untouched"}),
    [](const auto& test) { return test.param.name; });

class RightReplay : public testing::TestWithParam<std::string> {};

TEST_P(RightReplay, PassesInEveryMode) {
  const Outcome outcome = attn_compare(fuzz_on(GetParam(), "graph,graph_replay,padded"));
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  EXPECT_THAT(outcome.out, testing::Not(HasSubstr("mode "))) << outcome.out;  // none is refused
}

INSTANTIATE_TEST_SUITE_P(All, RightReplay, testing::Values("untouched", "zero", "finite"),
                         [](const auto& test) { return test.param; });

/// What running a mode throws, "" for nothing.
std::string refusal(const std::string& options, ExecMode mode) {
  const auto backend = harness::make_plugin_backend(plugin("replay", options));
  const Case c = harness::make_case(spec(), 7);
  const harness::OtherCase made = harness::other_case(spec(), 7);
  const Case other = harness::make_case(made.spec, made.seed);
  try {
    harness::execute(*backend, mode, c, &other, stages_of(c.config));
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
    return error.what();
  } catch (const harness::BackendFailure& failure) {
    return failure.what();
  }
  return "";
}

TEST(PluginModes, UndeclaredOnesAreUnsupported) {
  EXPECT_EQ(refusal("no_modes", ExecMode::kGraph),
            "mode graph: the plug-in does not declare ATTN_MODE_REPLAY (a Python function: "
            "@backend(graph=...))");
  EXPECT_EQ(refusal("only_padded", ExecMode::kGraphReplay),
            "mode graph_replay: the plug-in does not declare ATTN_MODE_REPLAY (a Python function: "
            "@backend(graph=...))");
  EXPECT_EQ(refusal("no_modes", ExecMode::kPadded),
            "mode padded: the plug-in does not declare ATTN_MODE_PADDED (a Python function: "
            "@backend(padding=...))");
  EXPECT_EQ(refusal("only_padded", ExecMode::kPadded), "");
  EXPECT_EQ(refusal("only_replay", ExecMode::kGraph),
            "query() declares ATTN_MODE_REPLAY without ATTN_MODE_PADDED");
  EXPECT_EQ(refusal("undeclared_padding_rows", ExecMode::kPadded),
            "query() declares padding_rows 9; use one of ATTN_PADDING_...");
}

/// A mistake of a way of calling is placed in no stage that the kernel was fed with, nor by cases
/// that are called plainly.
TEST(PluginModes, WhatAKernelWasGivenIsNotTheFirstBadStage) {
  const Outcome outcome = attn_compare(fuzz_on("lengths_kept", "graph_replay"));
  EXPECT_THAT(unwrapped(outcome.out), HasSubstr("stage lse"));
  EXPECT_THAT(unwrapped(outcome.out), testing::Not(HasSubstr("first bad stage inside")));
}

class LayerModes : public testing::TestWithParam<std::string> {};

/// A whole layer, whose cache is written and comes back without the room for more pages, and a part
/// of one, which is given the rows before it.
TEST_P(LayerModes, PassesReplayedAndPadded) {
  const Outcome outcome =
      attn_compare({"fuzz", "--backend", plugin("layer", GetParam()), "--cases", "24",
                    "--no-shrink", "--exec", "graph,graph_replay,padded", "--relations", "none"});
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  EXPECT_THAT(outcome.out, testing::Not(HasSubstr("mode "))) << outcome.out;
}

// From the inputs every stage but the table; from rope the rotated rows and what follows them.
INSTANTIATE_TEST_SUITE_P(All, LayerModes, testing::Values("1-1ffe", "3-1fc0"));

/// A replay has room for more pages than its case: they come off again, and must be as they were.
TEST(PluginModes, PagesThatNobodyOwnsStayAsTheyWere) {
  const Case c = harness::make_case(spec(), 7);
  const auto with_another_page = [](const Tensor& pool, std::byte last) {
    Shape shape = pool.shape();
    ++shape[0];
    Tensor more(pool.type(), shape);
    std::ranges::fill(std::span(more.data(), more.bytes().size()), harness::kPoison);
    std::ranges::copy(pool.bytes(), more.data());
    more.data()[more.bytes().size() - 1] = last;
    return more;
  };
  Trace trace;
  trace.cache = c.cache;
  trace.cache->k = with_another_page(c.cache.k, harness::kPoison);
  trace.cache->v = with_another_page(c.cache.v, harness::kPoison);
  Trace spoilt = trace;
  harness::remove_room(c, ATTN_PADDING_ZERO, trace);
  EXPECT_TRUE(trace.cache->k == c.cache.k);
  EXPECT_TRUE(trace.cache->v == c.cache.v);
  spoilt.cache->v = with_another_page(c.cache.v, std::byte{0});
  try {
    harness::remove_room(c, ATTN_PADDING_ZERO, spoilt);
    FAIL() << "a write into a page of nobody was not seen";
  } catch (const harness::BackendFailure& failure) {
    EXPECT_THAT(failure.what(),
                HasSubstr("pages of v_cache that no entry of the page table names"));
  }
}

TEST(PluginModes, AReplayAnswersWhatAPlainCallDoes) {
  const auto backend = harness::make_plugin_backend(plugin("replay"));
  const Case c = harness::make_case(spec(), 7);
  const harness::OtherCase made = harness::other_case(spec(), 7);
  const Case other = harness::make_case(made.spec, made.seed);
  for (const ExecMode mode : {ExecMode::kGraph, ExecMode::kGraphReplay, ExecMode::kPadded}) {
    const Trace trace = harness::execute(*backend, mode, c, &other, stages_of(c.config));
    EXPECT_EQ(trace[Stage::kAttnOut].dim(0), c.tokens());
    EXPECT_TRUE(trace.cache->k == c.cache.k);
    const Trace plain = backend->run(c, stages_of(c.config));
    EXPECT_EQ(harness::first_difference(plain, trace), "") << name_of(mode);
  }
}

}  // namespace
}  // namespace attn::test
