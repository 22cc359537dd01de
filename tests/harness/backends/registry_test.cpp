#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "harness/backends/backend.h"
#include "reference/core/error.h"
#include "tests/harness/backends/test_cases.h"

namespace attn::harness {
namespace {

using testing::HasSubstr;

std::string refusal(const std::string& spec) {
  try {
    make_backend(spec);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage) << spec;
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "accepted";
}

TEST(Registry, MakesEveryListedBackendUnderItsName) {
  std::set<std::string> names;
  for (const BackendInfo& info : list_backends()) {
    EXPECT_FALSE(info.summary.empty());
    names.insert(info.name);
    if (info.unavailable.empty()) {
      EXPECT_EQ(make_backend(info.name)->name(), info.name);
    } else {
      EXPECT_THROW(make_backend(info.name), Error);
    }
  }
  EXPECT_EQ(names, (std::set<std::string>{"exact", "faithful", "cpu", "cuda"}));
}

TEST(Registry, OptionsReachTheBackend) {
  const AttentionConfig config = core_config(2, 1, 8);
  EXPECT_EQ(make_backend("cpu")->arithmetic(config).block, 64);
  EXPECT_EQ(make_backend("cpu:block=32")->arithmetic(config).block, 32);
  EXPECT_EQ(make_backend("cpu:threads=3,block=7")->arithmetic(config).block, 7);
  EXPECT_EQ(make_backend("cpu:threads=3,block=7")->name(), "cpu:block=7,threads=3");
}

TEST(Registry, RefusesWhatItDoesNotKnowAndNamesTheNearest) {
  EXPECT_THAT(refusal("cpuu"), HasSubstr("did you mean \"cpu\""));
  EXPECT_THAT(refusal("exat"), HasSubstr("did you mean \"exact\""));
  EXPECT_THAT(refusal("cpu:blok=3"), HasSubstr("did you mean \"block\""));
  EXPECT_THAT(refusal("cpu:thread=3"), HasSubstr("did you mean \"threads\""));
  EXPECT_THAT(refusal(""), HasSubstr("exact"));
  for (const char* value : {"", "0", "-1", "x", "3x", "1.5", "99999999999", " 3"}) {
    EXPECT_THAT(refusal("cpu:block=" + std::string(value)), HasSubstr("whole number from 1"));
    EXPECT_THAT(refusal("cpu:threads=" + std::string(value)), HasSubstr("whole number from 1"));
  }
  for (const char* spec : {"cpu:", "cpu:block", "cpu:block=3,", "cpu:,", "exact:"}) {
    EXPECT_THAT(refusal(spec), HasSubstr("NAME=VALUE")) << spec;
  }
  EXPECT_THAT(refusal("exact:block=3"), HasSubstr("takes no options"));
  EXPECT_THAT(refusal("faithful:threads=3"), HasSubstr("takes no options"));
}

TEST(Registry, EveryBackendSaysWhatItComputesIn) {
  AttentionConfig config = layer_config(4, 2, 16, 64);
  config.dtype = ElementType::kBFloat16;
  config.kv_cache.dtype = ElementType::kFloat16;

  const Arithmetic cpu = make_backend("cpu")->arithmetic(config);
  EXPECT_EQ(cpu.store, ElementType::kFloat32);
  EXPECT_EQ(cpu.out, ElementType::kFloat32);
  EXPECT_EQ(cpu.cache, ElementType::kFloat16);
  EXPECT_EQ(cpu.lanes, 8);

  const Arithmetic exact = make_backend("exact")->arithmetic(config);
  EXPECT_EQ(exact.store, ElementType::kFloat64);
  EXPECT_EQ(exact.cache, ElementType::kFloat64);
  EXPECT_EQ(exact.projection_acc, Accumulator::kFloat64);

  const Arithmetic faithful = make_backend("faithful")->arithmetic(config);
  EXPECT_EQ(faithful.store, ElementType::kBFloat16);
  EXPECT_EQ(faithful.probabilities, ElementType::kFloat16);  // those of V, read from the cache
  EXPECT_EQ(faithful.cos_sin, ElementType::kBFloat16);
  EXPECT_TRUE(faithful.round_twice);
}

TEST(Registry, CpuRunsQuantisedLayersAndEightBitCaches) {
  const std::unique_ptr<Backend> backend = make_backend("cpu");
  AttentionConfig config = layer_config(4, 2, 16, 64);
  config.kv_cache.dtype = ElementType::kFloat8E4M3FN;
  EXPECT_EQ(backend->unsupported_reason(config), "");
  EXPECT_EQ(backend->arithmetic(config).cache, ElementType::kFloat8E4M3FN);
  config.quant = QuantConfig{};
  EXPECT_EQ(backend->unsupported_reason(config), "");
  EXPECT_EQ(backend->arithmetic(config).scaling, ElementType::kFloat32);
  EXPECT_EQ(backend->arithmetic(config).partial, ElementType::kFloat32);
}

}  // namespace
}  // namespace attn::harness
