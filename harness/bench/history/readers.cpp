#include "harness/bench/history/readers.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <filesystem>

#include "harness/bench/history/json_text.h"
#include "harness/bench/history/statistics.h"

namespace attn::history {
namespace {

using nlohmann::json;

struct MetricColumn {
  const char* name;
  std::optional<double> Result::*column;
  double factor;
};
constexpr std::array<MetricColumn, 9> kColumns{{{"TFLOP/s", &Result::tflops, 1.0},
                                                {"FLOP/s", &Result::tflops, 1e-12},
                                                {"GB/s", &Result::gbps, 1.0},
                                                {"bytes_per_second", &Result::gbps, 1e-9},
                                                {"roofline", &Result::roofline, 1.0},
                                                {"error/bound", &Result::error_bound, 1.0},
                                                {"error_bound", &Result::error_bound, 1.0},
                                                {"instructions", &Result::instructions, 1.0},
                                                {"INSTRUCTIONS", &Result::instructions, 1.0}}};

constexpr std::string_view kNvbenchHeader = "Benchmark,Device,Device Name,";

bool is_nvbench_csv(std::string_view bytes) { return bytes.starts_with(kNvbenchHeader); }

ParsedRun parse_json_kind(const std::string& path, const json& file) {
  const auto has = [&](const char* key) { return file.is_object() && file.contains(key); };
  const auto holds = [&](const char* key, json::value_t type) {
    return has(key) && file.at(key).type() == type;
  };
  constexpr auto kArray = json::value_t::array;
  constexpr auto kObject = json::value_t::object;
  if (holds("benchmarks", kArray) && holds("context", kObject)) {
    return parse_google_benchmark(path, file);
  }
  if (holds("benchmarks", kArray) && holds("devices", kArray))
    return parse_nvbench_json(path, file);
  if (holds("rows", kArray) && has("device") && has("timer")) return parse_peers(path, file);
  if (holds("modes", kObject) && has("cases") && has("passed"))
    return parse_conformance(path, file);
  if (holds("passed", kArray) && has("backend")) return parse_variants(path, file);
  if (holds("gates", kObject) && has("schema_version")) return parse_fault_score(path, file);
  if (has("gate") && has("planted") && has("killed")) return parse_fault_score(path, file);
  refuse(path,
         "is JSON, but of no kind that is known: Google Benchmark, nvbench, peers.py, "
         "attn-gpu-conformance, write_variants, attn-compare faults --record");
}

/// Median over the repetitions of every counter that they have; of an error the largest.
void take_counters(ParsedResult& result) {
  std::map<std::string, std::vector<double>> values;
  for (const Sample& sample : result.samples) {
    if (sample.counters.empty()) continue;
    const json counters = json::parse(sample.counters);
    for (const auto& item : counters.items()) values[item.key()].push_back(item.value());
  }
  for (const auto& [name, all] : values) {
    const bool is_error = name == "error/bound" || name == "error_bound";
    set_metric(result, name, is_error ? *std::ranges::max_element(all) : median(all));
  }
}

}  // namespace

ParsedRun parse_run(const std::string& path, std::string_view bytes) {
  if (bytes.find_first_not_of(" \t\r\n") == std::string_view::npos) refuse(path, "is empty");
  if (std::filesystem::path(path).extension() == ".csv" && !is_nvbench_csv(bytes)) {
    refuse(path, "is no CSV of nvbench: its first line does not begin with " +
                     std::string(kNvbenchHeader.substr(0, kNvbenchHeader.size() - 1)));
  }
  ParsedRun run = is_nvbench_csv(bytes) ? parse_nvbench_csv(path, bytes)
                                        : parse_json_kind(path, parse_json_file(path, bytes));
  run.run.source_name = std::filesystem::path(path).filename().string();
  return run;
}

void set_metric(ParsedResult& result, const std::string& name, double value) {
  if (!std::isfinite(value)) return;
  for (const MetricColumn& c : kColumns) {
    if (name != c.name) continue;
    // A name of ours wins over one of Google Benchmark's for the same thing.
    auto& column = result.result.*c.column;
    if (!column || c.factor == 1.0) column = value * c.factor;
    if (c.factor == 1.0) return;
  }
  result.metrics[name] = value;
}

void summarise_samples(ParsedResult& result) {
  Result& r = result.result;
  r.samples = static_cast<std::int64_t>(result.samples.size());
  r.repetitions = std::max(r.repetitions, r.samples);
  std::vector<double> times;
  for (const Sample& sample : result.samples) {
    if (sample.time_ns) times.push_back(*sample.time_ns);
  }
  if (!times.empty()) {
    const Summary s = summarise(times);
    r.median_ns = s.median;
    r.mean_ns = s.mean;
    r.stddev_ns = s.stddev;
    r.min_ns = s.min;
    r.max_ns = s.max;
  }
  take_counters(result);
  if (!r.median_ns && r.error.empty()) r.error = "no time in the file";
}

std::string utc_date(const std::string& text) {
  std::tm time{};
  int seconds_east = 0;
  char mark = '\0';
  int hours = 0;
  int minutes = 0;
  const int found = std::sscanf(text.c_str(), "%4d-%2d-%2d%*1[T ]%2d:%2d:%2d%c%2d:%2d",
                                &time.tm_year, &time.tm_mon, &time.tm_mday, &time.tm_hour,
                                &time.tm_min, &time.tm_sec, &mark, &hours, &minutes);
  if (found >= 6) {
    if (mark == '+' || mark == '-')
      seconds_east = (mark == '-' ? -60 : 60) * (60 * hours + minutes);
  } else if (std::sscanf(text.c_str(), "%4d/%2d/%2d-%2d:%2d:%2d", &time.tm_year, &time.tm_mon,
                         &time.tm_mday, &time.tm_hour, &time.tm_min, &time.tm_sec) != 6) {
    return "";
  }
  const bool exists = time.tm_mon >= 1 && time.tm_mon <= 12 && time.tm_mday >= 1 &&
                      time.tm_mday <= 31 && time.tm_hour >= 0 && time.tm_hour < 24 &&
                      time.tm_min >= 0 && time.tm_min < 60 && time.tm_sec >= 0 && time.tm_sec <= 60;
  if (!exists) return "";
  time.tm_year -= 1900;
  time.tm_mon -= 1;
  const std::time_t utc = timegm(&time) - seconds_east;
  std::tm there{};
  std::array<char, 32> buffer{};
  if (gmtime_r(&utc, &there) == nullptr ||
      std::strftime(buffer.data(), buffer.size(), "%Y-%m-%dT%H:%M:%SZ", &there) == 0) {
    return "";
  }
  return buffer.data();
}

}  // namespace attn::history
