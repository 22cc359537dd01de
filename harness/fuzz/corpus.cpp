#include "harness/fuzz/corpus.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>

#include "golden/digest.h"
#include "harness/generate/spec_file.h"
#include "harness/report/writers.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

CorpusEntry parse_entry(const std::string& text) {
  try {
    const json object = json::parse(text);
    CorpusEntry entry;
    entry.spec = parse_case_spec(object.at("spec").dump());
    entry.seed = object.at("seed").get<std::uint64_t>();
    entry.exec = parse_exec_modes(object.value("exec", "plain")).front();
    entry.backend = object.value("backend", "");
    entry.stage = object.value("stage", "");
    entry.relation = object.value("relation", "");
    return entry;
  } catch (const json::exception&) {
    throw Error(ErrorKind::kInput,
                "is no failure that fuzz stored: {\"spec\": {...}, \"seed\": N, \"exec\": "
                "\"plain\", \"backend\": \"...\", \"stage\": \"...\"}");
  }
}

}  // namespace

std::string corpus_file_name(const CorpusEntry& entry) {
  const std::string text = to_json(entry.spec) + " " + std::to_string(entry.seed) + " " +
                           std::string(name_of(entry.exec)) +
                           (entry.relation.empty() ? "" : " " + entry.relation);
  constexpr std::size_t kDigits = 16;
  return golden::sha256_hex(std::as_bytes(std::span(text))).substr(0, kDigits) + ".json";
}

std::vector<CorpusEntry> load_corpus(const std::string& folder) {
  std::vector<std::string> paths;
  if (!std::filesystem::exists(folder)) return {};
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(folder, error)) {
    if (file.path().extension() == ".json") paths.push_back(file.path().string());
  }
  if (error) throw Error(ErrorKind::kInput, folder + ": cannot be read: " + error.message());
  std::ranges::sort(paths);
  std::vector<CorpusEntry> entries;
  entries.reserve(paths.size());
  for (const std::string& path : paths) entries.push_back(parse_file(path, parse_entry));
  return entries;
}

void add_to_corpus(const std::string& folder, const CorpusEntry& entry) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw Error(ErrorKind::kInput, folder + ": cannot be made: " + error.message());
  ordered_json object;
  object["spec"] = ordered_json::parse(to_json(entry.spec));
  object["seed"] = entry.seed;
  object["exec"] = name_of(entry.exec);
  object["backend"] = entry.backend;
  object["stage"] = entry.stage;
  if (!entry.relation.empty()) object["relation"] = entry.relation;
  const std::filesystem::path path = std::filesystem::path(folder) / corpus_file_name(entry);
  write_text_file(path.string(), object.dump(1) + "\n");
}

}  // namespace attn::harness
