#include "tests/dashboard/sample_page.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

namespace attn::test {
namespace {

using dashboard::Page;
using dashboard::Point;
using dashboard::Series;

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

/// A few percent of noise, the same every time (SplitMix64's finaliser).
double noise(std::uint64_t key) {
  key += 0x9e3779b97f4a7c15U;
  key = (key ^ (key >> 30)) * 0xbf58476d1ce4e5b9U;
  key = (key ^ (key >> 27)) * 0x94d049bb133111ebU;
  return static_cast<double>((key ^ (key >> 31)) >> 11) / 9007199254740992.0 - 0.5;
}

std::string two(std::size_t n) {
  const std::string text = std::to_string(n);
  return text.size() < 2 ? std::string(1, '0').append(text) : text;
}

void add_runs(Page& page, const SampleSize& size) {
  for (std::size_t i = 0; i < size.runs; ++i) {
    history::Run run;
    run.id = static_cast<std::int64_t>(i) + 1;
    // 1,000,000 tells the ids apart in their first characters.
    run.sha256 = std::to_string(1000000 + i * 7919) + std::string(57, 'a');
    run.date = std::to_string(2020 + i / 336) + "-" + two(1 + i / 28 % 12) + "-" + two(1 + i % 28) +
               "T10:" + two(i % 60) + ":00Z";
    if (i == 0) run.date.clear();  // a file may not say it
    run.commit = std::to_string(20000000 + i * 3571) + std::string(32, 'c');
    run.subject = i == 2 ? kHostileText : "Step " + std::to_string(i) + " of the kernels";
    run.driver = i < size.runs / 2 ? "580.1" : "580.2";
    run.cuda = "13.0";
    run.compiler = "GCC 12.2.0";
    run.program = "peers";
    run.source_name = "peers-" + std::to_string(i) + ".json";
    const bool is_cpu = !size.is_plain && i % 5 == 4 && i + 1 < size.runs;
    page.run_machine.push_back(is_cpu ? 1 : 0);
    run.machine = page.machines[page.run_machine.back()];
    page.runs.push_back(run);
  }
}

void add_benchmarks(Page& page, const SampleSize& size) {
  for (std::size_t s = 0; s < size.shapes; ++s) {
    for (const char* backend : {"cuda", "cudnn", "flash"}) {
      if (size.is_plain && std::string(backend) != "cuda") continue;
      history::Benchmark b;
      b.id = static_cast<std::int64_t>(page.benchmarks.size()) + 1;
      b.kind = s % 2 == 0 ? "prefill" : "decode";
      b.batch = 1 + static_cast<std::int64_t>(s) / 2;
      b.kv_len = std::int64_t{512} << (s % 6);
      b.q_len = s % 2 == 0 ? *b.kv_len : 1;
      b.head_dim = s % 3 == 0 ? 64 : 128;
      b.heads = 32;
      b.kv_heads = 8;
      b.dtype = "bfloat16";
      b.mask = s % 4 == 0 ? "full" : "causal";
      b.shape = b.kind + " B" + std::to_string(*b.batch) + (s % 2 == 0 ? " S" : " ctx") +
                std::to_string(*b.kv_len) + " 32/8 D" + std::to_string(*b.head_dim);
      if (s + 1 == size.shapes && !size.is_plain) b.shape += " <i>&\"";
      b.name = b.shape;
      b.backend = backend;
      b.is_peer = b.backend != "cuda";
      b.timer = "graph";
      b.program = "peers";
      page.benchmarks.push_back(b);
    }
  }
}

Point point_of(std::size_t run, std::size_t benchmark, std::size_t runs, std::size_t shape,
               double factor) {
  Point p;
  p.run = run;
  p.samples = 15;
  const double level = 20.0 * std::pow(1.7, static_cast<double>(shape % 12)) * factor;
  p.median_us = level * (1.0 + 0.02 * noise(run * 131 + benchmark * 7));
  if (factor == 1.0 && shape % 2 == 1 && run >= runs * 3 / 4) p.median_us *= 1.08;
  p.low_us = 0.99 * p.median_us;
  p.high_us = 1.012 * p.median_us;
  p.tflops = 9000.0 / p.median_us;
  p.gbps = 50000.0 / p.median_us;
  p.roofline = std::min(0.97, 0.55 + 0.05 * static_cast<double>(shape % 9)) / factor;
  p.error_bound = 0.4;
  p.peer_ratio = 1.3 / factor;  // the fastest peer takes 1.3 times as long as ours
  return p;
}

void add_series(Page& page, const SampleSize& size) {
  const std::size_t backends = size.is_plain ? 1 : 3;
  for (std::size_t machine = 0; machine < page.machines.size(); ++machine) {
    for (std::size_t b = 0; b < page.benchmarks.size(); ++b) {
      Series series{b, machine, {}};
      const double factor = b % backends == 0 ? 1.0 : b % backends == 1 ? 1.3 : 1.6;
      for (std::size_t r = 0; r < size.runs; ++r) {
        if (page.run_machine[r] != machine) continue;
        Point p = point_of(r, b, size.runs, b / backends, factor);
        if (machine == 1) {
          p.median_us *= 400.0;
          p.low_us *= 400.0;
          p.high_us *= 400.0;
          p.roofline = p.error_bound = kUnknown;
        }
        series.points.push_back(p);
      }
      if (!series.points.empty()) page.series.push_back(series);
    }
  }
}

void add_judgements(Page& page, const SampleSize& size) {
  for (std::size_t s = 0; s < page.series.size(); ++s) {
    const Series& series = page.series[s];
    if (series.machine != 0 || page.benchmarks[series.benchmark].is_peer) continue;
    const bool is_decode = page.benchmarks[series.benchmark].kind == "decode";
    if (is_decode) {
      const double level = series.points.back().median_us;
      page.changes.push_back({s, size.runs * 3 / 4, level / 1.08, level, 0.005});
    }
    page.gate.push_back({s, series.points[series.points.size() - 2].run, series.points.back().run,
                         is_decode ? "SAME" : "IMPROVED", is_decode ? 1.001 : 0.93,
                         is_decode ? 0.99 : 0.92, is_decode ? 1.01 : 0.945,
                         is_decode ? 0.6 : 0.0004, is_decode ? "within 2 %" : "-7 % time"});
  }
  const std::int64_t last = static_cast<std::int64_t>(size.runs) - 1;
  page.scores = {{last, "conformance", "cuda", 1248, 1250, std::nullopt},
                 {last, "conformance", "cuda:fused=0", 1250, 1250, std::nullopt},
                 {last, "faults", "smoke", 154, 160, std::nullopt},
                 {last, "faults", "pr", 160, 160, std::nullopt},
                 {last, "error_bound", "bfloat16 attn_out", std::nullopt, std::nullopt, 0.9955},
                 {last, "error_bound", "float32 attn_out", std::nullopt, std::nullopt, 0.1748},
                 {last, "error_bound", "bfloat16 lse", std::nullopt, std::nullopt, 0.394}};
  if (!size.is_plain) {  // of the other machine: a second table of the same columns
    page.scores.push_back({4, "faults", "pr on NVIDIA H200", 106, 107, std::nullopt});
  }
}

}  // namespace

const char* const kHostileText = "</script><script>window.hostile = 1</script><img src=x>";

Page sample_page(const SampleSize& size) {
  Page page;
  page.title = "Attention kernels: speed, history and correctness";
  page.generated = "2026-11-29T12:00:00Z";
  history::Machine gpu;
  gpu.gpu = "NVIDIA H200";
  gpu.gpu_count = 1;
  gpu.num_cpus = 16;
  page.machines.push_back(gpu);
  if (!size.is_plain) {
    history::Machine cpu;
    cpu.id = 1;
    cpu.cpu = "Intel Xeon";
    cpu.num_cpus = 2;
    page.machines.push_back(cpu);
  }
  add_runs(page, size);
  add_benchmarks(page, size);
  add_series(page, size);
  add_judgements(page, size);
  return page;
}

}  // namespace attn::test
