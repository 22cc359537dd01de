// What harness/bench/peers.py wrote before it became harness/bench/peers: the CUDA layers beside
// PyTorch's, one median for each.
#include <regex>

#include "harness/bench/history/json_text.h"
#include "harness/bench/history/parameters.h"
#include "harness/bench/history/readers.h"

namespace attn::history {
namespace {

using nlohmann::json;

constexpr double kMicroseconds = 1e3;

/// "ours" and "peer_graph" as backends.
std::string backend_of(const std::string& key) {
  if (key == "ours") return "cuda";
  if (key.starts_with("peer_")) return "torch_" + key.substr(5);
  return key;
}

/// "327 TFLOP/s"
void read_rate(const std::string& text, Result& result) {
  const std::size_t space = text.find(' ');
  if (space == std::string::npos) return;
  const auto value = number_of(json{{"rate", text.substr(0, space)}}, "rate");
  if (text.substr(space + 1) == "TFLOP/s") result.tflops = value;
  if (text.substr(space + 1) == "GB/s") result.gbps = value;
}

/// One implementation's time in a row.
ParsedResult read_time(const json& row, const std::string& who, double microseconds) {
  ParsedResult parsed;
  Benchmark& benchmark = parsed.benchmark;
  read_name(benchmark, text_of(row, "name"));
  benchmark.program = "peers";
  benchmark.backend = backend_of(who);
  benchmark.timer = who == "peer_eager" ? "events" : "graph";
  benchmark.page_size = std::nullopt;
  parsed.result.median_ns = microseconds * kMicroseconds;
  parsed.result.time_unit = "us";
  read_rate(text_of(row, who.c_str()), parsed.result);
  if (who == "ours") {
    if (const auto page = number_of(row, "page")) {
      benchmark.page_size = static_cast<std::int64_t>(*page);
    }
    for (const auto& item : row.items()) {
      if (item.key().starts_with("error") && item.value().is_number()) {
        parsed.metrics[item.key()] = item.value().get<double>();
      }
    }
  } else if (who.starts_with("peer_")) {
    parsed.result.label = text_of(row, "peer");
  }
  return parsed;
}

void read_row(const std::string& path, std::size_t index, const json& row, ParsedRun& run,
              std::int64_t rounds) {
  const std::string place = "rows[" + std::to_string(index) + "]: ";
  if (!row.is_object() || text_of(row, "name").empty()) refuse(path, place + "has no name");
  for (const auto& item : row.items()) {
    if (!item.key().ends_with("_us")) continue;
    const auto time = number_of(row, item.key().c_str());
    if (!time || *time < 0.0) {
      refuse(path, place + item.key() + " is " + dump(item.value()) + ": not a time");
    }
    ParsedResult parsed = read_time(row, item.key().substr(0, item.key().size() - 3), *time);
    parsed.result.repetitions = rounds;
    settle(parsed.benchmark);
    run.results.push_back(std::move(parsed));
  }
}

}  // namespace

ParsedRun parse_peers(const std::string& path, const json& file) {
  ParsedRun run;
  run.run.source_kind = "peers";
  run.run.program = "peers";
  const std::string device = text_of(file, "device");
  const std::size_t comma = device.rfind(", ");
  run.run.machine.gpu = device.substr(0, comma);
  run.run.machine.gpu_count = 1;
  if (comma != std::string::npos) run.run.driver = device.substr(comma + 2);
  run.run.libraries = "torch " + text_of(file, "torch") + ", cudnn " + text_of(file, "cudnn");
  run.run.date = utc_date(text_of(file, "date"));
  run.run.commit = text_of(file, "commit");
  run.run.subject = text_of(file, "subject");
  for (const auto& item : file.items()) {
    if (item.key() != "rows") flatten(item.value(), item.key(), run.context);
  }
  std::smatch match;
  const std::string timer = text_of(file, "timer");
  const bool says_rounds = std::regex_search(timer, match, std::regex(R"(median of (\d{1,9}) )"));
  const std::int64_t rounds = says_rounds ? std::stoll(match[1]) : 1;
  const json& rows = file.at("rows");
  for (std::size_t i = 0; i < rows.size(); ++i) read_row(path, i, rows[i], run, rounds);
  if (run.results.empty()) refuse(path, "holds no time");
  return run;
}

}  // namespace attn::history
