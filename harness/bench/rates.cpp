// How many cases a second the harness itself judges: generation, exact reference, backend and
// comparison. docs/benchmarks.md records the results. Debian's Google Benchmark calls itself a
// debug build; our own build type is in the context.
#include <benchmark/benchmark.h>

#include <Eigen/Core>
#include <memory>
#include <stdexcept>
#include <string>

#include "harness/backends/backend.h"
#include "harness/cli/heap.h"
#include "harness/compare/compare.h"
#include "harness/generate/case_spec.h"
#include "reference/reference.h"
#include "reference/stages/projection.h"

namespace {

using attn::Case;
using attn::harness::Backend;
using attn::harness::CaseSpec;
using attn::harness::CompareOptions;

attn::harness::Verdict judge(const Case& c, const Backend& backend, const CompareOptions& options) {
  const auto stages = attn::stages_of(c.config);
  const attn::Trace got = backend.run(c, stages);
  return attn::harness::compare(c, got, backend.arithmetic(c.config), options);
}

// Parallelism is over cases: each benchmark thread runs its backend on one thread.
std::unique_ptr<Backend> one_thread_cpu() { return attn::harness::make_backend("cpu:threads=1"); }

void require_passed(const attn::harness::Verdict& verdict, benchmark::State& state) {
  if (verdict.status == attn::harness::Status::kFailed) state.SkipWithError(verdict.detail.c_str());
}

// Whole layers: hidden 64-256, 4 to 32 query rows, up to 64 keys, every feature.
void small_profile(benchmark::State& state) {
  const auto backend = one_thread_cpu();
  std::uint64_t seed = 1'000'000 * static_cast<std::uint64_t>(state.thread_index() + 1);
  for (auto _ : state) {
    const CaseSpec spec = attn::harness::random_small_spec(++seed);
    const Case c = attn::harness::make_case(spec, seed);
    const attn::Trace exact = attn::reference::evaluate(c, attn::reference::Mode::kExact);
    benchmark::DoNotOptimize(exact);
    require_passed(judge(c, *backend, {}), state);
  }
  state.counters["cases"] =
      benchmark::Counter(static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}
BENCHMARK(small_profile)->Threads(2)->UseRealTime();

CaseSpec attention_spec(std::int64_t queries, std::int64_t keys, int heads, int kv_heads,
                        int head_dim, const std::string& dtype) {
  return attn::harness::parse_case_spec(
      R"({"config": {"variant": "attention", "entry_point": "attention", "num_attention_heads": )" +
      std::to_string(heads) + R"(, "num_key_value_heads": )" + std::to_string(kv_heads) +
      R"(, "head_dim": )" + std::to_string(head_dim) + R"(, "dtype": ")" + dtype +
      R"(", "kv_cache": {"page_size": 16}, "mask": {"variant": "causal"}}, "rows": [[)" +
      std::to_string(queries) + ", " + std::to_string(keys) + "]]}");
}

void judge_cases(benchmark::State& state, const CaseSpec& spec) {
  const auto backend = one_thread_cpu();
  std::uint64_t seed = 1'000'000 * static_cast<std::uint64_t>(state.thread_index() + 1);
  for (auto _ : state) {
    const Case c = attn::harness::make_case(spec, ++seed);
    const attn::Trace exact = attn::reference::evaluate(c, attn::reference::Mode::kExact);
    benchmark::DoNotOptimize(exact);
    require_passed(judge(c, *backend, {}), state);
  }
  state.counters["cases"] =
      benchmark::Counter(static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

void kv1024(benchmark::State& state) {
  judge_cases(state, attention_spec(64, 1024, 4, 2, 64, "float32"));
}
BENCHMARK(kv1024)->Threads(2)->UseRealTime();

// The same with the whole layer around it.
void kv1024_layer(benchmark::State& state) {
  judge_cases(state, attn::harness::parse_case_spec(
                         R"({"config": {"variant": "attention_with_rope", "entry_point": "forward",
          "hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
          "dtype": "float32", "rope": {"interleaved": false}, "mask": {"variant": "causal"},
          "kv_cache": {"page_size": 16}}, "rows": [[960, 64]]})"));
}
BENCHMARK(kv1024_layer)->Threads(2)->UseRealTime();

// 131,072 keys, one query row, 8 query and 2 kv heads, rows chosen as `--rows auto` does.
void decode_131072(benchmark::State& state) {
  const auto backend = attn::harness::make_backend("cpu");
  const CaseSpec spec = attention_spec(1, 131072, 8, 2, 128, "bfloat16");
  CompareOptions options;
  options.rows.all = false;
  options.threads = 2;
  for (auto _ : state) {
    const Case c = attn::harness::make_case(spec, 7);
    require_passed(judge(c, *backend, options), state);
  }
}
BENCHMARK(decode_131072)->Unit(benchmark::kMillisecond)->UseRealTime()->Iterations(2);

// The exact reference's projection, decoding of the stored weights included, beside Eigen's own
// double product of the same shape.
using attn::reference::Matrix;

Case projection_case() {
  return attn::harness::make_case(
      attn::harness::parse_case_spec(
          R"({"config": {"variant": "attention_with_rope", "entry_point": "forward", "hidden_size": 1024,
              "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 64, "dtype": "float32",
              "rope": {"interleaved": false}, "mask": {"variant": "causal"}}, "rows": [[0, 64]]})"),
      1);
}

void projection_reference(benchmark::State& state) {
  const Case c = projection_case();
  const Matrix x = attn::reference::decode_matrix(c.x, c.tokens(), c.config.hidden_size);
  for (auto _ : state) {
    Matrix y = attn::reference::project(c, attn::reference::Projection::kQ, x,
                                        attn::reference::Rounding(attn::reference::Mode::kExact));
    benchmark::DoNotOptimize(y.data());
  }
}
BENCHMARK(projection_reference)->Unit(benchmark::kMillisecond);

void projection_eigen(benchmark::State& state) {
  const Matrix x = Matrix::Random(64, 1024), w = Matrix::Random(1024, 1024);
  for (auto _ : state) {
    Matrix y(64, 1024);
    y.noalias() = x * w.transpose();
    benchmark::DoNotOptimize(y.data());
  }
}
BENCHMARK(projection_eigen)->Unit(benchmark::kMillisecond);

}  // namespace

int main(int argc, char** argv) {
  attn::cli::keep_freed_memory();
  benchmark::AddCustomContext("attn_build_type", ATTN_BUILD_TYPE);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
