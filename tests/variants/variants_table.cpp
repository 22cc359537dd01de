#include "tests/variants/variants_table.h"

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "harness/backends/backend.h"
#include "harness/compare/compare.h"
#include "harness/generate/case_spec.h"
#include "reference/core/error.h"

namespace attn::variants {
namespace {

using nlohmann::json;

constexpr std::uint64_t kSeed = 1;
constexpr std::array kBackends = {"exact", "faithful", "cpu"};

/// Where the sources lie; ATTN_SOURCE names them for a program that runs on another machine.
std::string source_file(const std::string& name) {
  const char* const elsewhere = std::getenv("ATTN_SOURCE");
  return std::string(elsewhere != nullptr ? elsewhere : ATTN_SOURCE_DIR).append("/").append(name);
}

json load_table() { return json::parse(std::ifstream(source_file("data/variants.json"))); }

/// `*` stands for any characters.
bool matches(std::string_view pattern, std::string_view name) {
  if (pattern.empty()) return name.empty();
  if (pattern[0] != '*') {
    return !name.empty() && name[0] == pattern[0] && matches(pattern.substr(1), name.substr(1));
  }
  return matches(pattern.substr(1), name) || (!name.empty() && matches(pattern, name.substr(1)));
}

/// The row of a name: the one with exactly this name, else the first pattern that it matches.
const json* find_row(const json& rows, const std::string& name) {
  for (const json& row : rows) {
    if (row.at("name") == name) return &row;
  }
  for (const json& row : rows) {
    if (matches(row.at("name").get<std::string>(), name)) return &row;
  }
  return nullptr;
}

/// The config that a row's change is made to: that of the name's class, the plain layer for
/// borrowed names.
json base_of(const json& bases, const std::string& name) {
  const std::string owner = name.substr(0, name.find('.'));
  return bases.contains(owner) ? bases.at(owner) : bases.at("AttentionWithRope");
}

json patched(json spec, const json& change) {
  spec.merge_patch(change);
  return spec;
}

Case case_of(const json& spec) {
  return harness::make_case(harness::parse_case_spec(spec.dump()), kSeed);
}

Stage last_stage(const Trace& trace) {
  Stage last = Stage::kFreqsCis;
  for (const Stage stage : all_stages()) {
    if (trace.has(stage)) last = stage;
  }
  return last;
}

Trace run_exact(const Case& c) {
  const std::vector<Stage> wanted(all_stages().begin(), all_stages().end());
  return harness::make_backend("exact")->run(c, wanted);
}

/// Whether two results are the same layer's answer: equal to 1e-12 of the largest magnitude, the
/// most that sums in another order differ by.
bool same_result(const Trace& a, const Trace& b) {
  const Stage stage = last_stage(a);
  if (stage != last_stage(b) || a[stage].shape() != b[stage].shape()) return false;
  const std::vector<double> x = a[stage].values(), y = b[stage].values();
  double largest = 0.0, difference = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    largest = std::max(largest, std::abs(x[i]));
    difference = std::max(difference, std::abs(x[i] - y[i]));
  }
  return difference <= 1e-12 * largest;
}

/// Names that passed on some GPU: data/gpu/DEVICE/variants.json, which scripts/gpu-check.sh writes.
std::set<std::string> names_passed_on_gpus() {
  std::set<std::string> names;
  const std::string folder = source_file("data/gpu");
  if (!std::filesystem::exists(folder)) return names;
  for (const auto& device : std::filesystem::directory_iterator(folder)) {
    const std::filesystem::path file = device.path() / "variants.json";
    if (!std::filesystem::exists(file)) continue;
    const json recorded = json::parse(std::ifstream(file));
    for (const json& name : recorded.at("passed")) names.insert(name);
  }
  return names;
}

/// "" when the backend evaluates the case and passes, else why not.
std::string failure_on(const std::string& name, const Case& c) {
  const std::vector<Stage> wanted(all_stages().begin(), all_stages().end());
  const auto backend = harness::make_backend(name);
  if (const std::string reason = backend->unsupported_reason(c.config); !reason.empty()) {
    return name + ": " + reason;
  }
  const harness::Verdict verdict =
      harness::compare(c, backend->run(c, wanted), backend->arithmetic(c.config));
  if (verdict.status == harness::Status::kPassed) return "";
  return name + ": " + std::string(name_of(verdict.status)) + ", " + verdict.detail;
}

/// Runs the changed case on every backend. Adds the backends that passed, or why one did not.
void run_backends(const Case& c, Row& row) {
  for (const std::string name : kBackends) {
    row.failure = failure_on(name, c);
    if (!row.failure.empty()) return;
    row.backends += (row.backends.empty() ? "" : ", ") + name;
  }
  static const std::set<std::string> kOnGpus = names_passed_on_gpus();
  if (kOnGpus.contains(row.seed.name)) row.backends += ", cuda";
}

void prove_change(const json& entry, const json& base, Row& row) {
  const json& change = entry.at("change");
  const bool moves = entry.value("effect", "output") == "output";
  const Case changed = case_of(patched(base, change));
  run_backends(changed, row);
  if (!row.failure.empty()) return;
  if (change.empty() && !entry.contains("base")) {
    row.proof = "the layer as it is";
    return;
  }
  const json before = patched(base, entry.value("base", json::object()));
  if (same_result(run_exact(case_of(before)), run_exact(changed)) == moves) {
    row.failure = moves ? "the change does not move the result" : "the change moves the result";
  }
  row.proof = std::string("`").append(change.dump()).append("` ");
  row.proof += moves ? "moves the result" : "leaves the result as it is";
}

void prove_refusal(const json& entry, const json& base, Row& row) {
  const json& refused = entry.at("refused");
  const std::string field = refused.at("field");
  row.backends = "refused by all";
  row.proof = std::string("`").append(refused.at("change").dump()).append("` is refused: `");
  row.proof += field + "`";
  try {
    case_of(patched(base, refused.at("change")));
    row.failure = "it is not refused";
  } catch (const Error& e) {
    if (e.field().find(field) == std::string::npos) {
      row.failure = "refused for " + e.field() + ": " + e.what();
    }
  }
}

Row prove(const json& table, const SeedName& seed) {
  Row row;
  row.seed = seed;
  const json* entry = find_row(table.at("rows"), seed.name);
  if (entry == nullptr) {
    row.failure = "no row in data/variants.json";
    return row;
  }
  row.note = entry->value("note", "");
  row.not_applicable = entry->value("na", "");
  if (!row.not_applicable.empty()) return row;
  row.where = entry->value("where", "");
  if (row.where.empty() || !std::filesystem::exists(source_file(row.where))) {
    row.failure = "no such file: " + row.where;
    return row;
  }
  const json base = base_of(table.at("bases"), seed.name);
  if (entry->contains("change")) {
    prove_change(*entry, base, row);
  } else if (entry->contains("refused")) {
    prove_refusal(*entry, base, row);
  } else {
    row.tests = entry->at("tests").get<std::vector<std::string>>();
    row.backends = "reference";
    for (const std::string& test : row.tests) {
      row.proof += (row.proof.empty() ? "`" : ", `") + test + "`";
    }
  }
  return row;
}

std::string output_of(const std::string& command) {
  std::string output;
  std::array<char, 4096> buffer{};
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return output;
  while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) output += buffer.data();
  pclose(pipe);
  return output;
}

}  // namespace

std::vector<SeedName> seed_names() {
  std::vector<SeedName> names;
  std::ifstream file(source_file("data/seed-names.txt"));
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    SeedName name;
    words >> name.page >> name.kind >> name.name;
    names.push_back(name);
  }
  return names;
}

std::vector<Row> proven_rows() {
  const json table = load_table();
  std::vector<Row> rows;
  for (const SeedName& name : seed_names()) {
    try {
      rows.push_back(prove(table, name));
    } catch (const std::exception& e) {
      rows.emplace_back().seed = name;
      rows.back().failure = e.what();
    }
  }
  return rows;
}

std::vector<std::string> names_passed_by(const std::string& backend,
                                         std::vector<std::string>& complaints) {
  const json table = load_table();
  std::vector<std::string> names;
  for (const SeedName& seed : seed_names()) {
    const json* entry = find_row(table.at("rows"), seed.name);
    if (entry == nullptr || !entry->contains("change")) continue;
    const json spec = patched(base_of(table.at("bases"), seed.name), entry->at("change"));
    const std::string failure = failure_on(backend, case_of(spec));
    if (failure.empty()) {
      names.push_back(seed.name);
    } else {
      complaints.push_back(seed.name + ": " + failure);
    }
  }
  return names;
}

std::vector<std::string> missing_tests(const std::vector<std::string>& tests) {
  std::map<std::string, std::set<std::string>> by_program;
  for (const std::string& test : tests) {
    const std::size_t dot = test.find('.');
    by_program[test.substr(0, dot)].insert(test.substr(dot + 1));
  }
  std::vector<std::string> missing;
  for (const auto& [program, names] : by_program) {
    std::string filter;
    for (const std::string& name : names) filter += (filter.empty() ? "" : ":") + name;
    const std::string output = output_of(std::string("'" ATTN_BINARY_DIR "/bin/")
                                             .append(program)
                                             .append("' --gtest_filter='")
                                             .append(filter)
                                             .append("' 2>&1"));
    for (const std::string& name : names) {
      const std::string passed = std::string("[       OK ] ").append(name).append(" (");
      if (output.find(passed) == std::string::npos) missing.push_back(program + "." + name);
    }
  }
  return missing;
}

std::string markdown(const std::vector<Row>& rows) {
  std::string text =
      "# Variants\n\n"
      "Every public name of the two pages that describe MAX's attention-with-rope layers, and what "
      "they\nborrow from elsewhere: where it is implemented, what proves it, on which backends the "
      "proof runs.\nWhere it names cuda, it "
      "ran on a GPU: data/gpu/DEVICE/variants.json, which scripts/gpu-check.sh writes.\nWritten by "
      "`build/release/bin/write_variants` from data/seed-names.txt and "
      "data/variants.json, which\ncarries every proof out; `variants_test` fails on a name without "
      "a "
      "row, on a proof that does not\nhold, on a named test that did not run, and when this page "
      "is "
      "not what it prints. A proof that is\na change is evaluated beside the class's plain config "
      "of "
      "data/variants.json, from the same seed.\n\n"
      "| page | kind | name | where | proof | backends |\n|---|---|---|---|---|---|\n";
  for (const Row& row : rows) {
    text += "| " + row.seed.page + " | " + row.seed.kind + " | `" + row.seed.name + "` | ";
    if (!row.not_applicable.empty()) {
      text += "n/a | " + row.not_applicable + " | n/a |\n";
      continue;
    }
    text += row.where + " | " + (row.failure.empty() ? row.proof : "FAILS: " + row.failure);
    if (!row.note.empty()) text += "; " + row.note;
    text += " | " + row.backends + " |\n";
  }
  return text;
}

}  // namespace attn::variants
