// Google Benchmark's files into the database: every version, every repetition, all or nothing.
#include "harness/bench/history/import.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/bench/history/database.h"
#include "harness/bench/history/readers.h"
#include "reference/core/error.h"
#include "tests/history/google_json.h"
#include "tests/history/scratch.h"

namespace attn::history {
namespace {

using test::google_json;
using test::Scratch;
using ::testing::AllOf;
using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Optional;

constexpr const char* kDate = "2026-11-22T23:42:36+01:00";
const std::string kDecode = "decode B1 ctx2048 32/8 | cuda/iterations:5/manual_time";

/// The message of the Error(kInput) that importing a file of these bytes throws; "" for none.
std::string refusal(const std::string& bytes) {
  const Scratch scratch;
  const std::string file = scratch.file("x.json", bytes);
  try {
    import_files(scratch / "db", {file}, {});
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_TRUE(Database(scratch / "db").runs().empty());
    return error.what();
  }
  return "";
}

/// The one result of a file of these bytes.
ParsedResult only_result(const std::string& bytes) {
  ParsedRun run = parse_run("x.json", bytes);
  EXPECT_EQ(run.results.size(), 1U);
  return run.results.at(0);
}

TEST(Import, KeepsEveryRepetitionAndWhatItWasMeasuredOn) {
  const Scratch scratch;
  const std::string context =
      R"(, "gpu": "NVIDIA H200", "driver": "580.1", "cuda": "13.0", "clocks": "1980 MHz",
 "cpu": "Xeon", "compiler": "GCC 12", "build_type": "Release", "commit": "1a2b3c4d5e6f7",
 "subject": "Use wider tiles", "somebody's own": "kept")";
  const std::string file =
      scratch.file("run.json", google_json(kDate, {{kDecode, {10.0, 12.0, 11.0}, R"(, "GB/s": 800.0,
 "TFLOP/s": 3.2, "roofline": 0.5, "error/bound": 0.25, "odd": 7.0, "label": "graph, 15 copies")"}},
                                           context));
  const std::vector<Imported> imported = import_files(scratch / "db", {file}, {});
  EXPECT_TRUE(imported.at(0).is_new);
  EXPECT_EQ(imported.at(0).samples, 3U);

  Database database(scratch / "db");
  const history::Run run = database.find_run("latest");
  EXPECT_EQ(run.date, "2026-11-22T22:42:36Z");
  EXPECT_EQ(run.commit, "1a2b3c4d5e6f7");
  EXPECT_EQ(run.subject, "Use wider tiles");
  EXPECT_EQ(run.machine.gpu, "NVIDIA H200");
  EXPECT_EQ(run.machine.gpu_count, 1);
  EXPECT_EQ(run.machine.num_cpus, 16);
  EXPECT_EQ(run.machine.caches, "L1d 49152");
  EXPECT_EQ(run.machine.host, "box");
  EXPECT_EQ(run.machine.cpu, "Xeon");
  EXPECT_EQ(run.driver, "580.1");
  EXPECT_EQ(run.cuda, "13.0");
  EXPECT_EQ(run.clocks, "1980 MHz");
  EXPECT_EQ(run.compiler, "GCC 12");
  EXPECT_EQ(run.build_type, "Release");
  EXPECT_EQ(run.program, "attn-bench");
  EXPECT_EQ(run.source_name, "run.json");
  EXPECT_EQ(database.context(run.id).at("somebody's own"), "kept");
  EXPECT_EQ(database.context(run.id).at("caches.0.size"), "49152");

  const Benchmark benchmark = database.benchmarks().at(0);
  EXPECT_EQ(benchmark.name, "decode B1 ctx2048 32/8");
  EXPECT_EQ(benchmark.backend, "cuda");
  EXPECT_EQ(benchmark.timer, "graph");
  EXPECT_EQ(benchmark.kind, "decode");
  EXPECT_EQ(benchmark.shape, "decode B1 ctx2048 32/8 D128 bfloat16");
  EXPECT_THAT(benchmark.kv_len, Optional(2048));
  EXPECT_THAT(benchmark.q_len, Optional(1));
  EXPECT_FALSE(benchmark.is_peer);

  const Result result = database.results().at(0);
  EXPECT_THAT(result.median_ns, Optional(DoubleEq(11000.0)));
  EXPECT_THAT(result.mean_ns, Optional(DoubleEq(11000.0)));
  EXPECT_THAT(result.stddev_ns, Optional(DoubleEq(1000.0)));
  EXPECT_THAT(result.min_ns, Optional(DoubleEq(10000.0)));
  EXPECT_THAT(result.max_ns, Optional(DoubleEq(12000.0)));
  EXPECT_THAT(result.gbps, Optional(800.0));
  EXPECT_THAT(result.tflops, Optional(3.2));
  EXPECT_THAT(result.roofline, Optional(0.5));
  EXPECT_THAT(result.error_bound, Optional(0.25));
  EXPECT_EQ(result.repetitions, 3);
  EXPECT_THAT(database.metrics(result.id), ElementsAre(testing::Pair("odd", 7.0)));
  EXPECT_THAT(database.times(result.id), ElementsAre(10000.0, 12000.0, 11000.0));
  const Sample sample = database.samples(result.id).at(1);
  EXPECT_EQ(sample.repetition, 1);
  EXPECT_EQ(sample.iterations, 5);
  EXPECT_THAT(sample.cpu_ns, Optional(3000.0));
  EXPECT_THAT(sample.counters, HasSubstr("\"odd\":7.0"));
}

TEST(Import, IsIdempotent) {
  const Scratch scratch;
  const std::string a = scratch.file("a.json", google_json(kDate, {{kDecode, {1.0}, ""}}));
  const std::string b = scratch.file("b.json", google_json(kDate, {{kDecode, {2.0}, ""}}));
  EXPECT_TRUE(import_files(scratch / "db", {a}, {}).at(0).is_new);
  const std::vector<Imported> again = import_files(scratch / "db", {a, b, b}, {});
  EXPECT_FALSE(again.at(0).is_new);
  EXPECT_TRUE(again.at(1).is_new);
  EXPECT_FALSE(again.at(2).is_new);
  Database database(scratch / "db");
  EXPECT_EQ(database.runs().size(), 2U);
  EXPECT_EQ(database.results().size(), 2U);
  EXPECT_EQ(database.benchmarks().size(), 1U);
}

TEST(Import, FillsInTheCommitOnceAndKeepsIt) {
  const Scratch scratch;
  const std::string file = scratch.file("a.json", google_json(kDate, {{kDecode, {1.0}, ""}}));
  import_files(scratch / "db", {file}, {});
  import_files(scratch / "db", {file}, {"abcd1234", "A subject", ""});
  EXPECT_EQ(Database(scratch / "db").find_run("latest").commit, "abcd1234");
  EXPECT_EQ(Database(scratch / "db").find_run("abcd").subject, "A subject");
  try {
    import_files(scratch / "db", {file}, {"ffff0000", "", ""});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("abcd1234"), HasSubstr("ffff0000")));
  }
  EXPECT_EQ(Database(scratch / "db").find_run("latest").commit, "abcd1234");
}

TEST(Import, OneBadFileImportsNone) {
  const Scratch scratch;
  const std::string good = scratch.file("a.json", google_json(kDate, {{kDecode, {1.0}, ""}}));
  const std::string other = scratch.file("b.json", google_json(kDate, {{kDecode, {2.0}, ""}}));
  const std::string bad = scratch.file("bad.json", "{\"context\": {");
  import_files(scratch / "db", {good}, {});
  EXPECT_THROW(import_files(scratch / "db", {other, bad}, {}), Error);
  EXPECT_EQ(Database(scratch / "db").runs().size(), 1U);
  import_files(scratch / "db", {other}, {});
  EXPECT_EQ(Database(scratch / "db").runs().size(), 2U);
}

TEST(Import, ToleratesNumbersThatJsonLacks) {
  std::string text = google_json(kDate, {{kDecode, {1.5, 2.5}, R"(, "a": NaN, "b": -Infinity,
 "c": 1e999, "d": -nan, "e": inf, "f": 4.0, "label": "NaN \" in text")"}});
  ParsedResult result = only_result(text);
  EXPECT_THAT(result.metrics, ElementsAre(testing::Pair("f", 4.0)));
  EXPECT_EQ(result.result.label, "NaN \" in text");
  text.replace(text.find("1.500000"), 8, "NaN");
  result = only_result(text);
  EXPECT_FALSE(result.samples.at(0).time_ns.has_value());
  EXPECT_THAT(result.result.median_ns, Optional(2500.0));
}

/// Version 1.3: no run_type, no run_name, aggregates told by their names alone.
TEST(Import, ReadsTheFirstVersions) {
  const ParsedRun run = parse_run("x.json", R"({"context": {"date": "2015/03/17-18:40:25",
 "num_cpus": 40, "mhz_per_cpu": 2801, "cpu_scaling_enabled": false, "build_type": "debug"},
 "benchmarks": [
 {"name": "BM_SetInsert/1024/1", "iterations": 94877, "real_time": 29275, "cpu_time": 29836,
  "bytes_per_second": 134066, "items_per_second": 33516},
 {"name": "BM_SetInsert/1024/1", "iterations": 94877, "real_time": 29277, "cpu_time": 29838},
 {"name": "BM_SetInsert/1024/1_mean", "iterations": 2, "real_time": 1, "cpu_time": 1}]})");
  EXPECT_EQ(run.run.date, "2015-03-17T18:40:25Z");
  const ParsedResult& result = run.results.at(0);
  EXPECT_EQ(result.benchmark.name, "BM_SetInsert/1024/1");
  EXPECT_EQ(result.benchmark.timer, "cpu");
  EXPECT_THAT(result.benchmark.parameters,
              ElementsAre(testing::Pair("arg0", "1024"), testing::Pair("arg1", "1")));
  EXPECT_EQ(result.samples.size(), 2U);
  EXPECT_THAT(result.result.median_ns, Optional(29837.0));
  EXPECT_THAT(result.result.gbps, Optional(DoubleEq(134066e-9)));
}

/// Version 1.9: skipped instead of error_occurred, json_schema_version, min_warmup_time in names.
TEST(Import, ReadsTheNewVersions) {
  const ParsedRun run = parse_run("x.json", R"({"context": {"date": "2025-03-15T18:40:25+00:00",
 "host_name": "h", "executable": "/a/b/bench", "num_cpus": 8, "library_version": "v1.9.1",
 "library_build_type": "release", "json_schema_version": 1, "aslr_enabled": false},
 "benchmarks": [
 {"name": "F/rows:8/min_warmup_time:0.500/real_time/threads:2", "family_index": 0,
  "run_name": "F/rows:8/min_warmup_time:0.500/real_time/threads:2", "run_type": "iteration",
  "repetitions": 1, "repetition_index": 0, "threads": 2, "iterations": 10, "real_time": 5.0,
  "cpu_time": 9.0, "time_unit": "ms"},
 {"name": "G", "run_name": "G", "run_type": "iteration", "repetitions": 1, "repetition_index": 0,
  "threads": 1, "skipped": true, "skip_message": "no device", "iterations": 0, "real_time": 0,
  "cpu_time": 0, "time_unit": "ns"}]})");
  EXPECT_EQ(run.results.at(0).benchmark.name, "F/rows:8");
  EXPECT_EQ(run.results.at(0).benchmark.timer, "real");
  EXPECT_EQ(run.results.at(0).benchmark.parameters.at("rows"), "8");
  EXPECT_THAT(run.results.at(0).benchmark.threads, Optional(2));
  EXPECT_THAT(run.results.at(0).result.median_ns, Optional(5e6));
  EXPECT_EQ(run.results.at(1).result.error, "no device");
  EXPECT_FALSE(run.results.at(1).result.median_ns.has_value());
}

TEST(Import, TakesParametersThatTheFileSays) {
  const std::string row = R"(, "parameters": {"kind": "decode", "batch": 4, "q_len": 1,
 "kv_len": 100, "heads": 8, "kv_heads": 2, "head_dim": 64, "dtype": "float16", "mask": "causal",
 "page_size": 16, "kv_dtype": "float8_e4m3fn"})";
  const ParsedResult own = only_result(google_json(kDate, {{"any name | flash", {1.0}, row}}));
  EXPECT_EQ(own.benchmark.shape, "decode B4 ctx100 8/2 D64 float16 kv_dtype=float8_e4m3fn");
  EXPECT_TRUE(own.benchmark.is_peer);
  EXPECT_THAT(own.benchmark.page_size, Optional(16));
  // Runs from before that parameter have it in the name: another shape than that of a plain cache.
  const std::string plain = R"(, "parameters": {"kind": "decode", "batch": 4, "q_len": 1,
 "kv_len": 100, "heads": 8, "kv_heads": 2, "head_dim": 64, "dtype": "float16", "mask": "causal"})";
  const ParsedResult named =
      only_result(google_json(kDate, {{"decode B4 ctx100 8/2 fp8 cache | cuda", {1.0}, plain}}));
  EXPECT_EQ(named.benchmark.shape, "decode B4 ctx100 8/2 D64 float16 kv_dtype=float8_e4m3fn");
  const std::string context =
      R"(, "parameters layer 1 row": "{\"kind\": \"projection\", \"batch\": 1, \"q_len\": 1, \"heads\": 32, \"weights\": \"q4_k\"}")";
  const ParsedResult all =
      only_result(google_json(kDate, {{"layer 1 row | cpu", {1.0}, ""}}, context));
  EXPECT_EQ(all.benchmark.weights, "q4_k");
  EXPECT_EQ(all.benchmark.kind, "projection");
}

TEST(Import, RefusesInOneLine) {
  const auto one_line = [](const std::string& what) {
    return AllOf(HasSubstr("x.json: "), HasSubstr(what), Not(HasSubstr("\n")));
  };
  const std::string good = google_json(kDate, {{kDecode, {1.0, 2.0}, ""}});
  const auto with = [&](const std::string& old, const std::string& now) {
    std::string text = good;
    text.replace(text.find(old), old.size(), now);
    return text;
  };
  EXPECT_EQ(refusal(good), "");
  EXPECT_THAT(refusal(""), one_line("is empty"));
  EXPECT_THAT(refusal("\n \t"), one_line("is empty"));
  EXPECT_THAT(refusal("hello"), one_line("is no whole JSON text"));
  EXPECT_THAT(refusal(std::string(1 << 16, '[')), one_line("is no whole JSON text"));
  EXPECT_THAT(refusal("[1, 2]"), one_line("of no kind that is known"));
  EXPECT_THAT(refusal("{\"tool\": \"other\"}"), one_line("of no kind that is known"));
  EXPECT_THAT(refusal("{\"context\": {}, \"benchmarks\": []}"), one_line("holds no benchmark"));
  EXPECT_THAT(refusal("{\"context\": {}, \"benchmarks\": [3]}"),
              one_line("benchmarks[0]: is no object"));
  EXPECT_THAT(refusal(with("1.000000", "-1.0")), one_line("a time is not negative"));
  EXPECT_THAT(refusal(with("1.000000", "\"fast\"")), one_line("real_time is no number"));
  EXPECT_THAT(refusal(with("\"real_time\"", "\"unreal_time\"")), one_line("has no real_time"));
  EXPECT_THAT(refusal(with("\"us\"", "\"weeks\"")), one_line("time_unit is \"weeks\""));
  EXPECT_THAT(refusal(with("\"repetition_index\": 1", "\"repetition_index\": 0")),
              one_line("has its repetition 0 twice"));
  EXPECT_THAT(refusal(with("\"threads\"", "\"parameters\": {\"batch\": \"many\"}, \"threads\"")),
              one_line("batch is \"many\", not a whole number"));
}

/// A file that was cut off anywhere is refused, never half taken.
TEST(Import, RefusesEveryCut) {
  const std::string good = google_json(kDate, {{kDecode, {1.0, 2.0}, ""}});
  const std::size_t whole = good.find_last_of('}');
  for (std::size_t length = 1; length <= whole; length += 7) {
    EXPECT_THROW(parse_run("x.json", good.substr(0, length)), Error) << length;
  }
}

TEST(Import, RefusesDatabasesThatAreNot) {
  const Scratch scratch;
  const std::string file = scratch.file("a.json", google_json(kDate, {{kDecode, {1.0}, ""}}));
  const std::string text = scratch.file("text.db", std::string(5000, 'x'));
  EXPECT_THROW(import_files(text, {file}, {}), Error);
  EXPECT_EQ(std::filesystem::file_size(text), 5000U);
  EXPECT_THROW(Database(scratch / "absent.db"), Error);
  EXPECT_FALSE(std::filesystem::exists(scratch / "absent.db"));
  {
    harness::Sqlite foreign(scratch / "foreign.db", harness::Sqlite::Mode::kWrite);
    foreign.run("CREATE TABLE t (a)");
  }
  EXPECT_THROW(import_files(scratch / "foreign.db", {file}, {}), Error);
}

TEST(Import, MergesDatabases) {
  const Scratch scratch;
  const std::string a = scratch.file("a.json", google_json(kDate, {{kDecode, {1.0, 3.0}, ""}}));
  const std::string b = scratch.file("b.json", google_json(kDate, {{"other", {2.0}, ""}}));
  import_files(scratch / "a.db", {a}, {});
  import_files(scratch / "b.db", {a, b}, {});
  const Merged merged = merge_databases({scratch / "a.db", scratch / "b.db"}, scratch / "all.db");
  EXPECT_EQ(merged.added, 2U);
  EXPECT_EQ(merged.known, 1U);
  Database database(scratch / "all.db");
  const history::Run run = database.find_run(Database(scratch / "a.db").find_run("latest").sha256);
  Database source(scratch / "a.db");
  const ParsedRun copied = read_run(database, run);
  const ParsedRun original = read_run(source, source.find_run("latest"));
  EXPECT_EQ(copied.context, original.context);
  ASSERT_EQ(copied.results.size(), 1U);
  EXPECT_EQ(copied.results[0].samples.size(), 2U);
  EXPECT_EQ(copied.results[0].result.median_ns, original.results[0].result.median_ns);
  EXPECT_EQ(copied.results[0].benchmark.shape, original.results[0].benchmark.shape);
  // Into one of them, and again: nothing is doubled.
  EXPECT_EQ(merge_databases({scratch / "b.db"}, scratch / "a.db").added, 1U);
  EXPECT_EQ(merge_databases({scratch / "b.db", scratch / "a.db"}, scratch / "a.db").added, 0U);
}

TEST(Database, FindsRunsByManyNames) {
  const Scratch scratch;
  const std::string old =
      scratch.file("a.json", google_json("2026-01-01T00:00:00+00:00", {{kDecode, {1.0}, ""}}));
  const std::string now =
      scratch.file("b.json", google_json("2026-02-01T00:00:00+00:00", {{kDecode, {2.0}, ""}}));
  import_files(scratch / "db", {now}, {"bbbb2222", "", ""});
  import_files(scratch / "db", {old}, {"aaaa1111", "", ""});
  Database database(scratch / "db");
  EXPECT_EQ(database.find_run("latest").commit, "bbbb2222");
  EXPECT_EQ(database.find_run("latest~1").commit, "aaaa1111");
  EXPECT_EQ(database.find_run("aaaa").commit, "aaaa1111");
  EXPECT_EQ(database.find_run(database.find_run("latest").sha256.substr(0, 8)).commit, "bbbb2222");
  for (const char* const unknown : {"latest~2", "latest~x", "cccc", "aaa", ""}) {
    EXPECT_THROW(database.find_run(unknown), Error) << unknown;
  }
}

TEST(Dates, AreReadAndRefused) {
  EXPECT_EQ(utc_date("2026-11-22T23:42:36+01:00"), "2026-11-22T22:42:36Z");
  EXPECT_EQ(utc_date("2026-12-31T23:30:00-01:00"), "2027-01-01T00:30:00Z");
  EXPECT_EQ(utc_date("2026-11-22T23:42:36Z"), "2026-11-22T23:42:36Z");
  EXPECT_EQ(utc_date("2019-03-16 12:30:21"), "2019-03-16T12:30:21Z");
  EXPECT_EQ(utc_date("2015/03/17-18:40:25"), "2015-03-17T18:40:25Z");
  EXPECT_EQ(utc_date("yesterday"), "");
  EXPECT_EQ(utc_date("2026-13-45T99:00:00Z"), "");
}

}  // namespace
}  // namespace attn::history
