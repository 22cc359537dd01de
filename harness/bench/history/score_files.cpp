// Figures of correctness beside those of speed: what attn-gpu-conformance and attn-compare faults
// --record write.
#include <cmath>

#include "harness/bench/history/json_text.h"
#include "harness/bench/history/readers.h"

namespace attn::history {
namespace {

using nlohmann::json;

std::int64_t count_of(const std::string& path, const json& object, const char* key) {
  const auto value = number_of(object, key);
  if (!value || *value < 0.0 || *value != std::floor(*value) || *value > 1e15) {
    refuse(path, std::string(key) + " is " + text_of(object, key) + ": not a number of cases");
  }
  return static_cast<std::int64_t>(*value);
}

Score score_of(const std::string& path, const char* kind, const std::string& name,
               const json& object, const char* passed, const char* total) {
  if (!object.is_object()) refuse(path, "\"" + name + "\" is no object");
  Score score;
  score.kind = kind;
  score.name = name;
  score.passed = count_of(path, object, passed);
  score.total = count_of(path, object, total);
  return score;
}

void read_provenance(const json& file, ParsedRun& run) {
  run.run.date = utc_date(text_of(file, "date"));
  run.run.commit = text_of(file, "commit");
  run.run.subject = text_of(file, "subject");
  run.run.driver = text_of(file, "driver");
  run.run.cuda = text_of(file, "cuda");
  run.run.machine.gpu = text_of(file, "device");
  run.run.machine.gpu_count = run.run.machine.gpu.empty() ? 0 : 1;
}

}  // namespace

ParsedRun parse_conformance(const std::string& path, const json& file) {
  ParsedRun run;
  run.run.source_kind = "conformance";
  run.run.program = "attn-gpu-conformance";
  read_provenance(file, run);
  for (const auto& mode : file.at("modes").items()) {
    run.scores.push_back(
        score_of(path, "conformance", mode.key(), mode.value(), "passed", "cases"));
  }
  // The modes are those of backend cuda, whose plain calls the list of backends counts once more.
  const auto backends = file.find("backends");
  if (backends != file.end() && backends->is_object()) {
    for (const auto& backend : backends->items()) {
      if (backend.key() == "cuda") continue;
      run.scores.push_back(
          score_of(path, "conformance", backend.key(), backend.value(), "passed", "cases"));
    }
  }
  const auto worst = file.find("largest_error_over_bound");
  if (worst == file.end() || !worst->is_object()) return run;
  for (const auto& stage : worst->items()) {
    Score score;
    score.kind = "error_bound";
    score.name = stage.key();
    score.value = number_of(*worst, stage.key().c_str());
    run.scores.push_back(score);
  }
  return run;
}

ParsedRun parse_variants(const std::string& path, const json& file) {
  ParsedRun run;
  run.run.source_kind = "variants";
  run.run.program = "write_variants";
  read_provenance(file, run);
  const auto length = [&](const char* key) {
    const auto list = file.find(key);
    if (list == file.end()) return std::int64_t{0};
    if (!list->is_array()) refuse(path, std::string(key) + " is no list");
    return static_cast<std::int64_t>(list->size());
  };
  Score score;
  score.kind = "variants";
  score.name = text_of(file, "backend");
  score.passed = length("passed");
  score.total = *score.passed + length("failed") + length("unsupported");
  run.scores.push_back(score);
  return run;
}

ParsedRun parse_fault_score(const std::string& path, const json& file) {
  ParsedRun run;
  run.run.source_kind = "faults";
  run.run.program = "attn-compare faults";
  read_provenance(file, run);
  if (!file.contains("gates")) {  // of one gate on a device
    const std::string name = text_of(file, "gate") + " on " + text_of(file, "device");
    run.scores.push_back(score_of(path, "faults", name, file, "killed", "planted"));
    return run;
  }
  for (const auto& gate : file.at("gates").items()) {
    run.scores.push_back(score_of(path, "faults", gate.key(), gate.value(), "killed", "planted"));
  }
  if (run.scores.empty()) refuse(path, "holds no gate");
  return run;
}

}  // namespace attn::history
