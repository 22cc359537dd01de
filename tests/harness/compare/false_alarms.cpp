#include "tests/harness/compare/false_alarms.h"

#include <algorithm>
#include <array>
#include <iomanip>
#include <mutex>
#include <sstream>
#include <thread>

#include "harness/backends/backend.h"
#include "harness/compare/compare.h"
#include "harness/generate/case_spec.h"

namespace attn::harness {
namespace {

constexpr std::array kBlocks{5, 16, 64};

std::string cpu_spec(std::uint64_t seed) {
  return "cpu:block=" + std::to_string(kBlocks[seed % 3]) +
         ",threads=" + std::to_string(1 + seed / 3 % 3);
}

void judge(const Case& c, const std::string& spec, FalseAlarms& found) {
  const auto backend = make_backend(spec);
  const Trace trace = backend->run(c, all_stages());
  for (const bool taps : {true, false}) {
    CompareOptions options;
    options.taps = taps;
    options.check_trust = taps;
    const Verdict verdict = compare(c, trace, backend->arithmetic(c.config), options);
    ++found.comparisons;
    if (verdict.status == Status::kMistrusted) ++found.mistrusted;
    const std::string group = spec.substr(0, spec.find(':')) + ", " +
                              std::string(element_name(c.config.dtype)) +
                              (taps ? ", taps" : ", no taps");
    for (const StageReport& report : verdict.stages) {
      found.ratios[group][report.stage].push_back(report.worst_ratio);
    }
    if (verdict.status == Status::kFailed) {
      std::string alarm = spec + (taps ? " (taps) " : " (no taps) ") + verdict.detail;
      for (const StageReport& report : verdict.stages) {
        if (report.stage == verdict.first_bad && !report.note.empty()) alarm += ", " + report.note;
      }
      found.alarms.push_back(alarm + ": " + c.repro);
    }
  }
}

void merge(FalseAlarms& all, const FalseAlarms& part) {
  all.cases += part.cases;
  all.quantised += part.quantised;
  all.float8 += part.float8;
  all.comparisons += part.comparisons;
  all.mistrusted += part.mistrusted;
  all.alarms.insert(all.alarms.end(), part.alarms.begin(), part.alarms.end());
  for (const auto& [group, stages] : part.ratios) {
    for (const auto& [stage, ratios] : stages) {
      auto& into = all.ratios[group][stage];
      into.insert(into.end(), ratios.begin(), ratios.end());
    }
  }
}

}  // namespace

std::string FalseAlarms::table() const {
  constexpr std::array kStages{Stage::kQProj, Stage::kQNorm,   Stage::kQRope, Stage::kCacheK,
                               Stage::kLse,   Stage::kAttnOut, Stage::kOut};
  std::ostringstream out;
  out << std::fixed << std::setprecision(3) << "| class |";
  for (const Stage stage : kStages) out << " " << name_of(stage) << " |";
  out << "\n|---|";
  for (std::size_t i = 0; i < kStages.size(); ++i) out << "---|";
  out << "\n";
  for (const auto& [group, stages] : ratios) {
    out << "| " << group << " |";
    for (const Stage stage : kStages) {
      const auto at = stages.find(stage);
      if (at == stages.end()) {
        out << " |";
        continue;
      }
      std::vector<double> sorted = at->second;
      std::sort(sorted.begin(), sorted.end());
      out << " " << sorted.back() << " / " << sorted[sorted.size() * 99 / 100] << " / "
          << sorted[sorted.size() / 2] << " |";
    }
    out << "\n";
  }
  return out.str();
}

FalseAlarms find_false_alarms(std::uint64_t first_seed, std::int64_t count, bool references,
                              int threads) {
  FalseAlarms all;
  std::mutex mutex;
  const auto work = [&](std::uint64_t offset) {
    FalseAlarms found;
    for (std::int64_t i = static_cast<std::int64_t>(offset); i < count; i += threads) {
      const std::uint64_t seed = first_seed + static_cast<std::uint64_t>(i);
      const Case c = make_case(random_small_spec(seed), seed);
      ++found.cases;
      if (c.config.quant) ++found.quantised;
      if (element_size(c.config.kv_cache.dtype) == 1) ++found.float8;
      judge(c, cpu_spec(seed), found);
      if (!references) continue;
      judge(c, "exact", found);
      judge(c, "faithful", found);
    }
    const std::lock_guard lock(mutex);
    merge(all, found);
  };
  std::vector<std::jthread> pool;
  for (int t = 0; t < threads; ++t) pool.emplace_back(work, static_cast<std::uint64_t>(t));
  pool.clear();
  return all;
}

}  // namespace attn::harness
