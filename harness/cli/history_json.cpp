#include "harness/cli/history_json.h"

#include <ostream>
#include <utility>

namespace attn::cli {

using nlohmann::json;

HistoryReport::HistoryReport(const Session& session, std::string json_path)
    : session_(session),
      json_path_(std::move(json_path)),
      text_(json_path_ == "-" ? &session.streams.err : &session.streams.out) {
  check_writable("--json", json_path_);
}

int HistoryReport::finish(const std::string& verb, json content, int exit_code) const {
  *text_ << std::flush;
  if (json_path_.empty()) return exit_code;
  content["schema_version"] = 1;
  content["tool"] = "attn-compare";
  content["verb"] = verb;
  content["command_line"] = session_.command_line;
  content["exit_code"] = exit_code;
  write_output(session_, json_path_,
               content.dump(1, ' ', false, json::error_handler_t::replace) + "\n");
  return exit_code;
}

json json_of(const history::Run& run) {
  return {{"run", run.sha256},
          {"date", run.date},
          {"commit", run.commit},
          {"subject", run.subject},
          {"machine", run.machine.label()},
          {"driver", run.driver},
          {"cuda", run.cuda},
          {"clocks", run.clocks},
          {"compiler", run.compiler},
          {"build_type", run.build_type},
          {"libraries", run.libraries},
          {"program", run.program},
          {"file", run.source_name},
          {"kind", run.source_kind}};
}

json json_of(const history::Benchmark& benchmark) {
  json value{{"program", benchmark.program}, {"name", benchmark.name},
             {"backend", benchmark.backend}, {"timer", benchmark.timer},
             {"shape", benchmark.shape},     {"parameters", benchmark.parameters}};
  if (benchmark.threads) value["threads"] = *benchmark.threads;
  return value;
}

}  // namespace attn::cli
