// False alarms over the space of the gates. A program of its own, so that it can run in pieces:
//
//   false_alarm_sweep FILE FIRST COUNT [THREADS]
//
// judges cases FIRST .. FIRST + COUNT - 1 and appends what came of every hundred to FILE, a line of
// JSON each. Hundreds that FILE has are not run again. Then it prints the sum of FILE, which may be
// the lines of several files one after the other. Exit code 1 when one of them has an alarm.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "harness/backends/execution.h"
#include "harness/compare/compare.h"
#include "harness/fuzz/case_source.h"
#include "harness/generate/legal_points.h"
#include "harness/generate/space.h"
#include "harness/generate/space_axes.h"

namespace attn::harness {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kPiece = 100;
constexpr std::array kBlocks{5, 16, 64};

/// What came of some cases.
struct Tally {
  std::int64_t cases = 0;
  std::int64_t comparisons = 0;
  std::map<std::string, std::map<std::string, std::int64_t>> cases_by;  ///< axis: value: cases
  std::map<std::string, std::int64_t> modes;  ///< other ways of running: runs
  std::map<std::string, double> worst;        ///< "taps lse": largest error / bound
  std::vector<std::string> alarms;
};

Json to_json(const Tally& tally, std::int64_t piece) {
  return {{"piece", piece},
          {"cases", tally.cases},
          {"comparisons", tally.comparisons},
          {"cases_by", tally.cases_by},
          {"modes", tally.modes},
          {"worst", tally.worst},
          {"alarms", tally.alarms}};
}

void add(const Json& line, Tally& tally) {
  tally.cases += line.at("cases").get<std::int64_t>();
  tally.comparisons += line.at("comparisons").get<std::int64_t>();
  for (const auto& [axis, values] : line.at("cases_by").items()) {
    for (const auto& [value, cases] : values.items()) {
      tally.cases_by[axis][value] += cases.get<std::int64_t>();
    }
  }
  for (const auto& [mode, runs] : line.at("modes").items()) tally.modes[mode] += runs.get<int>();
  for (const auto& [stage, ratio] : line.at("worst").items()) {
    tally.worst[stage] = std::max(tally.worst[stage], ratio.get<double>());
  }
  for (const auto& alarm : line.at("alarms")) tally.alarms.push_back(alarm);
}

/// Case n: profiles and weight formats in turn, every other axis drawn.
PlannedCase case_of(std::int64_t n) {
  const std::uint64_t seed =
      RandomStream(1, "false_alarm_sweep").bits(static_cast<std::uint64_t>(n)) >> 11U;
  Draw draw(seed, "false_alarm_sweep");
  const auto weights = static_cast<std::size_t>(axis_number("weights"));
  const auto profile = static_cast<std::size_t>(axis_number("profile"));
  const auto count = [](std::size_t axis) { return std::ssize(space_axes()[axis].values); };
  // Without formats three times as often: only then may a case begin at attention.
  const std::int64_t turns = count(weights) + 2;
  Point start(space_axes().size(), -1);
  start[weights] = n % turns < count(weights) ? static_cast<int>(n % turns) : 0;
  start[profile] = static_cast<int>(n / turns % count(profile));
  if (!is_legal(start)) start[n % 2 == 0 ? weights : profile] = -1;
  Point point = LegalPoints::instance().draw_from(start, draw);
  const auto broadcast = static_cast<std::size_t>(axis_number("broadcast"));
  if (!draw.one_in(4)) point[broadcast] = 0;
  return {spec_of(point, seed), seed};
}

void judge(const Case& c, const Trace& trace, const Backend& backend, const std::string& how,
           Tally& tally) {
  for (const bool taps : {true, false}) {
    CompareOptions options;
    options.taps = taps;
    options.check_trust = false;  // a degenerate case is judged all the same
    const Verdict verdict = compare(c, trace, backend.arithmetic(c.config), options);
    ++tally.comparisons;
    for (const StageReport& report : verdict.stages) {
      double& worst =
          tally.worst[(taps ? "taps " : "no taps ") + std::string(name_of(report.stage))];
      worst = std::max(worst, std::min(report.worst_ratio, 1e300));
    }
    if (verdict.status == Status::kFailed) {
      tally.alarms.push_back(how + (taps ? " (taps) " : " (no taps) ") + verdict.detail + ": " +
                             c.repro);
    }
  }
}

void run_case(std::int64_t n, Tally& tally) {
  const PlannedCase planned = case_of(n);
  const std::string how = "cpu:block=" + std::to_string(kBlocks[static_cast<std::size_t>(n) % 3]) +
                          ",threads=" + std::to_string(1 + n / 3 % 3);
  const Case c = make_case(planned.spec, planned.seed);
  const auto backend = make_backend(how);
  const Trace plain = backend->run(c, all_stages());
  judge(c, plain, *backend, how, tally);
  const Point point = point_of(planned.spec);
  for (const char* const axis : {"profile", "weights", "activations", "kv_cache", "variant"}) {
    const auto a = static_cast<std::size_t>(axis_number(axis));
    ++tally.cases_by[axis][space_axes()[a].values[static_cast<std::size_t>(point[a])]];
  }
  ++tally.cases_by["backend"][how];
  ++tally.cases;
  if (n % 8 != 7) return;  // as the gates deal the other modes
  const OtherCase before = other_case(planned.spec, planned.seed);
  const Case other = make_case(before.spec, before.seed);
  for (const ExecMode mode : {ExecMode::kSecondCall, ExecMode::kDirtyScratch, ExecMode::kRepeat}) {
    const auto fresh = make_backend(how);
    const Trace again = execute(*fresh, mode, c, &other, all_stages());
    ++tally.modes[std::string(name_of(mode))];
    if (first_difference(plain, again).empty()) continue;  // equal bits, equal verdict
    judge(c, again, *fresh, how + " " + std::string(name_of(mode)), tally);
  }
}

Tally run_piece(std::int64_t piece) {
  Tally tally;
  for (std::int64_t n = piece * kPiece; n < (piece + 1) * kPiece; ++n) {
    try {
      run_case(n, tally);
    } catch (const std::exception& error) {
      tally.alarms.push_back("case " + std::to_string(n) + ": " + error.what());
    }
  }
  return tally;
}

std::vector<Json> lines_of(const std::string& path) {
  std::vector<Json> lines;
  std::ifstream file(path);
  for (std::string text; std::getline(file, text);) {
    // One that was cut off by a kill is run again.
    Json line = Json::parse(text, nullptr, false);
    if (!line.is_discarded()) lines.push_back(std::move(line));
  }
  return lines;
}

void run_pieces(const std::string& path, std::vector<std::int64_t> pieces, int threads) {
  std::ofstream file(path, std::ios::app);
  std::mutex mutex;
  std::size_t next = 0;
  const auto work = [&] {
    while (true) {
      std::unique_lock lock(mutex);
      if (next == pieces.size()) return;
      const std::int64_t piece = pieces[next++];
      lock.unlock();
      const Json line = to_json(run_piece(piece), piece);
      lock.lock();
      file << line.dump() << std::endl;
    }
  };
  std::vector<std::jthread> pool;
  for (int t = 0; t < threads; ++t) pool.emplace_back(work);
}

void print(const Tally& tally) {
  std::cout << tally.cases << " cases, " << tally.comparisons << " comparisons, "
            << tally.alarms.size() << " alarms\n";
  for (const auto& [axis, values] : tally.cases_by) {
    std::cout << axis << ":";
    for (const auto& [value, cases] : values) std::cout << " " << value << " " << cases << ";";
    std::cout << "\n";
  }
  std::cout << "other modes:";
  for (const auto& [mode, runs] : tally.modes) std::cout << " " << mode << " " << runs << ";";
  std::cout << "\nlargest error / bound:\n";
  for (const auto& [stage, ratio] : tally.worst) std::cout << "  " << stage << " " << ratio << "\n";
  for (const std::string& alarm : tally.alarms) std::cout << "alarm: " << alarm << "\n";
}

int sweep(const std::string& path, std::int64_t first, std::int64_t count, int threads) {
  std::set<std::int64_t> done;
  for (const Json& line : lines_of(path)) done.insert(line.at("piece").get<std::int64_t>());
  std::vector<std::int64_t> pieces;
  for (std::int64_t p = first / kPiece; p < (first + count + kPiece - 1) / kPiece; ++p) {
    if (!done.contains(p)) pieces.push_back(p);
  }
  run_pieces(path, pieces, threads);
  Tally tally;
  std::set<std::int64_t> added;
  for (const Json& line : lines_of(path)) {
    if (added.insert(line.at("piece").get<std::int64_t>()).second) add(line, tally);
  }
  print(tally);
  return tally.alarms.empty() ? 0 : 1;
}

}  // namespace
}  // namespace attn::harness

int main(int argc, char** argv) {
  if (argc < 4 || argc > 5) {
    std::cerr << "usage: false_alarm_sweep FILE FIRST COUNT [THREADS]\n";
    return 2;
  }
  const int threads = argc == 5 ? std::atoi(argv[4]) : 2;
  return attn::harness::sweep(argv[1], std::atoll(argv[2]), std::atoll(argv[3]), threads);
}
