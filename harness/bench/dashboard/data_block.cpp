#include <charconv>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "harness/bench/dashboard/page.h"

namespace attn::dashboard {
namespace {

using Json = nlohmann::ordered_json;

/// Appends a number with few digits: what a pixel shows; null for what JSON has no word for.
void append(std::string& out, double value, int significant) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  char text[40];
  const auto end =
      std::to_chars(text, text + sizeof text, value, std::chars_format::general, significant);
  out.append(text, end.ptr);
}

void append_column(std::string& out, std::string_view name, const Series& series, int significant,
                   const std::function<double(const Point&)>& value) {
  bool is_known = false;
  for (const Point& point : series.points) is_known = is_known || std::isfinite(value(point));
  if (!is_known) return;
  out.append(",\"").append(name).append("\":[");
  for (const Point& point : series.points) {
    append(out, value(point), significant);
    out += ',';
  }
  out.back() = ']';
}

std::string series_json(const Series& series) {
  std::string out = "{\"b\":" + std::to_string(series.benchmark) +
                    ",\"m\":" + std::to_string(series.machine) + ",\"run\":[";
  for (const Point& point : series.points) out += std::to_string(point.run) + ",";
  out.back() = ']';
  append_column(out, "n", series, 6, [](const Point& p) { return static_cast<double>(p.samples); });
  append_column(out, "t", series, 5, [](const Point& p) { return p.median_us; });
  append_column(out, "lo", series, 5, [](const Point& p) { return p.low_us; });
  append_column(out, "hi", series, 5, [](const Point& p) { return p.high_us; });
  append_column(out, "gbps", series, 4, [](const Point& p) { return p.gbps; });
  append_column(out, "tflops", series, 4, [](const Point& p) { return p.tflops; });
  append_column(out, "roofline", series, 4, [](const Point& p) { return p.roofline; });
  append_column(out, "peer", series, 4, [](const Point& p) { return p.peer_ratio; });
  append_column(out, "error", series, 4, [](const Point& p) { return p.error_bound; });
  return out + "}";
}

void put(Json& object, const char* name, const std::string& text) {
  if (!text.empty()) object[name] = text;
}

void put(Json& object, const char* name, const std::optional<std::int64_t>& number) {
  if (number) object[name] = *number;
}

Json run_json(const Page& page, std::size_t index) {
  const history::Run& run = page.runs[index];
  Json out{{"id", run.sha256.substr(0, 12)}, {"m", page.run_machine[index]}};
  put(out, "date", run.date);
  put(out, "commit", run.commit.substr(0, 12));
  put(out, "subject", run.subject);
  put(out, "file", run.source_name);
  Json facts = Json::object();
  put(facts, "program", run.program);
  put(facts, "driver", run.driver);
  put(facts, "CUDA", run.cuda);
  put(facts, "clocks", run.clocks);
  put(facts, "compiler", run.compiler);
  put(facts, "build type", run.build_type);
  put(facts, "libraries", run.libraries);
  out["env"] = std::move(facts);
  return out;
}

Json machine_json(const history::Machine& machine) {
  Json facts = Json::object();
  put(facts, "GPU", machine.gpu);
  if (machine.gpu_count > 0) facts["GPUs"] = std::to_string(machine.gpu_count);
  put(facts, "CPU", machine.cpu);
  if (machine.num_cpus > 0) facts["CPUs"] = std::to_string(machine.num_cpus);
  put(facts, "caches", machine.caches);
  put(facts, "host", machine.host);
  return {{"label", machine.label()}, {"env", std::move(facts)}};
}

Json benchmark_json(const history::Benchmark& benchmark) {
  Json parameters = Json::object();
  put(parameters, "batch", benchmark.batch);
  put(parameters, "q_len", benchmark.q_len);
  put(parameters, "kv_len", benchmark.kv_len);
  put(parameters, "heads", benchmark.heads);
  put(parameters, "kv_heads", benchmark.kv_heads);
  put(parameters, "head_dim", benchmark.head_dim);
  put(parameters, "hidden_size", benchmark.hidden_size);
  put(parameters, "dtype", benchmark.dtype);
  put(parameters, "mask", benchmark.mask);
  put(parameters, "weights", benchmark.weights);
  put(parameters, "page_size", benchmark.page_size);
  put(parameters, "threads", benchmark.threads);
  for (const auto& [name, value] : benchmark.parameters) put(parameters, name.c_str(), value);
  return {{"name", benchmark.name},       {"shape", benchmark.shape},  {"kernel", benchmark.kind},
          {"impl", benchmark.backend},    {"peer", benchmark.is_peer}, {"timer", benchmark.timer},
          {"program", benchmark.program}, {"p", std::move(parameters)}};
}

/// "<" never appears in it, so no text of the data can end the script element or begin a comment.
std::string safe_in_script(const std::string& json) {
  std::string out;
  out.reserve(json.size());
  for (const char c : json) {
    if (c == '<') {
      out += "\\u003c";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

std::string data_block(const Page& page) {
  Json head{{"schema", 1}, {"generated", page.generated}};
  Json& machines = head["machines"] = Json::array();
  for (const history::Machine& machine : page.machines) machines.push_back(machine_json(machine));
  Json& runs = head["runs"] = Json::array();
  for (std::size_t i = 0; i < page.runs.size(); ++i) runs.push_back(run_json(page, i));
  Json& benchmarks = head["benchmarks"] = Json::array();
  for (const history::Benchmark& b : page.benchmarks) benchmarks.push_back(benchmark_json(b));
  Json& changes = head["changes"] = Json::array();
  for (const Change& change : page.changes) {
    changes.push_back({{"s", change.series},
                       {"run", change.run},
                       {"before", change.before_us},
                       {"after", change.after_us},
                       {"p", change.p_value}});
  }
  std::string json = head.dump(-1, ' ', false, Json::error_handler_t::replace);
  json.back() = ',';
  json += "\"series\":[";
  for (const Series& series : page.series) json += series_json(series) + ",\n";
  if (!page.series.empty()) json.resize(json.size() - 2);
  return safe_in_script(json + "]}");
}

}  // namespace attn::dashboard
