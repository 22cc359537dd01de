// Judges the cuda backend on the gates' cases, in every way that it can be run, and writes what
// scripts/gpu-check.sh commits:
//   attn-gpu-conformance CASES OUT.json
// The ways share out the cases. Each has the whole covering array of the pr gate, then random ones
// of its own. A failure prints the line that runs it again.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "git_revision.h"
#include "gpu/device/device.h"
#include "harness/backends/cuda_backend.h"
#include "harness/cli/fuzz_judge.h"
#include "harness/cli/ordered_pool.h"
#include "harness/fuzz/case_source.h"
#include "harness/report/report.h"
#include "reference/core/element.h"

namespace attn::harness {
namespace {

/// What the layers may refuse, by the beginning of the reason, and how much of it at most.
constexpr std::array<std::string_view, 3> kUnsupported{"activations in ", "a cache in ",
                                                       "head_dim above "};
constexpr double kMostUnsupported = 0.01;

struct Way {
  const char* backend;
  const char* exec;
};
constexpr std::array kWays{
    Way{"cuda", "plain"},
    Way{"cuda", "second_call"},
    Way{"cuda", "dirty_scratch"},
    Way{"cuda", "repeat"},
    Way{"cuda", "graph"},
    Way{"cuda", "graph_replay"},
    Way{"cuda", "padded"},
    Way{"cuda:fused=0", "plain"},
    Way{"cuda:splits=3", "plain"},
    Way{"cuda:attention=plain,gemv=0,gemm=own", "plain"},
    Way{"cuda:prefill=tiled", "plain"},
    Way{"cuda:fp8=cublaslt", "plain"},
    Way{"cuda:coded=few", "plain"},
    Way{"cuda:gemv=0", "plain"},
    Way{"cuda:decode=lean-mail", "plain"},
    Way{"cuda:decode=general", "plain"},
};

struct Counts {
  std::int64_t cases = 0, passed = 0, failed = 0, unsupported = 0, crashed = 0, mistrusted = 0;

  void add(std::string_view outcome) {
    ++cases;
    if (outcome == "passed") {
      ++passed;
    } else if (outcome == "failed") {
      ++failed;
    } else if (outcome == "unsupported") {
      ++unsupported;
    } else if (outcome == "mistrusted") {
      ++mistrusted;
    } else {
      ++crashed;
    }
  }
  void add(const Counts& c) {
    cases += c.cases;
    passed += c.passed;
    failed += c.failed;
    unsupported += c.unsupported;
    crashed += c.crashed;
    mistrusted += c.mistrusted;
  }
};

/// Everything that one run of the program found.
struct Tally {
  Counts all;
  std::map<std::string, Counts> by_mode;            // of backend cuda
  std::map<std::string, Counts> by_backend;         // of plain calls
  std::map<std::string, double> largest;            // "bfloat16 attn_out" -> error / bound
  std::map<std::string, std::int64_t> unsupported;  // by reason
  std::vector<std::string> complaints;

  void add(const cli::FuzzResult& result, const Way& way);
};

void Tally::add(const cli::FuzzResult& result, const Way& way) {
  const std::string_view what = outcome(result.row);
  Counts one;
  one.add(what);
  all.add(one);
  if (std::string_view(way.backend) == "cuda") by_mode[way.exec].add(one);
  if (std::string_view(way.exec) == "plain") by_backend[way.backend].add(one);
  const std::string type(element_name(result.tried.spec.config.dtype));
  for (const StageReport& report : result.row.verdict.stages) {
    double& ratio = largest[type + " " + std::string(name_of(report.stage))];
    ratio = std::max(ratio, report.worst_ratio);
  }
  if (one.unsupported > 0) ++unsupported[result.row.verdict.detail];
  if (one.failed + one.crashed > 0) {
    complaints.push_back(result.row.verdict.detail + "\n  " + result.row.repro);
  }
}

nlohmann::ordered_json json_of(const Counts& c) {
  return {{"cases", c.cases},     {"passed", c.passed},
          {"failed", c.failed},   {"unsupported", c.unsupported},
          {"crashed", c.crashed}, {"mistrusted", c.mistrusted}};
}

nlohmann::ordered_json json_of(const std::map<std::string, Counts>& counts) {
  nlohmann::ordered_json json;
  for (const auto& [name, c] : counts) json[name] = json_of(c);
  return json;
}

std::string cuda_version(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

void run_way(const Way& way, std::int64_t cases, std::uint64_t seed, Tally& tally) {
  cli::FuzzOptions options;
  options.backend = way.backend;
  options.exec = way.exec;
  const auto backend = make_backend(way.backend);
  const cli::FuzzJudge judge(options, *backend);
  // The covering array is of the gate's own seed; the random cases are this way's.
  const CaseSource covering({}, {Gate::kPr, 1, {}});
  const CaseSource random({}, {Gate::kSmoke, seed, {}});
  cli::run_in_order<cli::FuzzResult>(
      static_cast<std::size_t>(cases),
      static_cast<int>(std::max(1U, std::thread::hardware_concurrency())),
      [&](std::size_t i) {
        const auto n = static_cast<std::int64_t>(i);
        return judge.judge(n < covering.planned()
                               ? covering.at(n)
                               : random.at(n - covering.planned() + random.planned()));
      },
      [&](const cli::FuzzResult& result) { tally.add(result, way); }, [](std::size_t) {},
      [] { return false; });
}

/// "" when what was refused is listed and little.
std::string refusal_mistake(const Tally& tally) {
  for (const auto& [reason, count] : tally.unsupported) {
    if (std::ranges::none_of(kUnsupported,
                             [&](std::string_view s) { return reason.find(s) != reason.npos; })) {
      return "unsupported for a reason that is not listed: " + reason;
    }
  }
  if (static_cast<double>(tally.all.unsupported) >
      kMostUnsupported * static_cast<double>(tally.all.cases)) {
    return std::to_string(tally.all.unsupported) + " cases are unsupported, more than 1 %";
  }
  return "";
}

int run(std::int64_t cases, const std::string& path) {
  if (const std::string& why = cuda_unavailable_reason(); !why.empty()) {
    std::cerr << "NOT TESTED, this needs a GPU: " << why << "\n";
    return 1;
  }
  Tally tally;
  const auto share = cases / std::ssize(kWays);
  std::uint64_t seed = 1;
  for (const Way& way : kWays) run_way(way, share, ++seed, tally);
  const gpu::DeviceInfo device = gpu::device_info();
  nlohmann::ordered_json json{{"schema_version", 1},
                              {"device", device.name},
                              {"driver", cuda_version(device.driver)},
                              {"cuda", cuda_version(device.runtime)},
                              {"commit", ATTN_GIT_COMMIT},
                              {"dirty", ATTN_GIT_DIRTY}};
  json.update(json_of(tally.all));
  json["unsupported_reasons"] = tally.unsupported;
  json["modes"] = json_of(tally.by_mode);
  json["backends"] = json_of(tally.by_backend);
  json["largest_error_over_bound"] = tally.largest;
  std::ofstream(path) << json.dump(1) << "\n";
  for (std::size_t i = 0; i < std::min<std::size_t>(tally.complaints.size(), 20); ++i) {
    std::cout << tally.complaints[i] << "\n";
  }
  std::cout << json_of(tally.all).dump() << "\n";
  const std::string refusal = refusal_mistake(tally);
  if (!refusal.empty()) std::cout << refusal << "\n";
  return tally.all.failed + tally.all.crashed == 0 && refusal.empty() ? 0 : 1;
}

}  // namespace
}  // namespace attn::harness

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: attn-gpu-conformance CASES OUT.json\n";
    return 2;
  }
  try {
    return attn::harness::run(std::strtoll(argv[1], nullptr, 10), argv[2]);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
