// The library of planted bugs: it holds the switches of the catalogue, nothing else does, and its
// backends do what a switch says and nothing more.
#include "harness/faults/faulty_library.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <thread>

#include "harness/faults/catalogue.h"
#include "harness/generate/case_spec.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// A plain layer: causal, two groups of two heads, several blocks of keys.
CaseSpec plain_spec() {
  return parse_case_spec(R"({"config": {"variant": "attention_with_rope", "dtype": "float32",
      "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "hidden_size": 64,
      "mask": {"variant": "causal"}, "kv_cache": {"page_size": 8}},
      "rows": [[20, 5], [0, 7]]})");
}

Trace run(const Backend& backend, const Case& c) { return backend.run(c, stages_of(c.config)); }

bool same_bits(const Trace& a, const Trace& b) {
  return a.stages == b.stages && a.cache == b.cache;
}

// Every id has its switch and every switch its entry: a bug whose switch was lost in a change of
// the cpu backend would otherwise be counted as a survivor, or not at all.
TEST(FaultyLibrary, HoldsTheSwitchesOfTheCatalogue) {
  std::set<std::string> switches;
  for (const std::string_view id : FaultyLibrary::instance().ids()) switches.emplace(id);
  std::set<std::string> catalogue;
  for (const FaultInfo& fault : fault_catalogue()) {
    EXPECT_TRUE(catalogue.emplace(fault.id).second) << fault.id << " is listed twice";
  }
  EXPECT_EQ(switches, catalogue);
}

TEST(FaultyLibrary, IsTheOnlyOneWithSwitches) {
  EXPECT_THAT(read(ATTN_FAULTY_FILE), HasSubstr("attn-fault:kv_head_modulo"));
  std::istringstream files(ATTN_ORDINARY_FILES);
  for (std::string file; std::getline(files, file, ':');) {
    const std::string bytes = read(file);
    EXPECT_GT(bytes.size(), 1000U) << file;
    EXPECT_THAT(bytes, Not(HasSubstr("attn-fault:"))) << file;
    EXPECT_THAT(bytes, Not(HasSubstr("is_switched_on"))) << file;
  }
}

TEST(FaultyLibrary, WithNoFaultIsTheOrdinaryBackend) {
  for (std::uint64_t seed = 0; seed < 24; ++seed) {
    const Case c = make_case(random_small_spec(seed), seed);
    const Trace ordinary = run(*make_backend("cpu:block=16,threads=1"), c);
    EXPECT_TRUE(same_bits(ordinary, run(*make_backend("faulty:none"), c))) << c.repro;
  }
}

TEST(FaultyLibrary, CountsWhatASwitchChanges) {
  const Case c = make_case(plain_spec(), 1);
  FaultyLibrary& library = FaultyLibrary::instance();
  const Trace right = run(*library.make("none"), c);
  EXPECT_EQ(library.reached_by_last_run(), 0);
  const std::int64_t before = library.reached("kv_head_modulo");
  EXPECT_FALSE(same_bits(right, run(*library.make("kv_head_modulo"), c)));
  EXPECT_GT(library.reached_by_last_run(), 0);
  EXPECT_EQ(library.reached("kv_head_modulo"), before + library.reached_by_last_run());
  // No window, no sinks: nothing to go wrong.
  for (const char* idle : {"window_one_too_wide", "sink_dropped"}) {
    EXPECT_TRUE(same_bits(right, run(*library.make(idle), c))) << idle;
    EXPECT_EQ(library.reached_by_last_run(), 0) << idle;
  }
}

TEST(FaultyLibrary, RunsDifferentFaultsOnDifferentThreads) {
  const Case c = make_case(plain_spec(), 1);
  const auto faulty = make_backend("faulty:kv_head_modulo");
  const auto right = make_backend("faulty:none");
  const Trace want_faulty = run(*faulty, c);
  const Trace want_right = run(*right, c);
  const auto repeat = [&](const Backend& backend, const Trace& want) {
    for (int i = 0; i < 50; ++i) EXPECT_TRUE(same_bits(want, run(backend, c)));
  };
  std::jthread other([&] { repeat(*faulty, want_faulty); });
  repeat(*right, want_right);
}

TEST(FaultyLibrary, SuggestsTheNearestFault) {
  try {
    make_backend("faulty:kv_head_modul");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_THAT(error.what(), HasSubstr("kv_head_modulo"));
  }
}

}  // namespace
}  // namespace attn::harness
