#include "harness/backends/execution.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

#include "harness/backends/backend_failure.h"
#include "harness/backends/padding.h"
#include "harness/fuzz/case_source.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

using ::testing::ElementsAre;

const CaseSpec& spec() {
  static const CaseSpec kSpec = parse_case_spec(
      R"({"config": {"variant": "attention", "entry_point": "attention", "num_attention_heads": 2,
          "num_key_value_heads": 1, "head_dim": 8, "dtype": "float32",
          "mask": {"variant": "causal"}, "kv_cache": {"page_size": 4}}, "rows": [[3, 9]]})");
  return kSpec;
}

/// cpu with a mistake that run() makes.
class Broken : public Backend {
 public:
  std::string name() const override { return "broken"; }
  std::string unsupported_reason(const AttentionConfig&) const override { return ""; }
  Arithmetic arithmetic(const AttentionConfig& config) const override {
    Arithmetic a = inner_->arithmetic(config);
    a.deterministic = true;
    return a;
  }
  Trace run(const Case& c, std::span<const Stage> wanted) const override {
    Trace trace = inner_->run(c, wanted);
    spoil(c, trace[Stage::kAttnOut]);
    return trace;
  }

 protected:
  virtual void spoil(const Case& c, Tensor& out) const = 0;

 private:
  std::unique_ptr<Backend> inner_ = make_backend("cpu:threads=1");
};

/// Keeps the number of keys of its first call.
class KeepsPlan final : public Broken {
  void spoil(const Case& c, Tensor& out) const override {
    if (keys_ < 0) keys_ = c.total_keys();
    if (keys_ != c.total_keys()) out.set_value(0, out.value(0) + 1.0);
  }
  mutable std::int64_t keys_ = -1;
};

/// Multiplies what it finds in a fresh block by zero and adds it.
class TrustsFreshMemory final : public Broken {
  void spoil(const Case&, Tensor& out) const override {
    constexpr std::size_t kFloats = 1000, kPastLinks = 100;
    auto* memory = static_cast<float*>(std::malloc(kFloats * sizeof(float)));
    asm volatile("" : "+r"(memory) : : "memory");
    out.set_value(0, out.value(0) + 0.0 * static_cast<double>(memory[kPastLinks]));
    std::free(memory);
  }
};

/// Keeps its largest output between calls.
class KeepsScratch final : public Broken {
  void spoil(const Case&, Tensor& out) const override {
    out.set_value(0, out.value(0) + 0.0 * scratch_);
    scratch_ = out.value(1);
  }
  mutable double scratch_ = 0.0;
};

/// Never gives the same bits twice.
class Counts final : public Broken {
  void spoil(const Case&, Tensor& out) const override { out.set_value(0, ++calls_); }
  mutable int calls_ = 0;
};

Trace run(const Backend& backend, ExecMode mode) {
  const Case c = make_case(spec(), 3);
  const OtherCase made = other_case(spec(), 3);
  const Case other = make_case(made.spec, made.seed);
  return execute(backend, mode, c, &other, stages_of(c.config));
}

TEST(Execution, NamesAreReadBack) {
  EXPECT_THAT(parse_exec_modes("plain,second_call,dirty_scratch,repeat"),
              ElementsAre(ExecMode::kPlain, ExecMode::kSecondCall, ExecMode::kDirtyScratch,
                          ExecMode::kRepeat));
  EXPECT_THAT(parse_exec_modes("repeat,repeat"), ElementsAre(ExecMode::kRepeat));
  EXPECT_THROW(parse_exec_modes("plain,"), Error);
  EXPECT_THROW(parse_exec_modes("twice"), Error);
}

TEST(Execution, EveryModeIsDealtAsOften) {
  std::map<ExecMode, int> dealt;
  for (std::uint64_t n = 0; n < 70; ++n) ++dealt[dealt_mode(n)];
  EXPECT_EQ(dealt.size(), 7U);
  for (const auto& [mode, count] : dealt) EXPECT_EQ(count, 10) << name_of(mode);
}

TEST(PaddingRows, AreHeldToTheDeclaration) {
  const std::vector<double> values{0.0, 0.0, -0.0, 0.0, 1.5, 0.0};
  const Tensor rows = Tensor::from_values(ElementType::kBFloat16, {2, 3}, values);
  const auto mistake = [&](PaddingRows declared, std::span<const std::byte> bytes) {
    return padding_mistake(declared, ElementType::kBFloat16, 7, 3, bytes, std::byte{0xff});
  };
  EXPECT_EQ(mistake(PaddingRows::kZero, rows.bytes().first(6)), "");
  EXPECT_EQ(mistake(PaddingRows::kZero, rows.bytes()),
            "padding row 8, column 1 is 1.5; declared: zero");
  EXPECT_EQ(mistake(PaddingRows::kFinite, rows.bytes()), "");
  std::vector<std::byte> poison(12, std::byte{0xff});
  EXPECT_EQ(mistake(PaddingRows::kUntouched, poison), "");
  EXPECT_NE(mistake(PaddingRows::kFinite, poison), "");
  poison[9] = std::byte{0};  // the upper byte of row 8, column 1
  EXPECT_THAT(mistake(PaddingRows::kUntouched, poison),
              ::testing::StartsWith("padding row 8, column 1 is"));
}

TEST(Execution, TheOtherCaseHasOtherLengthsAndTheSameConfig) {
  for (const std::uint64_t seed : {4U, 5U}) {
    const OtherCase other = other_case(spec(), seed);
    EXPECT_EQ(other.spec.config, spec().config);
    EXPECT_NE(other.spec.rows, spec().rows);
    EXPECT_NE(other.seed, seed);
    EXPECT_NO_THROW(validate(other.spec));
  }
}

TEST(Execution, ARightBackendAnswersAlikeInEveryMode) {
  const auto cpu = make_backend("cpu");
  const Trace plain = run(*cpu, ExecMode::kPlain);
  for (const ExecMode mode : {ExecMode::kSecondCall, ExecMode::kDirtyScratch, ExecMode::kRepeat}) {
    EXPECT_EQ(first_difference(plain, run(*cpu, mode)), "") << name_of(mode);
  }
}

TEST(Execution, ASecondCallShowsWhatTheFirstLeft) {
  EXPECT_EQ(
      first_difference(run(KeepsPlan(), ExecMode::kPlain), run(KeepsPlan(), ExecMode::kSecondCall)),
      "attn_out");
}

TEST(Execution, DirtyMemoryReachesFreshBlocksAndKeptScratch) {
#if !defined(__SANITIZE_ADDRESS__)  // whose heap gives out no block again for a while
  EXPECT_TRUE(
      std::isnan(run(TrustsFreshMemory(), ExecMode::kDirtyScratch)[Stage::kAttnOut].value(0)));
#endif
  EXPECT_TRUE(std::isnan(run(KeepsScratch(), ExecMode::kDirtyScratch)[Stage::kAttnOut].value(0)));
  EXPECT_FALSE(std::isnan(run(KeepsScratch(), ExecMode::kRepeat)[Stage::kAttnOut].value(0)));
}

TEST(Execution, RepeatHoldsABackendToItsClaim) {
  EXPECT_THROW(run(Counts(), ExecMode::kRepeat), BackendFailure);
  EXPECT_NO_THROW(run(Counts(), ExecMode::kPlain));
}

TEST(Execution, ModesOfDevicesAreRefusedWithAReason) {
  for (const ExecMode mode : {ExecMode::kGraph, ExecMode::kGraphReplay, ExecMode::kPadded}) {
    try {
      run(*make_backend("cpu"), mode);
      ADD_FAILURE() << name_of(mode);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
      EXPECT_THAT(error.what(), ::testing::HasSubstr(std::string(name_of(mode))));
    }
  }
}

}  // namespace
}  // namespace attn::harness
