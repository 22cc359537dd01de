// Judges the cuda backend on random cases and writes what scripts/gpu-check.sh commits:
//   attn-gpu-conformance CASES_PER_MODE OUT.json
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "git_revision.h"
#include "gpu/device/device.h"
#include "harness/backends/cuda_backend.h"
#include "harness/compare/compare.h"
#include "harness/generate/case_spec.h"
#include "reference/core/element.h"
#include "reference/core/error.h"
#include "tests/gpu/seeds.h"

namespace attn::harness {
namespace {

// Fresh ones: the tests use those from 0.
constexpr std::uint64_t kFirstSeed = 1'000'000;

/// Ways to run the same layer; each gets its own cases.
constexpr std::array kModes{"cuda", "cuda:fused=0", "cuda:splits=3",
                            "cuda:attention=plain,gemm=own"};

struct Counts {
  std::uint64_t cases = 0, passed = 0, failed = 0, unsupported = 0, crashed = 0, mistrusted = 0;
};

struct Tally {
  std::mutex mutex;
  std::map<std::string, Counts> by_mode;
  std::map<std::string, double> largest;  // "bfloat16 attn_out" -> error / bound
  std::vector<std::string> complaints;
};

void judge(const Backend& backend, const std::string& mode, std::uint64_t seed, Tally& tally) {
  const Case c = make_case(random_small_spec(seed), seed);
  Counts one;
  one.cases = 1;
  std::string complaint;
  std::map<std::string, double> ratios;
  if (!backend.unsupported_reason(c.config).empty()) {
    one.unsupported = 1;
  } else {
    try {
      const Trace trace = backend.run(c, all_stages());
      const Verdict verdict = compare(c, trace, backend.arithmetic(c.config));
      for (const StageReport& report : verdict.stages) {
        ratios[std::string(element_name(c.config.dtype)) + " " +
               std::string(name_of(report.stage))] = report.worst_ratio;
      }
      one.passed = verdict.status == Status::kPassed;
      one.failed = verdict.status == Status::kFailed;
      one.mistrusted = verdict.status == Status::kMistrusted;
      if (one.failed != 0) complaint = verdict.detail + ": " + c.repro;
    } catch (const Error& error) {
      one.crashed = 1;
      complaint = std::string(error.what()) + ": " + c.repro;
    }
  }
  const std::lock_guard lock(tally.mutex);
  Counts& sum = tally.by_mode[mode];
  sum.cases += one.cases;
  sum.passed += one.passed;
  sum.failed += one.failed;
  sum.unsupported += one.unsupported;
  sum.crashed += one.crashed;
  sum.mistrusted += one.mistrusted;
  for (const auto& [name, ratio] : ratios) {
    double& largest = tally.largest[name];
    largest = std::max(largest, ratio);
  }
  if (!complaint.empty()) tally.complaints.push_back(mode + ": " + complaint);
}

nlohmann::ordered_json json_of(const Counts& c) {
  return {{"cases", c.cases},     {"passed", c.passed},
          {"failed", c.failed},   {"unsupported", c.unsupported},
          {"crashed", c.crashed}, {"mistrusted", c.mistrusted}};
}

std::string cuda_version(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

int run(std::uint64_t per_mode, const std::string& path) {
  if (const std::string& why = cuda_unavailable_reason(); !why.empty()) {
    std::cerr << "NOT TESTED, this needs a GPU: " << why << "\n";
    return 1;
  }
  Tally tally;
  std::uint64_t first = kFirstSeed;
  for (const char* mode : kModes) {
    const auto backend = make_backend(mode);
    for_each_seed(first, per_mode, [&](std::uint64_t seed) {
      judge(*backend, mode, seed, tally);
      return std::string();
    });
    first += per_mode;
  }
  Counts all;
  nlohmann::ordered_json modes;
  for (const auto& [mode, c] : tally.by_mode) {
    modes[mode] = json_of(c);
    all.cases += c.cases;
    all.passed += c.passed;
    all.failed += c.failed;
    all.unsupported += c.unsupported;
    all.crashed += c.crashed;
    all.mistrusted += c.mistrusted;
  }
  const gpu::DeviceInfo device = gpu::device_info();
  nlohmann::ordered_json json{{"schema_version", 1},
                              {"device", device.name},
                              {"driver", cuda_version(device.driver)},
                              {"cuda", cuda_version(device.runtime)},
                              {"commit", ATTN_GIT_COMMIT},
                              {"dirty", ATTN_GIT_DIRTY}};
  json.update(json_of(all));
  json["modes"] = modes;
  json["largest_error_over_bound"] = tally.largest;
  std::ofstream(path) << json.dump(1) << "\n";
  for (std::size_t i = 0; i < std::min<std::size_t>(tally.complaints.size(), 20); ++i) {
    std::cout << tally.complaints[i] << "\n";
  }
  std::cout << json_of(all).dump() << "\n";
  return all.failed + all.crashed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace attn::harness

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: attn-gpu-conformance CASES_PER_MODE OUT.json\n";
    return 2;
  }
  try {
    return attn::harness::run(std::strtoull(argv[1], nullptr, 10), argv[2]);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
