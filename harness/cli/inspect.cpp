#include <algorithm>
#include <nlohmann/json.hpp>
#include <ostream>

#include "golden/golden_file.h"
#include "harness/cli/build_info.h"
#include "harness/cli/verbs.h"
#include "harness/report/format.h"
#include "harness/report/writers.h"

namespace attn::cli {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

/// "  key  value" for each member of a JSON object, wrapped; text that is no object is printed
/// whole.
void print_object(std::ostream& out, const std::string& title, const std::string& text) {
  out << title << "\n";
  const json object = json::parse(text, nullptr, false);
  if (!object.is_object()) {
    out << harness::wrap("  " + text, 2) << "\n\n";
    return;
  }
  std::size_t width = 0;
  for (const auto& item : object.items()) width = std::max(width, item.key().size());
  for (const auto& item : object.items()) {
    std::string line = "  " + item.key();
    line.resize(width + 4, ' ');
    const std::string value =
        item.value().is_string()
            ? item.value().get<std::string>()
            : item.value().dump(-1, ' ', false, json::error_handler_t::replace);
    out << harness::wrap(line + value, width + 4) << "\n";
  }
  out << "\n";
}

ordered_json to_json_report(const golden::GoldenFile& file) {
  ordered_json datasets = ordered_json::array();
  for (const auto& [path, tensor] : file.datasets) {
    datasets.push_back({{"path", path},
                        {"type", element_name(tensor.type())},
                        {"shape", tensor.shape()},
                        {"bytes", tensor.bytes().size()},
                        {"sha256", golden::dataset_sha256(tensor)}});
  }
  return {{"schema_version", harness::kReportSchemaVersion},
          {"tool", {{"name", "attn-compare"}, {"version", version()}, {"commit", commit()}}},
          {"verb", "inspect"},
          {"file", file.path},
          {"case_id", file.case_id},
          {"sealed", file.seal == golden::Seal::kSealed},
          {"content_sha256", golden::content_sha256(file)},
          {"config", json::parse(file.config_json, nullptr, false)},
          {"provenance", json::parse(file.provenance_json, nullptr, false)},
          {"datasets", std::move(datasets)}};
}

void print_datasets(std::ostream& out, const golden::GoldenFile& file) {
  std::size_t path_width = 7;
  std::size_t shape_width = 5;
  for (const auto& [path, tensor] : file.datasets) {
    path_width = std::max(path_width, path.size());
    shape_width = std::max(shape_width, to_string(tensor.shape()).size());
  }
  const auto cell = [](std::string text, std::size_t width) {
    text.resize(std::max(width, text.size()), ' ');
    return text + "  ";
  };
  out << cell("dataset", path_width) << cell("type", 13) << cell("shape", shape_width)
      << "sha256 (first 16 digits)\n";
  std::size_t bytes = 0;
  for (const auto& [path, tensor] : file.datasets) {
    bytes += tensor.bytes().size();
    out << cell(path, path_width) << cell(std::string(element_name(tensor.type())), 13)
        << cell(to_string(tensor.shape()), shape_width)
        << golden::dataset_sha256(tensor).substr(0, 16) << "\n";
  }
  out << "\n"
      << file.datasets.size() << " datasets, "
      << harness::format_count(static_cast<std::int64_t>(bytes)) << " bytes of values" << std::endl;
}

}  // namespace

int inspect(const InspectOptions& options, const Session& session) {
  check_writable("--json", options.json);
  const golden::GoldenFile file = golden::read(options.file);
  write_output(
      session, options.json,
      options.json.empty()
          ? ""
          : to_json_report(file).dump(2, ' ', false, json::error_handler_t::replace) + "\n");
  if (options.json == "-") return 0;
  std::ostream& out = session.streams.out;
  out << file.path << "\n  case_id  " << file.case_id << "\n  state    "
      << (file.seal == golden::Seal::kSealed
              ? "sealed, content_sha256 " + file.content_sha256
              : "unsealed: no digests (attn-compare golden seal adds them)")
      << "\n\n";
  print_object(out, "config", file.config_json);
  print_object(out, "provenance", file.provenance_json);
  print_datasets(out, file);
  return 0;
}

}  // namespace attn::cli
