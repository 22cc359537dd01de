// Times backends on the shapes that attention layers run at.
//   attn-bench [--backend NAME] [--against NAME] [--benchmark_* options]
//              [--shapes prefill,decode,layer,store,projection,small,large,targets,models]
//              [--models FOLDER] [--peak-tflops N] [--peak-gbs N]
//   attn-bench --list [targets]
//                          the cases as JSON: what harness/bench/peers times too; those of the
//                          goals that are not among them
// A cuda backend is timed on the device, from a captured graph where a call is short and around
// plain launches where it is long; any other by the host's clock around Backend::run, copies
// included. Each row says which (its label), and only rows of one timer are set against each other.
// Buffers rotate past the L2; every repetition draws fresh values, and outputs are judged by the
// derived bound before and after timing. With --against the two take turns.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "harness/backends/backend.h"
#include "harness/backends/cuda_backend.h"
#include "harness/bench/context.h"
#include "harness/bench/instructions.h"
#include "harness/bench/more_shapes.h"
#include "harness/bench/shapes.h"
#include "harness/bench/work.h"
#include "harness/compare/compare.h"
#include "harness/generate/case_spec.h"
#include "reference/core/error.h"

namespace attn::bench {
namespace {

// Twice the largest L2 of the devices in use.
constexpr double kRotatedBytes = 120e6;
constexpr int kMostCopies = 16;
// Longer calls hide their launches, so they are timed as they would be called.
constexpr double kShortMilliseconds = 0.2;

/// One backend on one case.
class Subject {
 public:
  virtual ~Subject() = default;
  virtual const char* timer() const = 0;
  virtual int copies() const = 0;
  /// Seconds of one call, the mean over every copy.
  virtual double seconds() = 0;
  virtual Trace output() = 0;
};

class DeviceSubject final : public Subject {
 public:
  /// `in_graph`: as it was decided for the shape before, in any repetition and for any backend.
  DeviceSubject(const Case& c, const harness::CudaOptions& options, int copies,
                std::optional<bool>& in_graph)
      : copies_(copies), runs_(harness::prepare_runs(c, options, copies)) {
    const double first = runs_->milliseconds(1, true);
    if (!in_graph) in_graph = first / copies < kShortMilliseconds;
    in_graph_ = *in_graph;
    // Long enough for the events' resolution, half a microsecond.
    const double once = runs_->milliseconds(1, in_graph_);
    rounds_ = std::clamp(static_cast<int>(4.0 / std::max(once, 1e-3)), 1, 200);
  }
  const char* timer() const override { return in_graph_ ? "graph" : "events"; }
  int copies() const override { return copies_; }
  double seconds() override {
    return runs_->milliseconds(rounds_, in_graph_) / 1e3 / rounds_ / copies_;
  }
  Trace output() override { return runs_->output(copies_ - 1); }

 private:
  int copies_;
  bool in_graph_ = true;
  int rounds_ = 1;
  std::unique_ptr<harness::PreparedRuns> runs_;
};

class HostSubject final : public Subject {
 public:
  HostSubject(const Case& c, const std::string& backend)
      : case_(c), backend_(harness::make_backend(backend)) {}
  const char* timer() const override { return "host"; }
  int copies() const override { return 1; }
  double seconds() override {
    const auto begin = std::chrono::steady_clock::now();
    trace_ = backend_->run(case_, all_stages());
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  Trace output() override { return trace_; }

 private:
  const Case& case_;
  std::unique_ptr<harness::Backend> backend_;
  Trace trace_;
};

bool is_cuda(const std::string& backend) { return backend.rfind("cuda", 0) == 0; }

std::unique_ptr<Subject> make_subject(const Case& c, const std::string& shape,
                                      const std::string& backend) {
  static std::map<std::string, std::optional<bool>> in_graph;
  if (!is_cuda(backend)) return std::make_unique<HostSubject>(c, backend);
  const harness::CudaOptions options = harness::cuda_options_of(backend);
  const double bytes = work_of(c).bytes;
  const int copies = std::clamp(static_cast<int>(std::ceil(kRotatedBytes / bytes)), 1, kMostCopies);
  return std::make_unique<DeviceSubject>(c, options, copies, in_graph[shape]);
}

/// What the outputs are worth.
struct Judged {
  std::string wrong;         ///< "" when they lie within the bound
  double error_bound = 0.0;  ///< largest error as a fraction of it
};

Judged judge_output(const Case& c, Subject& subject, const harness::Arithmetic& arithmetic) {
  harness::CompareOptions options;
  options.taps = false;
  options.check_trust = false;
  options.threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  // Keys times rows that are judged exactly: a few rows of a long context.
  options.rows.all = c.tokens() * c.total_keys() <= 1 << 14;
  options.rows.random_rows = 2;
  const harness::Verdict verdict = harness::compare(c, subject.output(), arithmetic, options);
  return {verdict.status == harness::Status::kFailed ? verdict.detail : "", verdict.worst_ratio()};
}

/// Medians by shape and timer, for --against.
struct Sample {
  std::string timer;
  std::vector<double> seconds;
};
std::map<std::string, std::map<std::string, Sample>>& samples() {
  static std::map<std::string, std::map<std::string, Sample>> all;
  return all;
}

struct Ceilings {
  double operations = 0.0;
  double bytes = 0.0;
};

void measure(benchmark::State& state, const Shape& shape, const std::string& backend,
             const Ceilings& ceilings) {
  static std::uint64_t seed = 0;
  try {
    const Case c = harness::make_case(harness::parse_case_spec(shape.spec), ++seed);
    const auto judge = harness::make_backend(backend);
    if (const std::string why = judge->unsupported_reason(c.config); !why.empty()) {
      return state.SkipWithError(std::string("unsupported: ").append(why).c_str());
    }
    const harness::Arithmetic arithmetic = judge->arithmetic(c.config);
    const auto subject = make_subject(c, shape.name, backend);
    subject->seconds();  // warm
    const Judged before = judge_output(c, *subject, arithmetic);
    if (!before.wrong.empty()) {
      return state.SkipWithError(std::string("wrong before timing: ").append(before.wrong).c_str());
    }
    double sum = 0.0;
    CountedRegion counted;
    for (auto _ : state) {
      const double seconds = subject->seconds();
      state.SetIterationTime(seconds);
      sum += seconds;
    }
    counted.finish(shape.name + " | " + backend, static_cast<std::int64_t>(state.iterations()));
    const Judged after = judge_output(c, *subject, arithmetic);
    if (!after.wrong.empty()) {
      return state.SkipWithError(std::string("wrong after timing: ").append(after.wrong).c_str());
    }
    const double seconds = sum / static_cast<double>(state.iterations());
    const Work work = work_of(c);
    state.SetLabel(std::string(subject->timer())
                       .append(", ")
                       .append(std::to_string(subject->copies()))
                       .append(" copies"));
    state.counters["TFLOP/s"] = work.operations / seconds / 1e12;
    state.counters["GB/s"] = work.bytes / seconds / 1e9;
    state.counters["error/bound"] = std::max(before.error_bound, after.error_bound);
    if (ceilings.bytes > 0.0) {
      state.counters["roofline"] =
          floor_seconds(work, ceilings.operations, ceilings.bytes) / seconds;
    }
    Sample& sample = samples()[shape.name][backend];
    sample.timer = subject->timer();
    sample.seconds.push_back(seconds);
  } catch (const std::exception& error) {
    state.SkipWithError(error.what());
  }
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values.at(values.size() / 2);
}

void print_ratios(const std::string& backend, const std::string& against) {
  for (const auto& [name, by_backend] : samples()) {
    const auto a = by_backend.find(backend);
    const auto b = by_backend.find(against);
    if (a == by_backend.end() || b == by_backend.end()) continue;
    if (a->second.timer != b->second.timer) {
      std::printf("%s: not compared, %s is timed by %s and %s by %s\n", name.c_str(),
                  backend.c_str(), a->second.timer.c_str(), against.c_str(),
                  b->second.timer.c_str());
      continue;
    }
    std::printf("%s: %s is %.3f times as fast as %s (%s, medians of %zu)\n", name.c_str(),
                backend.c_str(), median(b->second.seconds) / median(a->second.seconds),
                against.c_str(), a->second.timer.c_str(), a->second.seconds.size());
  }
}

struct Options {
  std::string backend = "cuda";
  std::string against;
  std::string groups;  ///< with commas, or all
  std::string models = "data/models";
  Ceilings ceilings;
};

bool is_listed(const std::string& name, const std::string& list) {
  std::istringstream words(list);
  for (std::string word; std::getline(words, word, ',');) {
    if (word == name) return true;
  }
  return list.empty();
}

/// Large shapes take minutes to draw and to judge, so they are for who names them.
bool is_chosen(const Shape& shape, const std::string& groups) {
  if (shape.group == "targets" || shape.group == "models") return true;  // made when named
  if (shape.is_large) return !groups.empty() && is_listed("large", groups);
  return is_listed(shape.group, groups);
}

/// Every shape that the options ask for.
std::vector<Shape> chosen_shapes(const Options& options) {
  std::vector<Shape> all = shapes();
  const auto add = [&](const std::vector<Shape>& more) {
    all.insert(all.end(), more.begin(), more.end());
  };
  if (!options.groups.empty() && is_listed("targets", options.groups)) add(target_shapes());
  if (!options.groups.empty() && is_listed("models", options.groups)) {
    add(model_shapes(options.models));
  }
  std::erase_if(all, [&](const Shape& shape) { return !is_chosen(shape, options.groups); });
  if (all.empty()) {
    throw Error(ErrorKind::kUsage,
                "--shapes " + options.groups +
                    ": no such group; known: prefill, decode, layer, store, projection, small, "
                    "large, targets, models",
                "--shapes");
  }
  return all;
}

/// Takes ours out of the arguments; the others are Google Benchmark's.
Options take_options(std::vector<char*>& arguments) {
  Options o;
  std::vector<char*> rest{arguments.at(0)};
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    const std::string name = arguments[i];
    if (name.rfind("--benchmark", 0) == 0 || i + 1 == arguments.size()) {
      rest.push_back(arguments[i]);
      continue;
    }
    const std::string value = arguments[++i];
    if (name == "--backend") {
      o.backend = value;
    } else if (name == "--against") {
      o.against = value;
    } else if (name == "--shapes") {
      o.groups = value;
    } else if (name == "--models") {
      o.models = value;
    } else if (name == "--peak-tflops") {
      o.ceilings.operations = std::stod(value) * 1e12;
    } else if (name == "--peak-gbs") {
      o.ceilings.bytes = std::stod(value) * 1e9;
    } else {
      throw Error(ErrorKind::kUsage, name +
                                         ": no such option; known: --backend --against --shapes "
                                         "--models --peak-tflops --peak-gbs");
    }
  }
  arguments = rest;
  return o;
}

int run(int argc, char** argv) {
  std::vector<char*> arguments(argv, argv + argc);
  if (argc == 2 && std::string(argv[1]) == "--list") {
    std::cout << shapes_json(shapes());
    return 0;
  }
  if (argc == 3 && std::string(argv[1]) == "--list" && std::string(argv[2]) == "targets") {
    std::cout << shapes_json(target_shapes());
    return 0;
  }
  const Options options = take_options(arguments);
  // Repetitions take turns, so that a clock that moves moves for both.
  std::string interleave = "--benchmark_enable_random_interleaving=true";
  std::string repetitions = "--benchmark_repetitions=5";
  // The file keeps every repetition.
  std::string aggregates = "--benchmark_display_aggregates_only=true";
  arguments.insert(arguments.begin() + 1,
                   {interleave.data(), repetitions.data(), aggregates.data()});
  const std::vector<Shape> chosen = chosen_shapes(options);
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  for (const std::string& backend : {options.backend, options.against}) {
    if (backend.empty()) continue;
    harness::make_backend(backend);  // refuses here what would fail in every row
    for (const Shape& shape : chosen) {
      std::string name = shape.name;
      name.append(" | ").append(backend);
      benchmark::RegisterBenchmark(name.c_str(),
                                   [shape, backend, &options](benchmark::State& state) {
                                     measure(state, shape, backend, options.ceilings);
                                   })
          ->UseManualTime()
          ->Unit(benchmark::kMicrosecond)
          ->Iterations(5);
    }
  }
  add_run_context("attn-bench", is_cuda(options.backend) || is_cuda(options.against));
  for (const Shape& shape : chosen) add_shape_context(shape);
  benchmark::RunSpecifiedBenchmarks();
  if (!options.against.empty()) print_ratios(options.backend, options.against);
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
