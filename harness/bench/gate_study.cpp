// What the regression gate is measured with (scripts/history-study.sh): small kernels of the cpu
// backend, each timed as side a and as side b in one process, in random turns. The two sides do the
// same, but for --plant P: then b makes P percent more calls (a multiple of 5).
//   attn-gate-study [--plant P] [--benchmark_* options]
#include <benchmark/benchmark.h>

#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "harness/backends/backend.h"
#include "harness/bench/context.h"
#include "harness/bench/instructions.h"
#include "harness/generate/case_spec.h"

namespace attn::bench {
namespace {

struct Kernel {
  std::string name;
  std::string spec;
  int calls;  ///< of one iteration, a few milliseconds in all; a multiple of 20
};

std::string attention(int queries, int keys) {
  return R"({"config":{"variant":"attention","entry_point":"attention","dtype":"float32",)"
         R"("num_attention_heads":4,"num_key_value_heads":2,"head_dim":64,)"
         R"("mask":{"variant":"causal"},"kv_cache":{"page_size":16,"dtype":"float32"}},"rows":[[)" +
         std::to_string(queries) + "," + std::to_string(keys) + "]]}";
}

const std::vector<Kernel>& kernels() {
  static const std::vector<Kernel> kKernels{
      {"decode of 256 keys", attention(1, 256), 60},
      {"prefill of 16 rows", attention(16, 64), 40},
      {"layer of 4 rows",
       R"({"config":{"hidden_size":128,"num_attention_heads":2,"num_key_value_heads":1,)"
       R"("head_dim":64,"dtype":"float32","kv_cache":{"dtype":"float32"}},"rows":[[16,4]]})",
       60}};
  return kKernels;
}

/// A case and its backend, made once for both sides.
struct Prepared {
  explicit Prepared(const Kernel& kernel)
      : c(harness::make_case(harness::parse_case_spec(kernel.spec), 1)),
        backend(harness::make_backend("cpu:threads=1")),
        wanted{c.config.starts_at_attention() ? Stage::kAttnOut : Stage::kOut} {}
  void run() const { benchmark::DoNotOptimize(backend->run(c, wanted)); }

  Case c;
  std::unique_ptr<harness::Backend> backend;
  std::vector<Stage> wanted;
};

void measure(benchmark::State& state, const std::string& name, const Prepared& prepared,
             int calls) {
  prepared.run();
  CountedRegion counted;
  for (auto _ : state) {
    for (int call = 0; call < calls; ++call) prepared.run();
  }
  counted.finish(name, static_cast<std::int64_t>(state.iterations()));
}

/// Counting needs no more than the smallest number that P percent of is whole.
int calls_of(const Kernel& kernel) { return is_counted() ? 20 : kernel.calls; }

/// Takes --plant out of the arguments.
int take_plant(std::vector<char*>& arguments) {
  int percent = 0;
  std::vector<char*> rest{arguments.at(0)};
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    if (std::string(arguments[i]) == "--plant" && i + 1 < arguments.size()) {
      percent = std::stoi(arguments[++i]);
    } else {
      rest.push_back(arguments[i]);
    }
  }
  arguments = rest;
  return percent;
}

int run(int argc, char** argv) {
  std::vector<char*> arguments(argv, argv + argc);
  const int percent = take_plant(arguments);
  std::string interleave = "--benchmark_enable_random_interleaving=true";
  std::string repetitions = "--benchmark_repetitions=20";
  std::string aggregates = "--benchmark_display_aggregates_only=true";
  arguments.insert(arguments.begin() + 1,
                   {interleave.data(), repetitions.data(), aggregates.data()});
  int count = static_cast<int>(arguments.size());
  add_run_context("attn-gate-study", false);
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;
  std::vector<std::unique_ptr<Prepared>> prepared;
  for (const Kernel& kernel : kernels()) {
    prepared.push_back(std::make_unique<Prepared>(kernel));
    for (const char* const side : {"a", "b"}) {
      const int calls = calls_of(kernel) * (*side == 'b' ? 100 + percent : 100) / 100;
      const std::string name = kernel.name + " | " + side;
      benchmark::RegisterBenchmark(
          name.c_str(), [name, calls, work = prepared.back().get()](
                            benchmark::State& state) { measure(state, name, *work, calls); })
          ->Iterations(1)
          ->Unit(benchmark::kMillisecond);
    }
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace attn::bench

int main(int argc, char** argv) {
  try {
    return attn::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 2;
  }
}
