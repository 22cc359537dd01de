#include "harness/bench/history/export.h"

#include <cmath>
#include <map>
#include <ostream>

#include "harness/bench/history/json_text.h"
#include "harness/bench/history/series.h"
#include "harness/report/format.h"

namespace attn::history {
namespace {

using nlohmann::json;

std::map<std::int64_t, Benchmark> benchmarks_by_id(Database& database) {
  std::map<std::int64_t, Benchmark> by_id;
  for (Benchmark& benchmark : database.benchmarks()) {
    const std::int64_t id = benchmark.id;
    by_id.emplace(id, std::move(benchmark));
  }
  return by_id;
}

std::string cell(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted.append(c == '"' ? 2 : 1, c);
  return quoted + "\"";
}

std::string cell(std::optional<std::int64_t> number) {
  return number ? std::to_string(*number) : "";
}

std::string cell(std::optional<double> number) {
  return number ? harness::format_number(*number) : "";
}

void write_row(std::ostream& out, const std::vector<std::string>& cells) {
  for (std::size_t i = 0; i < cells.size(); ++i) out << (i > 0 ? "," : "") << cells[i];
  out << "\r\n";
}

const std::vector<std::string>& csv_header() {
  static const std::vector<std::string> kHeader{
      "run",         "date",        "git_commit", "subject",     "machine",   "driver",
      "cuda",        "clocks",      "compiler",   "build_type",  "libraries", "program",
      "benchmark",   "backend",     "timer",      "shape",       "is_peer",   "kind",
      "batch",       "q_len",       "kv_len",     "heads",       "kv_heads",  "head_dim",
      "hidden_size", "dtype",       "mask",       "weights",     "page_size", "threads",
      "parameters",  "label",       "error",      "repetitions", "median_ns", "mean_ns",
      "stddev_ns",   "min_ns",      "max_ns",     "tflops",      "gbps",      "roofline",
      "error_bound", "instructions"};
  return kHeader;
}

std::vector<std::string> csv_cells(const Run& run, const Benchmark& b, const Result& r) {
  std::string parameters;
  for (const auto& [name, value] : b.parameters) {
    parameters.append(parameters.empty() ? "" : ";").append(name).append("=").append(value);
  }
  return {cell(run.sha256),
          cell(run.date),
          cell(run.commit),
          cell(run.subject),
          cell(run.machine.label()),
          cell(run.driver),
          cell(run.cuda),
          cell(run.clocks),
          cell(run.compiler),
          cell(run.build_type),
          cell(run.libraries),
          cell(run.program),
          cell(b.name),
          cell(b.backend),
          cell(b.timer),
          cell(b.shape),
          b.is_peer ? "1" : "0",
          cell(b.kind),
          cell(b.batch),
          cell(b.q_len),
          cell(b.kv_len),
          cell(b.heads),
          cell(b.kv_heads),
          cell(b.head_dim),
          cell(b.hidden_size),
          cell(b.dtype),
          cell(b.mask),
          cell(b.weights),
          cell(b.page_size),
          cell(b.threads),
          cell(parameters),
          cell(r.label),
          cell(r.error),
          std::to_string(r.repetitions),
          cell(r.median_ns),
          cell(r.mean_ns),
          cell(r.stddev_ns),
          cell(r.min_ns),
          cell(r.max_ns),
          cell(r.tflops),
          cell(r.gbps),
          cell(r.roofline),
          cell(r.error_bound),
          cell(r.instructions)};
}

/// Unique within a run: the name, and what else tells two benchmarks apart.
std::string title_of(const Benchmark& b) {
  std::string title = b.name;
  if (!b.backend.empty()) title += " | " + b.backend;
  for (const auto& [name, value] : b.parameters) {
    if (b.name.find('/') == std::string::npos)
      title.append(" ").append(name).append("=").append(value);
  }
  if (b.threads) title += "/threads:" + std::to_string(*b.threads);
  return title + " (" + b.timer + ")";
}

json measure(double value) { return {{"value", value}}; }

json measures_of(const Result& r) {
  json latency = measure(*r.median_ns);
  if (r.min_ns && r.max_ns) {
    latency["lower_value"] = *r.min_ns;
    latency["upper_value"] = *r.max_ns;
  }
  json all{{"latency", latency}};
  if (*r.median_ns > 0.0) all["throughput"] = measure(1e9 / *r.median_ns);
  const std::map<const char*, std::optional<double>> others{{"tflops", r.tflops},
                                                            {"gbps", r.gbps},
                                                            {"roofline", r.roofline},
                                                            {"error_bound", r.error_bound},
                                                            {"instructions", r.instructions}};
  for (const auto& [name, value] : others) {
    if (value) all[name] = measure(*value);
  }
  return all;
}

/// Text in a cell of a Markdown table.
std::string in_table(const std::string& text) {
  std::string safe;
  for (const char c : text) {
    if (c == '|' || c == '<' || c == '\\') safe += '\\';
    safe += c == '\n' ? ' ' : c;
  }
  return safe;
}

std::string short_number(std::optional<double> value) {
  return value ? harness::format_short(*value) : "";
}

}  // namespace

void export_csv(Database& database, const std::vector<Run>& runs, bool samples, std::ostream& out) {
  const auto benchmarks = benchmarks_by_id(database);
  std::vector<std::string> header = csv_header();
  if (samples) {
    for (const char* const name : {"repetition", "time_ns", "cpu_ns", "iterations", "counters"}) {
      header.emplace_back(name);
    }
  }
  write_row(out, header);
  for (const Run& run : runs) {
    for (const Result& result : database.results({run.id, std::nullopt})) {
      std::vector<std::string> cells = csv_cells(run, benchmarks.at(result.benchmark), result);
      if (!samples) {
        write_row(out, cells);
        continue;
      }
      const std::size_t own = cells.size();
      for (const Sample& sample : database.samples(result.id)) {
        cells.resize(own);
        cells.push_back(std::to_string(sample.repetition));
        cells.push_back(cell(sample.time_ns));
        cells.push_back(cell(sample.cpu_ns));
        cells.push_back(std::to_string(sample.iterations));
        cells.push_back(cell(sample.counters));
        write_row(out, cells);
      }
    }
  }
}

void export_github_action(Database& database, const Run& run, std::ostream& out) {
  const auto benchmarks = benchmarks_by_id(database);
  json list = json::array();
  for (const Result& result : database.results({run.id, std::nullopt})) {
    if (!result.median_ns) continue;
    json entry{{"name", title_of(benchmarks.at(result.benchmark))},
               {"unit", "ns"},
               {"value", *result.median_ns},
               {"extra", "median of " + std::to_string(result.repetitions) + " repetitions"}};
    if (result.stddev_ns) entry["range"] = harness::format_number(*result.stddev_ns);
    list.push_back(std::move(entry));
  }
  out << list.dump(1, ' ', false, json::error_handler_t::replace) << "\n";
}

void export_bencher(Database& database, const Run& run, std::ostream& out) {
  const auto benchmarks = benchmarks_by_id(database);
  json all = json::object();
  for (const Result& result : database.results({run.id, std::nullopt})) {
    if (result.median_ns) all[title_of(benchmarks.at(result.benchmark))] = measures_of(result);
  }
  out << all.dump(1, ' ', false, json::error_handler_t::replace) << "\n";
}

void export_markdown(Database& database, const Run& run, std::ostream& out) {
  const auto benchmarks = benchmarks_by_id(database);
  out << "### " << run.program << ", run " << short_name(run) << "\n\n";
  const std::vector<std::pair<const char*, std::string>> lines{
      {"date", run.date},
      {"commit", run.commit + (run.subject.empty() ? "" : ", ") + run.subject},
      {"machine", run.machine.label()},
      {"driver", run.driver},
      {"CUDA", run.cuda},
      {"clocks", run.clocks},
      {"compiler", run.compiler},
      {"libraries", run.libraries}};
  for (const auto& [name, text] : lines) {
    if (!text.empty()) out << "- " << name << ": " << in_table(text) << "\n";
  }
  out << "\n| benchmark | backend | median | spread | TFLOP/s | GB/s | roofline | error/bound |\n"
      << "|---|---|---|---|---|---|---|---|\n";
  for (const Result& r : database.results({run.id, std::nullopt})) {
    const Benchmark& b = benchmarks.at(r.benchmark);
    std::string spread;
    if (r.stddev_ns && r.median_ns && *r.median_ns > 0.0) {
      spread = harness::format_short(std::round(1e3 * *r.stddev_ns / *r.median_ns) / 10.0) + " %";
    }
    out << "| " << in_table(b.name) << " | " << in_table(b.backend) << " | "
        << (r.median_ns ? format_time(*r.median_ns) : in_table(r.error)) << " | " << spread << " | "
        << short_number(r.tflops) << " | " << short_number(r.gbps) << " | "
        << short_number(r.roofline) << " | " << short_number(r.error_bound) << " |\n";
  }
}

}  // namespace attn::history
