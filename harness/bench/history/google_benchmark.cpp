// Google Benchmark's JSON, from its first versions (rows of name, iterations, real_time, cpu_time,
// time_unit) to those with run_type, repetition_index and skipped.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <set>

#include "harness/bench/history/json_text.h"
#include "harness/bench/history/parameters.h"
#include "harness/bench/history/readers.h"

namespace attn::history {
namespace {

using nlohmann::json;

/// Keys of a row that are no counters.
const std::set<std::string>& builtin_keys() {
  static const std::set<std::string> kKeys{
      "name",          "family_index",     "per_family_instance_index",
      "run_name",      "run_type",         "repetitions",
      "threads",       "repetition_index", "label",
      "iterations",    "real_time",        "cpu_time",
      "time_unit",     "skipped",          "error_occurred",
      "error_message", "skip_message",     "aggregate_name",
      "big_o",         "aggregate_unit",   "parameters"};
  return kKeys;
}

/// A row's place, for messages.
struct Row {
  const std::string& path;
  std::size_t index;
  const json& value;

  [[noreturn]] void refuse_row(const std::string& what) const {
    refuse(path, "benchmarks[" + std::to_string(index) + "]: " + what);
  }
  std::string text(const char* key) const { return text_of(value, key); }
};

double nanoseconds_per(const Row& row, const std::string& unit) {
  if (unit == "ns" || unit.empty()) return 1.0;  // the first versions had no other
  if (unit == "us") return 1e3;
  if (unit == "ms") return 1e6;
  if (unit == "s") return 1e9;
  row.refuse_row("time_unit is \"" + unit + "\"; known: ns, us, ms, s");
}

/// A number of things in a file, as one.
std::int64_t counted(double value) {
  return static_cast<std::int64_t>(std::clamp(value, 0.0, 1e18));
}

/// "name/iterations:5/manual_time" without what says how it was run; `timer` gets what it says.
std::string without_settings(std::string name, std::string& timer) {
  // Threads are kept, as a parameter.
  static const std::set<std::string> kSettings{"iterations", "repeats", "min_time",
                                               "min_warmup_time", "threads"};
  while (true) {
    const std::size_t slash = name.rfind('/');
    if (slash == std::string::npos) return name;
    const std::string last = name.substr(slash + 1);
    if (last == "manual_time") {
      timer = "manual";
    } else if (last == "real_time") {
      timer = "real";
    } else if (last == "process_time") {
      if (timer == "cpu") timer = "process";
    } else if (!kSettings.contains(last.substr(0, last.find(':'))) ||
               last.find(':') == std::string::npos) {
      return name;
    }
    name.erase(slash);
  }
}

/// attn-bench's labels begin with its timer: "graph, 15 copies".
void timer_of_label(const std::string& label, std::string& timer) {
  const std::string word = label.substr(0, label.find(','));
  if (word == "graph" || word == "events" || word == "host") timer = word;
}

/// "mean", "median", ... for a row that stands for several repetitions; "" for one repetition.
std::string aggregate_of(const Row& row) {
  const std::string type = row.text("run_type");
  if (type == "aggregate") {
    const std::string name = row.text("aggregate_name");
    if (name.empty()) row.refuse_row("is an aggregate without aggregate_name");
    return name;
  }
  if (type.empty()) {  // before version 1.5 only the name tells
    const std::string name = row.text("name");
    for (const char* const word : {"mean", "median", "stddev", "cv", "BigO", "RMS"}) {
      if (name.ends_with(std::string("_") + word)) return word;
    }
  }
  return "";
}

std::string run_name_of(const Row& row, const std::string& aggregate) {
  std::string name = row.text("run_name");
  if (!name.empty()) return name;
  name = row.text("name");
  if (!aggregate.empty() && name.ends_with("_" + aggregate)) {
    name.erase(name.size() - aggregate.size() - 1);
  }
  return name;
}

void read_parameters(const Row& row, const json& parameters, Benchmark& benchmark) {
  if (!parameters.is_object()) row.refuse_row("parameters is no object");
  for (const auto& item : parameters.items()) {
    if (item.value().is_null()) continue;
    const std::string value = text_of(parameters, item.key().c_str());
    if (!set_parameter(benchmark, item.key(), value)) {
      row.refuse_row("parameters: " + item.key() + " is \"" + value + "\", not a whole number");
    }
  }
}

class Reader {
 public:
  Reader(const std::string& path, const json& file) : path_(path), file_(file) {}

  ParsedRun read() {
    read_context();
    const json& rows = file_.at("benchmarks");
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const Row row{path_, i, rows[i]};
      if (!rows[i].is_object()) row.refuse_row("is no object");
      read_row(row);
    }
    if (run_.results.empty()) refuse(path_, "holds no benchmark");
    for (ParsedResult& result : run_.results) {
      summarise_samples(result);
      settle(result.benchmark);
    }
    check_distinct();
    return std::move(run_);
  }

 private:
  void read_context() {
    const json& context = file_.at("context");
    flatten(context, "", run_.context);
    const auto take = [&](std::initializer_list<const char*> names) {
      for (const char* const name : names) {
        if (const std::string text = text_of(context, name); !text.empty()) return text;
      }
      return std::string();
    };
    Run& run = run_.run;
    run.source_kind = "google-benchmark";
    run.date = utc_date(take({"date"}));
    run.commit = take({"commit", "git_commit", "git_sha"});
    run.subject = take({"subject", "git_subject"});
    run.driver = take({"driver"});
    run.cuda = take({"cuda"});
    run.clocks = take({"clocks"});
    run.compiler = take({"compiler"});
    run.build_type = take({"build_type", "attn_build_type"});
    run.libraries = take({"libraries"});
    run.program = take({"program"});
    if (run.program.empty()) {
      run.program = std::filesystem::path(take({"executable"})).filename().string();
    }
    Machine& machine = run.machine;
    machine.gpu = take({"gpu"});
    machine.gpu_count =
        counted(number_of(context, "gpu_count").value_or(machine.gpu.empty() ? 0.0 : 1.0));
    machine.cpu = take({"cpu"});
    machine.host = take({"host_name"});
    machine.num_cpus = counted(number_of(context, "num_cpus").value_or(0.0));
    read_caches(context);
  }

  void read_caches(const json& context) {
    const auto caches = context.find("caches");
    if (caches == context.end() || !caches->is_array()) return;
    for (const json& cache : *caches) {
      if (!cache.is_object()) continue;
      const std::string type = text_of(cache, "type");
      std::string& text = run_.run.machine.caches;
      text += (text.empty() ? "L" : ", L") + text_of(cache, "level");
      if (type == "Data") text += "d";
      if (type == "Instruction") text += "i";
      text += " " + text_of(cache, "size");
    }
  }

  void read_row(const Row& row) {
    const std::string aggregate = aggregate_of(row);
    if (aggregate == "BigO" || aggregate == "RMS") return;  // of a family, not of a benchmark
    const std::string run_name = run_name_of(row, aggregate);
    if (run_name.empty()) row.refuse_row("has no name");
    const double scale = nanoseconds_per(row, row.text("time_unit"));
    ParsedResult& result = result_of(row, run_name);
    const std::string error = error_of(row);
    if (!error.empty()) {
      result.result.error = error;
      return;
    }
    const bool by_cpu = result.benchmark.timer == "cpu" || result.benchmark.timer == "process";
    const auto real = time_of(row, "real_time", scale);
    const auto cpu = time_of(row, "cpu_time", scale);
    if (aggregate.empty()) {
      add_sample(row, result, by_cpu ? cpu : real, cpu);
    } else {
      add_aggregate(row, result, aggregate, scale, by_cpu ? "cpu_time" : "real_time");
    }
  }

  static std::string error_of(const Row& row) {
    const auto is_set = [&](const char* key) {
      const auto it = row.value.find(key);
      return it != row.value.end() && !it->is_null() && *it != json(false);
    };
    if (!is_set("error_occurred") && !is_set("skipped")) return "";
    for (const char* const key : {"error_message", "skip_message"}) {
      if (const std::string text = row.text(key); !text.empty()) return text;
    }
    return "no reason given";
  }

  static std::optional<double> time_of(const Row& row, const char* key, double scale) {
    const auto it = row.value.find(key);
    if (it == row.value.end()) row.refuse_row(std::string("has no ") + key);
    if (!it->is_null() && !it->is_number()) row.refuse_row(std::string(key) + " is no number");
    const auto time = number_of(row.value, key);
    if (time && *time < 0.0) {
      row.refuse_row(std::string(key) + " is " + text_of(row.value, key) +
                     ": a time is not negative");
    }
    if (!time) return std::nullopt;
    return *time * scale;
  }

  ParsedResult& result_of(const Row& row, const std::string& run_name) {
    const auto known = place_.find(run_name);
    if (known != place_.end()) return run_.results[known->second];
    ParsedResult result;
    Benchmark& benchmark = result.benchmark;
    benchmark.timer = "cpu";
    read_name(benchmark, without_settings(run_name, benchmark.timer));
    benchmark.program = run_.run.program;
    if (benchmark.program.empty() && !benchmark.backend.empty()) benchmark.program = "attn-bench";
    result.result.label = row.text("label");
    timer_of_label(result.result.label, benchmark.timer);
    result.result.time_unit = row.text("time_unit").empty() ? "ns" : row.text("time_unit");
    const auto threads = number_of(row.value, "threads");
    if (threads && *threads > 1.0) benchmark.threads = counted(*threads);
    read_recorded_parameters(row, benchmark);
    result.result.repetitions = counted(number_of(row.value, "repetitions").value_or(0.0));
    place_[run_name] = run_.results.size();
    run_.results.push_back(std::move(result));
    return run_.results.back();
  }

  /// The row's own `parameters` object, or the context's text of one for all rows of this name.
  void read_recorded_parameters(const Row& row, Benchmark& benchmark) {
    const auto own = row.value.find("parameters");
    if (own != row.value.end()) read_parameters(row, *own, benchmark);
    const std::string text = text_of(file_.at("context"), ("parameters " + benchmark.name).c_str());
    if (text.empty()) return;
    read_parameters(row, json::parse(text, nullptr, false), benchmark);
    run_.context.erase("parameters " + benchmark.name);
  }

  static void add_sample(const Row& row, ParsedResult& result, std::optional<double> time,
                         std::optional<double> cpu) {
    Sample sample;
    const auto index = number_of(row.value, "repetition_index");
    sample.repetition = index ? counted(*index) : static_cast<std::int64_t>(result.samples.size());
    sample.time_ns = time;
    sample.cpu_ns = cpu;
    sample.iterations = counted(number_of(row.value, "iterations").value_or(0.0));
    json counters = json::object();
    for (const auto& item : row.value.items()) {
      if (item.value().is_number() && !builtin_keys().contains(item.key())) {
        counters[item.key()] = item.value();
      }
    }
    if (!counters.empty()) sample.counters = dump(counters);
    result.samples.push_back(std::move(sample));
  }

  static void add_aggregate(const Row& row, ParsedResult& result, const std::string& aggregate,
                            double scale, const char* key) {
    const auto time = number_of(row.value, key);
    if (!time) return;
    if (aggregate == "mean") result.result.mean_ns = *time * scale;
    if (aggregate == "stddev") result.result.stddev_ns = *time * scale;
    if (aggregate == "min") result.result.min_ns = *time * scale;
    if (aggregate == "max") result.result.max_ns = *time * scale;
    if (aggregate != "median") return;
    result.result.median_ns = *time * scale;
    for (const auto& item : row.value.items()) {
      if (item.value().is_number() && !builtin_keys().contains(item.key())) {
        set_metric(result, item.key(), item.value().get<double>());
      }
    }
  }

  /// Two names that differ only in settings would be one series, two repetitions of one number one.
  void check_distinct() {
    std::set<std::string> seen;
    for (const ParsedResult& result : run_.results) {
      std::set<std::int64_t> repetitions;
      for (const Sample& sample : result.samples) {
        if (!repetitions.insert(sample.repetition).second) {
          refuse(path_, "\"" + result.benchmark.name + "\" has its repetition " +
                            std::to_string(sample.repetition) + " twice");
        }
      }
      if (!seen.insert(identity_of(result.benchmark)).second) {
        refuse(path_, "two benchmarks are called \"" + result.benchmark.name +
                          "\" but for how they were run (iterations, repeats, min_time)");
      }
    }
  }

  const std::string& path_;
  const json& file_;
  ParsedRun run_;
  std::map<std::string, std::size_t> place_;
};

}  // namespace

ParsedRun parse_google_benchmark(const std::string& path, const json& file) {
  return Reader(path, file).read();
}

}  // namespace attn::history
