// Files in which any value is another one are taken or refused with an Error, never anything else.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "harness/bench/history/parsed.h"
#include "reference/core/error.h"
#include "tests/history/google_json.h"

namespace attn::history {
namespace {

using nlohmann::json;

/// Pointers to every value below `value`.
void collect(json& value, std::vector<json*>& all) {
  all.push_back(&value);
  if (!value.is_structured()) return;
  for (auto& element : value) collect(element, all);
}

json other_value(std::mt19937_64& engine) {
  switch (engine() % 9) {
    case 0:
      return nullptr;
    case 1:
      return -1;
    case 2:
      return 1e300;
    case 3:
      return "text";
    case 4:
      return json::array();
    case 5:
      return json::object();
    case 6:
      return true;
    case 7:
      return json::array({json::object(), 3, "x"});
    default:
      return json{{"name", "value"}, {"value", "1e-5"}};
  }
}

void expect_taken_or_refused(const std::string& text, std::mt19937_64& engine) {
  int taken = 0;
  int refused = 0;
  for (int i = 0; i < 1500; ++i) {
    json file = json::parse(text);
    for (std::uint64_t changes = engine() % 3 + 1; changes > 0; --changes) {
      std::vector<json*> all;
      collect(file, all);
      json* const victim = all[engine() % all.size()];
      if (victim->is_object() && !victim->empty() && engine() % 2 == 0) {
        victim->erase(
            std::next(victim->begin(), static_cast<int>(engine() % victim->size())).key());
      } else {
        *victim = other_value(engine);
      }
    }
    const std::string changed = file.dump();
    try {
      parse_run("x.json", changed);
      ++taken;
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
      ++refused;
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what() << "\n" << changed;
      return;
    }
  }
  EXPECT_GT(taken, 100);
  EXPECT_GT(refused, 100);
}

TEST(Mutations, GoogleBenchmark) {
  std::mt19937_64 engine(1);
  expect_taken_or_refused(
      test::google_json("2026-01-01T00:00:00Z",
                        {{"decode B1 ctx2048 32/8 | cuda",
                          {1.0, 2.0},
                          R"(, "GB/s": 1.0, "parameters": {"batch": 1, "dtype": "x"})"},
                         {"BM/8", {1.0}, R"(, "aggregate_name": "median", "skipped": false)"}},
                        R"(, "gpu": "G", "gpu_count": 2, "parameters BM/8": "{\"batch\": 1}")"),
      engine);
}

TEST(Mutations, Nvbench) {
  std::mt19937_64 engine(2);
  expect_taken_or_refused(R"({"meta": {"argv": ["a"], "version": {"nvbench": {"string": "0.1"}}},
 "devices": [{"id": 0, "name": "G", "sm_default_clock_rate": 5}], "benchmarks": [{"name": "b",
 "states": [{"name": "s", "device": 0, "is_skipped": false,
 "axis_values": [{"name": "T", "type": "string", "value": "F32"}],
 "summaries": [{"tag": "nv/cold/time/gpu/mean", "data": [{"name": "value", "value": "2e-05"}]},
 {"tag": "nv/json/bin:nv/cold/sample_times", "data": [{"name": "filename", "value": "d/0.bin"},
 {"name": "size", "value": "3"}]}]}]}]})",
                          engine);
}

TEST(Mutations, Ours) {
  std::mt19937_64 engine(3);
  expect_taken_or_refused(R"({"device": "G, 1", "torch": "2", "cudnn": 9, "timer": "median of 5 r",
 "rows": [{"name": "B1 S512 32/8 causal", "page": 64, "error": 0.1, "ours_us": 1.5,
 "ours": "8 TFLOP/s", "peer": "P", "peer_graph_us": 2}]})",
                          engine);
  expect_taken_or_refused(R"({"schema_version": 1, "device": "G", "cases": 10, "passed": 9,
 "modes": {"cuda": {"cases": 10, "passed": 9}}, "largest_error_over_bound": {"b": 0.9}})",
                          engine);
  expect_taken_or_refused(
      R"({"schema_version": 1, "gates": {"pr": {"planted": 160, "killed": 159}}})", engine);
}

}  // namespace
}  // namespace attn::history
