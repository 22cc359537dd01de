// The files of other programs: nvbench, peers.py, figures of conformance; and what is written out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <nlohmann/json.hpp>
#include <sstream>

#include "harness/bench/history/export.h"
#include "harness/bench/history/import.h"
#include "reference/core/error.h"
#include "tests/history/google_json.h"
#include "tests/history/scratch.h"

namespace attn::history {
namespace {

using test::google_json;
using test::Scratch;
using ::testing::AllOf;
using ::testing::DoubleEq;
using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;
using ::testing::Pair;
using ::testing::StartsWith;

/// As nvbench's json_printer writes: numbers as texts, samples in a file beside.
std::string nvbench_json(const std::string& sample_count) {
  return R"({"meta": {"argv": ["./bench/copy", "--json", "r.json"], "version": {
 "json": {"major": 1, "minor": 0, "patch": 0, "string": "1.0.0"},
 "nvbench": {"major": 0, "minor": 1, "patch": 0, "string": "0.1.0", "git_sha": "66212f1"}}},
 "devices": [{"id": 0, "name": "NVIDIA H200", "sm_version": 900, "sm_default_clock_rate": 1980000000,
 "number_of_sms": 132}],
 "benchmarks": [{"name": "copy", "index": 0, "devices": [0], "axes": [],
 "states": [
  {"name": "Device=0 T=F32 Elements=2^20", "device": 0, "type_config_index": 0, "axis_values": [
    {"name": "T", "type": "string", "value": "F32"},
    {"name": "Elements", "type": "int64", "value": "1048576"}],
   "summaries": [
    {"tag": "nv/cold/sample_size", "name": "Samples", "data": [{"name": "value", "type": "int64", "value": "3"}]},
    {"tag": "nv/cold/time/cpu/mean", "hint": "duration", "data": [{"name": "value", "type": "float64", "value": "9e-05"}]},
    {"tag": "nv/cold/time/gpu/mean", "hint": "duration", "data": [{"name": "value", "type": "float64", "value": "2e-05"}]},
    {"tag": "nv/cold/time/gpu/stdev/absolute", "data": [{"name": "value", "type": "float64", "value": "1e-06"}]},
    {"tag": "nv/cold/bw/global/bytes_per_second", "data": [{"name": "value", "type": "float64", "value": "4e12"}]},
    {"tag": "nv/json/bin:nv/cold/sample_times", "hide": "", "data": [
      {"name": "filename", "type": "string", "value": "r.json-bin/0.bin"},
      {"name": "size", "type": "int64", "value": ")" +
         sample_count + R"("}]}],
   "is_skipped": false},
  {"name": "Device=0 T=F64 Elements=2^20", "device": 0, "axis_values": [
    {"name": "T", "type": "string", "value": "F64"}], "summaries": null, "is_skipped": true,
   "skip_reason": "too large"}]}]})";
}

TEST(Nvbench, ReadsJsonWithItsSamples) {
  const Scratch scratch;
  std::filesystem::create_directory(scratch / "r.json-bin");
  const std::array<float, 3> seconds{20e-6F, 30e-6F, 25e-6F};
  scratch.file("r.json-bin/0.bin",
               std::string(reinterpret_cast<const char*>(seconds.data()), sizeof(seconds)));
  const ParsedRun run = parse_run(scratch / "r.json", nvbench_json("3"));
  EXPECT_EQ(run.run.source_kind, "nvbench-json");
  EXPECT_EQ(run.run.program, "copy");
  EXPECT_EQ(run.run.machine.gpu, "NVIDIA H200");
  EXPECT_EQ(run.run.clocks, "1980 MHz SM by default");
  ASSERT_EQ(run.results.size(), 2U);
  const ParsedResult& copy = run.results[0];
  EXPECT_EQ(copy.benchmark.timer, "gpu");
  EXPECT_THAT(copy.benchmark.parameters,
              ElementsAre(Pair("Elements", "1048576"), Pair("T", "F32")));
  EXPECT_EQ(copy.samples.size(), 3U);
  EXPECT_THAT(copy.result.median_ns, Optional(DoubleNear(25e3, 1e-2)));
  EXPECT_THAT(copy.result.gbps, Optional(4000.0));
  EXPECT_THAT(copy.metrics, testing::Contains(Pair("nv/cold/time/cpu/mean", 9e-5)));
  EXPECT_EQ(run.results[1].result.error, "too large");
}

TEST(Nvbench, TakesSummariesWithoutSamples) {
  const ParsedRun run = parse_run("/nowhere/r.json", nvbench_json("3"));
  const Result& result = run.results.at(0).result;
  EXPECT_THAT(result.mean_ns, Optional(DoubleEq(2e4)));
  EXPECT_THAT(result.median_ns, Optional(DoubleEq(2e4)));
  EXPECT_THAT(result.stddev_ns, Optional(DoubleEq(1e3)));
  EXPECT_EQ(result.repetitions, 3);
  EXPECT_EQ(result.samples, 0);
}

TEST(Nvbench, RefusesSamplesOfAnotherSize) {
  const Scratch scratch;
  std::filesystem::create_directory(scratch / "r.json-bin");
  scratch.file("r.json-bin/0.bin", "1234");
  EXPECT_THROW(parse_run(scratch / "r.json", nvbench_json("3")), Error);
  EXPECT_THROW(parse_run("r.json", R"({"devices": [], "benchmarks": [{"name": "x"}]})"), Error);
  EXPECT_THROW(parse_run("r.json", R"({"devices": [], "benchmarks": []})"), Error);
}

TEST(Nvbench, ReadsCsv) {
  const std::string header =
      "Benchmark,Device,Device Name,Elements (pow2),Elements,T,Skipped,Samples,CPU Time "
      "(sec),Noise,"
      "GPU Time (sec),Noise,GlobalMem BW (bytes/sec)\n";
  const ParsedRun run = parse_run(
      "r.csv", header + "copy,0,NVIDIA H200,2^20,1048576,F32,No,64,9e-05,0.5,2e-05,0.05,4e12\n" +
                   "copy,0,NVIDIA H200,2^21,2097152,F32,Yes,,,,,,\n");
  EXPECT_EQ(run.run.source_kind, "nvbench-csv");
  EXPECT_EQ(run.run.machine.gpu, "NVIDIA H200");
  EXPECT_EQ(run.run.machine.gpu_count, 1);
  const ParsedResult& copy = run.results.at(0);
  EXPECT_THAT(copy.result.mean_ns, Optional(DoubleEq(2e4)));
  EXPECT_THAT(copy.result.stddev_ns, Optional(DoubleEq(1e3)));
  EXPECT_THAT(copy.result.gbps, Optional(4000.0));
  EXPECT_EQ(copy.result.repetitions, 64);
  EXPECT_THAT(copy.benchmark.parameters,
              ElementsAre(Pair("Elements", "1048576"), Pair("T", "F32")));
  EXPECT_EQ(run.results.at(1).result.error, "skipped");
  EXPECT_THROW(parse_run("r.csv", header + "copy,0\n"), Error);
  EXPECT_THROW(parse_run("r.csv", "Benchmark,Device,Device Name,T\ncopy,0,X,F32\n"), Error);
}

TEST(Nvbench, RefusesForeignCsvByItsHeader) {
  try {
    parse_run("x.csv", "name,time\nk,1.0\n");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("x.csv: is no CSV of nvbench: its first line does not"));
  }
}

TEST(Peers, BecomeRowsOfTheSameShape) {
  const ParsedRun run = parse_run("peers.json", R"({"device": "NVIDIA H200, 580.159.04",
 "torch": "2.11.0", "cudnn": 91900, "timer": "graphs; median of 5 interleaved rounds", "rows": [
 {"name": "B16 ctx8192 32/8", "sets": 1, "page": 64, "error_vs_flash": 0.003, "ours_us": 125.23,
  "ours": "4287 GB/s", "flash_us": 127.89, "flash": "4198 GB/s", "ratio_flash": 1.02},
 {"name": "layer decode 64 x ctx 8191", "page": 64, "peer": "CUDNN_ATTENTION", "ours_us": 518.8,
  "peer_graph_us": 540.5, "peer_eager_us": 794.3}]})");
  EXPECT_EQ(run.run.driver, "580.159.04");
  EXPECT_EQ(run.run.libraries, "torch 2.11.0, cudnn 91900");
  ASSERT_EQ(run.results.size(), 5U);
  for (const ParsedResult& r : run.results) {
    const bool is_layer = r.benchmark.kind == "layer";
    EXPECT_EQ(r.benchmark.shape, is_layer ? "layer B64 ctx8192 hidden4096 32/8 D128 bfloat16"
                                          : "decode B16 ctx8192 32/8 D128 bfloat16");
    EXPECT_EQ(r.benchmark.is_peer, r.benchmark.backend != "cuda") << r.benchmark.backend;
    EXPECT_EQ(r.benchmark.timer, r.benchmark.backend == "torch_eager" ? "events" : "graph");
    EXPECT_EQ(r.result.repetitions, 5);
  }
  // The same work as a row of attn-bench, whatever either calls it.
  const ParsedRun ours = parse_run(
      "a.json",
      google_json("2026-01-01T00:00:00Z", {{"decode B16 ctx8192 32/8 | cuda", {1.0}, ""}}));
  EXPECT_EQ(ours.results.at(0).benchmark.shape, run.results.at(0).benchmark.shape);
  EXPECT_THROW(parse_run("p.json", R"({"device": "d", "timer": "t", "rows": [{"ours_us": 1}]})"),
               Error);
  EXPECT_THROW(
      parse_run("p.json", R"({"device": "d", "timer": "t", "rows": [{"name": "n", "a_us": "x"}]})"),
      Error);
}

TEST(Counters, AreMediansButForErrors) {
  std::string text = google_json("2026-01-01T00:00:00Z",
                                 {{"k", {1.0, 2.0, 3.0}, R"(, "error/bound": 0.1, "GB/s": 5.0)"}});
  text.replace(text.find("0.1,"), 3, "0.7");
  text.replace(text.find("5.0"), 3, "9.0");
  const ParsedRun run = parse_run("a.json", text);
  EXPECT_THAT(run.results.at(0).result.error_bound, Optional(0.7));
  EXPECT_THAT(run.results.at(0).result.gbps, Optional(5.0));
}

TEST(Scores, AreReadBesideSpeed) {
  const ParsedRun run = parse_run("c.json", R"({"schema_version": 1, "device": "NVIDIA H200",
 "commit": "abc", "cases": 10, "passed": 9, "modes": {"cuda": {"cases": 10, "passed": 9}},
 "largest_error_over_bound": {"bfloat16 attn_out": 0.99}})");
  ASSERT_EQ(run.scores.size(), 2U);
  EXPECT_EQ(run.scores[0].kind, "conformance");
  EXPECT_THAT(run.scores[0].passed, Optional(9));
  EXPECT_THAT(run.scores[1].value, Optional(0.99));
  // Every case once: backend cuda's plain calls are a mode, and a backend.
  const ParsedRun ways = parse_run("c.json", R"({"schema_version": 1, "device": "NVIDIA H200",
 "cases": 7, "passed": 6, "modes": {"graph": {"cases": 2, "passed": 2},
 "plain": {"cases": 2, "passed": 2}}, "backends": {"cuda": {"cases": 2, "passed": 2},
 "cuda:fused=0": {"cases": 3, "passed": 2}}})");
  ASSERT_EQ(ways.scores.size(), 3U);
  EXPECT_EQ(ways.scores[2].name, "cuda:fused=0");
  EXPECT_THAT(ways.scores[2].total, Optional(3));
  const ParsedRun faults = parse_run(
      "f.json", R"({"schema_version": 1, "gates": {"pr": {"planted": 160, "killed": 159}}})");
  EXPECT_THAT(faults.scores.at(0).total, Optional(160));
  const ParsedRun device = parse_run(
      "d.json", R"({"gate": "pr", "device": "NVIDIA H200", "planted": 107, "killed": 104})");
  EXPECT_EQ(device.scores.at(0).name, "pr on NVIDIA H200");
  EXPECT_THAT(device.scores.at(0).passed, Optional(104));
  EXPECT_THROW(parse_run("f.json", R"({"schema_version": 1, "gates": {"pr": {"planted": -1}}})"),
               Error);
}

class Exports : public testing::Test {
 protected:
  Exports() {
    const std::string file = scratch_.file(
        "a.json",
        google_json("2026-01-01T00:00:00Z",
                    {{"decode B1 ctx2048 32/8 | cuda", {10.0, 12.0, 11.0}, R"(, "GB/s": 800.5)"}}));
    import_files(scratch_ / "db", {file}, {"abcd1234", "A \"quoted\", long | subject", ""});
  }
  Database database() const { return Database(scratch_ / "db"); }

  Scratch scratch_;
};

TEST_F(Exports, Csv) {
  Database db = database();
  std::ostringstream text;
  export_csv(db, db.runs(), false, text);
  EXPECT_THAT(text.str(), StartsWith("run,date,git_commit,subject,"));
  EXPECT_THAT(text.str(), AllOf(HasSubstr(",\"A \"\"quoted\"\", long | subject\","),
                                HasSubstr(",3000,3000,0,3000,3000,,800.5,")));
  std::ostringstream samples;
  export_csv(db, db.runs(), true, samples);
  const std::string all = samples.str();
  EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), 4);
  EXPECT_THAT(all, HasSubstr(",1,3000,3000,5,\"{\"\"GB/s\"\":800.5}\"\r\n"));
}

/// The members that github-action-benchmark's customSmallerIsBetter wants: name, unit, value; range
/// and extra are texts.
TEST_F(Exports, GithubActionBenchmark) {
  Database db = database();
  std::ostringstream text;
  export_github_action(db, db.find_run("latest"), text);
  const auto list = nlohmann::json::parse(text.str());
  ASSERT_EQ(list.size(), 1U);
  EXPECT_EQ(list[0].at("name"), "decode B1 ctx2048 32/8 | cuda (cpu)");
  EXPECT_EQ(list[0].at("unit"), "ns");
  EXPECT_EQ(list[0].at("value"), 3000.0);
  EXPECT_TRUE(list[0].at("range").is_string());
}

TEST_F(Exports, Bencher) {
  Database db = database();
  std::ostringstream text;
  export_bencher(db, db.find_run("latest"), text);
  const auto all = nlohmann::json::parse(text.str());
  const auto& measures = all.at("decode B1 ctx2048 32/8 | cuda (cpu)");
  EXPECT_EQ(measures.at("latency").at("value"), 3000.0);
  EXPECT_EQ(measures.at("latency").at("upper_value"), 3000.0);
  EXPECT_EQ(measures.at("gbps").at("value"), 800.5);
}

TEST_F(Exports, Markdown) {
  Database db = database();
  std::ostringstream text;
  export_markdown(db, db.find_run("latest"), text);
  EXPECT_THAT(text.str(),
              AllOf(HasSubstr("- commit: abcd1234, A \"quoted\", long \\| subject\n"),
                    HasSubstr("| decode B1 ctx2048 32/8 | cuda | 3 us | 0 % |  | 800.5 |")));
}

}  // namespace
}  // namespace attn::history
