#include "harness/capi/attn_compare.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "golden/build_info.h"
#include "golden/golden_file.h"
#include "golden/second_evaluation.h"
#include "harness/backends/backend_failure.h"
#include "harness/backends/execution.h"
#include "harness/backends/plugin.h"
#include "harness/backends/worker.h"
#include "harness/capi/case_handle.h"
#include "harness/capi/case_words.h"
#include "harness/compare/compare.h"
#include "harness/faults/score.h"
#include "harness/fuzz/case_source.h"
#include "harness/generate/case_spec.h"
#include "harness/report/console.h"
#include "harness/report/format.h"
#include "harness/report/predicate.h"
#include "harness/report/writers.h"
#include "reference/core/error.h"
#include "reference/reference.h"

namespace {

using attn::Case;
using attn::Error;
using attn::ErrorKind;
using attn::Trace;
using nlohmann::json;
namespace harness = attn::harness;

thread_local std::string t_last_error;

/// body()'s result, or null with the reason kept.
template <typename Body>
auto guarded(const Body& body) -> decltype(body()) {
  try {
    return body();
  } catch (const std::exception& error) {
    t_last_error = error.what();
  } catch (...) {
    t_last_error = "an exception that is no std::exception";
  }
  return {};
}

char* text_of(const std::string& text) {
  auto* const copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (copy == nullptr) throw std::bad_alloc();
  std::memcpy(copy, text.c_str(), text.size() + 1);
  return copy;
}

json options_of(const char* text) {
  const std::string words = text == nullptr || *text == '\0' ? "{}" : text;
  json options = json::parse(words, nullptr, false);
  if (!options.is_object()) throw Error(ErrorKind::kUsage, "options: not a JSON object: " + words);
  return options;
}

/// How a case is to be run: {"exec": "graph_replay", "spec": TEXT, "seed": N}, the last two where
/// the mode needs another case of the same config.
struct Execution {
  explicit Execution(const json& options) {
    const auto modes = harness::parse_exec_modes(options.value("exec", std::string("plain")));
    if (modes.size() != 1) throw Error(ErrorKind::kUsage, "exec: give one mode", "exec");
    mode = modes.front();
    if (!needs_other_case(mode)) return;
    if (!options.contains("spec")) {
      throw Error(ErrorKind::kUsage,
                  "exec: " + std::string(name_of(mode)) +
                      " needs a second case, which is made from a config: give a generated case",
                  "exec");
    }
    const harness::OtherCase made = harness::other_case(
        harness::parse_case_spec(options.at("spec").get<std::string>()),
        options.value("seed", std::uint64_t{1}), mode == harness::ExecMode::kGraphReplay);
    other = harness::make_case(made.spec, made.seed);
  }

  harness::ExecMode mode = harness::ExecMode::kPlain;
  std::optional<Case> other;
};

/// Runs the backend and judges what it answers; what goes wrong is the row's outcome.
void judge(const Case& c, const harness::Backend& backend, const Execution& execution,
           const harness::CompareOptions& options, harness::ReportRow& row) {
  harness::Verdict& verdict = row.verdict;
  try {
    verdict.detail = backend.unsupported_reason(c.config);
    if (!verdict.detail.empty()) {
      verdict.status = harness::Status::kUnsupported;
      return;
    }
    const Trace trace =
        harness::execute(backend, execution.mode, c, execution.other ? &*execution.other : nullptr,
                         stages_of(c.config));
    verdict = harness::compare(c, trace, backend.arithmetic(c.config), options);
  } catch (const harness::BackendFailure& failure) {
    verdict.status = failure.status();
    verdict.detail = failure.what();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUnsupported) throw;
    verdict.status = harness::Status::kUnsupported;
    verdict.detail = error.what();
  }
}

/// What `attn-compare run` prints of a row.
std::string console_text(harness::ReportRow row) {
  harness::Report report;
  report.verb = "check";
  report.rows.push_back(std::move(row));
  std::ostringstream out;
  harness::ConsoleTable(out, {}).finish(report);
  return out.str();
}

Trace evaluate(const Case& c, const std::string& mode) {
  if (mode == "exact") return attn::reference::evaluate(c, attn::reference::Mode::kExact);
  if (mode == "faithful") return attn::reference::evaluate(c, attn::reference::Mode::kFaithful);
  throw Error(ErrorKind::kUsage,
              "mode: \"" + mode + "\" is none" + attn::hint(mode, {"exact", "faithful"}), "mode");
}

harness::Gate gate_of(const json& request) {
  return harness::parse_gate(request.value("gate", std::string("pr")));
}

/// What a predicate asks of a case, without making it.
harness::Facts facts_of_spec(const harness::CaseSpec& spec, const std::string& id) {
  harness::CaseShape shape{id, std::ssize(spec.rows), 0, 0, 0, spec.sinks};
  const bool attention = spec.config.starts_at_attention();
  for (const harness::RowSpec& row : spec.rows) {
    const std::int64_t queries = attention ? row.first : row.second;
    const std::int64_t keys = attention ? row.second : row.first + row.second;
    shape.tokens += queries;
    shape.keys = std::max(shape.keys, keys);
    shape.queries = std::max(shape.queries, queries);
  }
  return harness::facts_of(spec.config, shape);
}

/// Cases in the order of a fuzz run, those that `when` takes.
json matching_cases(const json& request) {
  const auto wanted = request.value("n", std::int64_t{10});
  const auto when = harness::expand_case_words(request.value("when", std::string("any")));
  const harness::Predicate predicate = harness::parse_predicate(when);
  const harness::CaseSource source(
      {}, {gate_of(request), request.value("seed", std::uint64_t{1}), std::nullopt});
  json found = json::array();
  // One in several hundred is found; rarer ones are asked for by mistake.
  const std::int64_t last = source.planned() + 500 * std::max<std::int64_t>(wanted, 10);
  for (std::int64_t i = 0; i < last && std::ssize(found) < wanted; ++i) {
    const harness::FuzzCase tried = source.at(i);
    const std::string id = "case-" + std::to_string(i);
    if (!predicate(facts_of_spec(tried.spec, id))) continue;
    const Case c = harness::make_case(tried.spec, tried.seed);
    if (!harness::mistrust_reason(c, evaluate(c, "exact")).empty()) continue;
    found.push_back({{"spec", json::parse(to_json(tried.spec))}, {"seed", tried.seed}, {"id", id}});
  }
  if (std::ssize(found) < wanted) {
    throw Error(ErrorKind::kUsage, "cases: " + std::to_string(found.size()) + " of " +
                                       std::to_string(last) + " generated cases match \"" + when +
                                       "\", " + std::to_string(wanted) +
                                       " are wanted; ask for fewer, or for something less rare");
  }
  return found;
}

/// The exact answers, sealed: two evaluations must agree first.
void write_golden(const Case& c, const std::string& path, const json& options) {
  // Two evaluations that share no stage code agree to this fraction of a stage's largest value.
  constexpr double kAgreement = 1e-11;
  attn::golden::WriteOptions write;
  write.force = options.value("force", false);
  write.generator = options.value("generator", write.generator);
  write.command_line = options.value("command_line", std::string());
  if (options.contains("more")) {
    write.more = options.at("more").get<std::map<std::string, std::string>>();
  }
  const Trace exact = evaluate(c, "exact");
  const auto agreement = attn::golden::agree(exact, attn::golden::evaluate_second(c, exact));
  if (!agreement.agreed(kAgreement)) {
    throw Error(ErrorKind::kInternal, path + ": two evaluations of the case disagree at " +
                                          std::string(name_of(agreement.stage)) + " by " +
                                          harness::format_short(agreement.worst) + "; not written");
  }
  attn::golden::write(attn::golden::make(c, exact, write), path, write.force);
}

}  // namespace

int attn_api_version(void) { return ATTN_COMPARE_API; }

const char* attn_version(void) {
  static const std::string kText =
      attn::golden::build_info().version + " (" + attn::golden::build_info().git_commit + ")";
  return kText.c_str();
}

const char* attn_last_error(void) { return t_last_error.c_str(); }

void attn_free_text(char* text) { std::free(text); }

attn_case* attn_case_make(const char* spec, uint64_t seed) {
  return guarded(
      [&] { return new attn_case(harness::make_case(harness::parse_case_spec(spec), seed)); });
}

attn_case* attn_case_read(const char* path, uint64_t page_seed) {
  return guarded([&] {
    attn::PagingOptions paging;
    paging.seed = page_seed;
    return new attn_case(attn::golden::to_case(attn::golden::read(path), paging));
  });
}

attn_case* attn_case_from(const char* config, const char* const* names, const attn_tensor* tensors,
                          int64_t count, uint64_t page_seed) {
  return guarded([&] {
    attn::golden::GoldenFile file;
    file.path = "the given tensors";
    file.case_id = "given";
    file.config_json = config;
    for (int64_t i = 0; i < count; ++i) {
      file.datasets[names[i]] = harness::copy_of(tensors[i], names[i]);
    }
    attn::PagingOptions paging;
    paging.seed = page_seed;
    return new attn_case(attn::golden::to_case(file, paging));
  });
}

void attn_case_destroy(attn_case* c) { delete c; }

char* attn_case_describe(const attn_case* c) {
  return guarded([&] {
    json stages = json::array();
    for (const attn::Stage stage : attn::stages_of(c->c.config)) stages.push_back(name_of(stage));
    const json description = {{"id", c->c.id},
                              {"config", json::parse(to_json(c->c.config))},
                              {"repro", c->c.repro},
                              {"tensors", c->views.names()},
                              {"stages", stages}};
    return text_of(description.dump());
  });
}

const attn_tensor* attn_case_tensor(const attn_case* c, const char* name) {
  const attn_tensor* const tensor = c->views.find(name);
  if (tensor == nullptr) t_last_error = "the case has no tensor \"" + std::string(name) + "\"";
  return tensor;
}

char* attn_cases(const char* request) {
  return guarded([&] { return text_of(matching_cases(options_of(request)).dump()); });
}

attn_trace* attn_reference(const attn_case* c, const char* mode) {
  return guarded([&] { return new attn_trace(evaluate(c->c, mode)); });
}

void attn_trace_destroy(attn_trace* trace) { delete trace; }

const attn_tensor* attn_trace_stage(const attn_trace* trace, const char* stage) {
  const attn_tensor* const tensor = trace->views.find(stage);
  if (tensor == nullptr) t_last_error = "there is no stage \"" + std::string(stage) + "\" here";
  return tensor;
}

char* attn_check(const attn_plugin* plugin, const attn_case* c, const char* options_text) {
  return guarded([&] {
    const json options = options_of(options_text);
    const auto backend =
        harness::make_plugin_backend(options.value("name", std::string("backend")), plugin,
                                     options.value("backend_options", std::string()));
    harness::CompareOptions compare;
    compare.taps = options.value("taps", true);
    compare.threads = options.value("threads", 1);
    harness::ReportRow row;
    row.name = c->c.id;
    row.backend = backend->name();
    row.repro = options.value("repro", std::string());
    const Execution execution(options);
    const auto start = std::chrono::steady_clock::now();
    judge(c->c, *backend, execution, compare, row);
    row.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    json result = json::parse(harness::to_json_line(row));
    result["text"] = console_text(row);
    return text_of(result.dump());
  });
}

int attn_golden_write(const attn_case* c, const char* path, const char* options) {
  const bool written = guarded([&] {
    write_golden(c->c, path, options_of(options));
    return true;
  });
  return written ? 0 : 1;
}

void attn_worker(attn_loader load, uint64_t memory_bytes) {
  harness::worker_main(memory_bytes, [load](const std::string& spec) {
    std::string message(ATTN_MESSAGE_SIZE, '\0');
    const attn_plugin* const plugin = load(spec.c_str(), message.data());
    if (plugin == nullptr) throw Error(ErrorKind::kUsage, message.c_str(), "--backend");
    return harness::make_plugin_backend(spec, plugin, "");
  });
}
