// nvbench's JSON (json_printer) and CSV (csv_printer). A state is a benchmark; its axes are the
// parameters. JSON names files of float32 seconds, one for each sample, when --jsonbin wrote them.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "harness/bench/history/json_text.h"
#include "harness/bench/history/parameters.h"
#include "harness/bench/history/readers.h"

namespace attn::history {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr double kNanoseconds = 1e9;

/// The array under `key`, or one line about its absence.
const json& list_of(const std::string& path, const json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_array()) refuse(path, std::string("has no list ") + key);
  return *it;
}

/// "value" of a summary's data.
std::optional<double> value_of(const json& summary) {
  const auto data = summary.find("data");
  if (data == summary.end() || !data->is_array()) return std::nullopt;
  for (const json& named : *data) {
    if (named.is_object() && text_of(named, "name") == "value") return number_of(named, "value");
  }
  return std::nullopt;
}

std::string data_text(const json& summary, const char* name) {
  const auto data = summary.find("data");
  if (data == summary.end() || !data->is_array()) return "";
  for (const json& named : *data) {
    if (named.is_object() && text_of(named, "name") == name) return text_of(named, "value");
  }
  return "";
}

/// The seconds of every sample, from the file that a summary names; nothing when it is not there.
std::vector<float> read_samples(const std::string& path, const json& summary) {
  const fs::path named = data_text(summary, "filename");
  const auto count = number_of(json{{"size", data_text(summary, "size")}}, "size");
  if (named.empty() || named.filename().empty() || !count || *count < 1.0) return {};
  // Beside the JSON, wherever both were moved to: its folder and its name, nothing above.
  const fs::path beside =
      fs::path(path).parent_path() / named.parent_path().filename() / named.filename();
  std::ifstream file(beside, std::ios::binary);
  if (!file) return {};
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (static_cast<double>(bytes.size()) != *count * sizeof(float)) {
    refuse(path, "names " + beside.filename().string() + " with " + data_text(summary, "size") +
                     " samples, which has " + std::to_string(bytes.size()) + " bytes");
  }
  std::vector<float> seconds(bytes.size() / sizeof(float));
  std::memcpy(seconds.data(), bytes.data(), bytes.size());
  return seconds;
}

/// Where a summary of times goes; null for other ones.
std::optional<double>* time_column(Result& result, std::string_view word) {
  if (word == "mean") return &result.mean_ns;
  if (word == "median") return &result.median_ns;
  if (word == "min") return &result.min_ns;
  if (word == "max") return &result.max_ns;
  if (word == "stdev/absolute") return &result.stddev_ns;
  return nullptr;
}

/// Times of the cold measurement, on the GPU where there are such; everything else is a metric.
void read_summaries(const std::string& path, const json& summaries, ParsedResult& result) {
  const auto begins = [&](const std::string& stem) {
    return std::ranges::any_of(summaries, [&](const json& summary) {
      return summary.is_object() && text_of(summary, "tag").starts_with(stem);
    });
  };
  const bool on_gpu = begins("nv/cold/time/gpu/");
  const std::string stem = on_gpu                            ? "nv/cold/time/gpu/"
                           : begins("nv/cpu_only/time/cpu/") ? "nv/cpu_only/time/cpu/"
                                                             : "nv/cold/time/cpu/";
  result.benchmark.timer = on_gpu ? "gpu" : "real";
  for (const json& summary : summaries) {
    if (!summary.is_object()) refuse(path, "has a summary that is no object");
    const std::string tag = text_of(summary, "tag");
    if (tag.ends_with("sample_times")) {
      for (const float seconds : read_samples(path, summary)) {
        const auto place = static_cast<std::int64_t>(result.samples.size());
        result.samples.push_back({place, double{seconds} * kNanoseconds, std::nullopt, 1, ""});
      }
    }
    const auto value = value_of(summary);
    if (!value) continue;
    if (tag.starts_with(stem)) {
      if (auto* const column = time_column(result.result, tag.substr(stem.size()))) {
        *column = *value * kNanoseconds;
        continue;
      }
    }
    if (tag.ends_with("/sample_size")) {
      result.result.repetitions =
          std::max(result.result.repetitions, static_cast<std::int64_t>(*value));
    }
    if (tag == "nv/cold/bw/global/bytes_per_second") result.result.gbps = *value / 1e9;
    set_metric(result, tag, *value);
  }
  // Old versions know no median: the mean stands for it.
  if (!result.result.median_ns) result.result.median_ns = result.result.mean_ns;
}

void add_device(Machine& machine, const std::string& name) {
  ++machine.gpu_count;
  if (machine.gpu.find(name) != std::string::npos) return;
  if (!machine.gpu.empty()) machine.gpu.append(", ");
  machine.gpu.append(name);
}

void read_devices(const std::string& path, const json& devices, ParsedRun& run) {
  for (const json& device : devices) {
    if (!device.is_object()) refuse(path, "has a device that is no object");
    const std::string name = text_of(device, "name");
    add_device(run.run.machine, name);
  }
  if (devices.empty()) return;
  if (const auto rate = number_of(devices[0], "sm_default_clock_rate")) {
    run.run.clocks = std::to_string(static_cast<std::int64_t>(*rate / 1e6)) + " MHz SM by default";
  }
}

ParsedResult read_state(const std::string& path, const json& bench, const json& state,
                        const ParsedRun& run) {
  if (!state.is_object()) refuse(path, "has a state that is no object");
  ParsedResult result;
  result.benchmark.program = run.run.program;
  result.benchmark.name = text_of(bench, "name");
  if (result.benchmark.name.empty()) refuse(path, "has a benchmark without a name");
  const auto axes = state.find("axis_values");
  if (axes != state.end() && axes->is_array()) {
    for (const json& axis : *axes) {
      if (!axis.is_object()) refuse(path, "has an axis value that is no object");
      const std::string name = text_of(axis, "name");
      const std::string value = text_of(axis, "value");
      if (!set_parameter(result.benchmark, name, value)) result.benchmark.parameters[name] = value;
    }
  }
  if (run.run.machine.gpu_count > 1)
    result.benchmark.parameters["device"] = text_of(state, "device");
  result.result.label = text_of(state, "name");
  result.result.time_unit = "s";
  const auto skipped = state.find("is_skipped");
  if (skipped != state.end() && *skipped == json(true)) {
    const std::string why = text_of(state, "skip_reason");
    result.result.error = why.empty() ? "skipped" : why;
    result.benchmark.timer = "gpu";
  } else {
    read_summaries(path, list_of(path, state, "summaries"), result);
  }
  summarise_samples(result);
  settle(result.benchmark);
  return result;
}

/// Comma-separated cells; nvbench quotes none.
std::vector<std::string> cells_of(const std::string& line) {
  std::vector<std::string> cells;
  std::istringstream words(line);
  for (std::string cell; std::getline(words, cell, ',');) cells.push_back(cell);
  if (line.ends_with(',')) cells.emplace_back();
  return cells;
}

std::optional<double> number_in(const std::string& cell) {
  return number_of(json{{"cell", cell}}, "cell");
}

/// Columns before "Skipped" are the parameters.
ParsedResult read_csv_row(const std::vector<std::string>& header,
                          const std::vector<std::string>& cells, std::size_t skipped) {
  ParsedResult result;
  Benchmark& benchmark = result.benchmark;
  benchmark.program = "nvbench";
  benchmark.name = cells[0];
  benchmark.timer = "gpu";
  for (std::size_t c = 3; c < skipped; ++c) {
    // "N (pow2)" repeats N.
    if (header[c].ends_with(" (pow2)") || cells[c].empty()) continue;
    if (!set_parameter(benchmark, header[c], cells[c])) benchmark.parameters[header[c]] = cells[c];
  }
  if (cells[skipped] == "Yes") result.result.error = "skipped";
  for (std::size_t c = skipped + 1; c < cells.size(); ++c) {
    const auto value = number_in(cells[c]);
    if (!value) continue;
    if (header[c] == "Samples") result.result.repetitions = static_cast<std::int64_t>(*value);
    if (header[c] == "GPU Time (sec)") {
      result.result.mean_ns = *value * kNanoseconds;
      // Noise, the standard deviation over the mean, follows its time.
      if (c + 1 < cells.size() && header[c + 1] == "Noise") {
        if (const auto noise = number_in(cells[c + 1])) {
          result.result.stddev_ns = *noise * *result.result.mean_ns;
        }
      }
    } else if (header[c] == "GlobalMem BW (bytes/sec)") {
      result.result.gbps = *value / 1e9;
    } else if (header[c] != "Noise") {
      set_metric(result, header[c], *value);
    }
  }
  result.result.median_ns = result.result.mean_ns;
  result.result.time_unit = "s";
  summarise_samples(result);
  return result;
}

}  // namespace

ParsedRun parse_nvbench_json(const std::string& path, const json& file) {
  ParsedRun run;
  run.run.source_kind = "nvbench-json";
  if (const auto meta = file.find("meta"); meta != file.end() && meta->is_object()) {
    flatten(*meta, "meta", run.context);
    const auto argv = meta->find("argv");
    if (argv != meta->end() && argv->is_array() && !argv->empty() && (*argv)[0].is_string()) {
      run.run.program = fs::path((*argv)[0].get<std::string>()).filename().string();
    }
    const auto version = run.context.find("meta.version.nvbench.string");
    if (version != run.context.end()) run.run.libraries = "nvbench " + version->second;
  }
  if (run.run.program.empty()) run.run.program = "nvbench";
  const json& devices = list_of(path, file, "devices");
  flatten(devices, "devices", run.context);
  read_devices(path, devices, run);
  for (const json& bench : list_of(path, file, "benchmarks")) {
    if (!bench.is_object()) refuse(path, "has a benchmark that is no object");
    for (const json& state : list_of(path, bench, "states")) {
      run.results.push_back(read_state(path, bench, state, run));
    }
  }
  if (run.results.empty()) refuse(path, "holds no benchmark");
  return run;
}

ParsedRun parse_nvbench_csv(const std::string& path, std::string_view text) {
  std::istringstream lines{std::string(text)};
  std::string line;
  std::getline(lines, line);
  if (line.ends_with('\r')) line.pop_back();
  const std::vector<std::string> header = cells_of(line);
  const auto skipped =
      static_cast<std::size_t>(std::ranges::find(header, "Skipped") - header.begin());
  if (skipped == header.size()) refuse(path, "line 1: has no column Skipped");
  ParsedRun run;
  run.run.source_kind = "nvbench-csv";
  run.run.program = "nvbench";
  std::set<std::string> devices;
  for (int number = 2; std::getline(lines, line); ++number) {
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty()) continue;
    const std::vector<std::string> cells = cells_of(line);
    if (cells.size() != header.size()) {
      refuse(path, "line " + std::to_string(number) + ": has " + std::to_string(cells.size()) +
                       " cells, the header " + std::to_string(header.size()));
    }
    ParsedResult result = read_csv_row(header, cells, skipped);
    if (devices.insert(cells[1]).second) add_device(run.run.machine, cells[2]);
    result.benchmark.parameters["device"] = cells[1];
    run.results.push_back(std::move(result));
  }
  if (run.results.empty()) refuse(path, "holds no benchmark");
  for (ParsedResult& result : run.results) {
    if (run.run.machine.gpu_count < 2) result.benchmark.parameters.erase("device");
    settle(result.benchmark);
  }
  return run;
}

}  // namespace attn::history
