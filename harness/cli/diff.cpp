#include <algorithm>
#include <nlohmann/json.hpp>
#include <ostream>
#include <set>

#include "golden/golden_file.h"
#include "harness/cli/judge.h"
#include "harness/cli/tensor_diff.h"
#include "harness/cli/verbs.h"
#include "harness/report/format.h"
#include "reference/core/error.h"

namespace attn::cli {
namespace {

using golden::GoldenFile;
using harness::ReportRow;
using harness::Status;

/// Every dataset of either file: what goes in first, then the stages in their order.
std::vector<std::string> dataset_order(const GoldenFile& a, const GoldenFile& b) {
  std::set<std::string> paths;
  for (const auto& [path, tensor] : a.datasets) paths.insert(path);
  for (const auto& [path, tensor] : b.datasets) paths.insert(path);
  std::vector<std::string> stages;
  for (const Stage stage : all_stages()) {
    const std::string path = "expected/" + std::string(name_of(stage));
    if (paths.erase(path) > 0) stages.push_back(path);
  }
  std::vector<std::string> order(paths.begin(), paths.end());
  order.insert(order.end(), stages.begin(), stages.end());
  return order;
}

std::string describe(const Tensor& tensor) {
  return std::string(element_name(tensor.type())) + " " + to_string(tensor.shape());
}

nlohmann::json parse_config_text(const GoldenFile& file) {
  nlohmann::json config = nlohmann::json::parse(file.config_json, nullptr, false);
  if (config.is_discarded()) {
    throw Error(ErrorKind::kInput, file.path + ": config is not JSON", "config");
  }
  return config.flatten();
}

/// Differences of the configs, one "path: a -> b" each.
std::vector<std::string> config_differences(const GoldenFile& a, const GoldenFile& b) {
  const nlohmann::json first = parse_config_text(a);
  const nlohmann::json second = parse_config_text(b);
  std::set<std::string> keys;
  for (const auto& item : first.items()) keys.insert(item.key());
  for (const auto& item : second.items()) keys.insert(item.key());
  std::vector<std::string> differences;
  for (const std::string& key : keys) {
    const std::string left = first.contains(key) ? first[key].dump() : "absent";
    const std::string right = second.contains(key) ? second[key].dump() : "absent";
    if (left == right) continue;
    std::string line = key.substr(1);
    differences.push_back(line.append(": ").append(left).append(" -> ").append(right));
  }
  return differences;
}

void different(ReportRow& row, std::string detail) {
  row.verdict.status = Status::kFailed;
  row.verdict.detail = std::move(detail);
}

void diff_datasets(const std::string& path, const GoldenFile& a, const GoldenFile& b,
                   ReportRow& row) {
  if (!a.has(path) || !b.has(path)) {
    different(row, a.has(path) ? "only in A" : "only in B");
    return;
  }
  const Tensor& first = a.datasets.at(path);
  const Tensor& second = b.datasets.at(path);
  if (first.shape() != second.shape()) {
    different(row, describe(first) + " in A, " + describe(second) + " in B");
    return;
  }
  const TensorDiff diff = diff_tensors(first, second);
  row.properties.emplace_back("elements", diff.elements);
  row.properties.emplace_back("differing", diff.differing);
  row.properties.emplace_back("largest_difference", diff.largest);
  if (diff.differing > 0) {
    different(row, harness::format_short(diff.largest) + " at " +
                       index_text(first.shape(), diff.where) + ": " +
                       harness::format_number(diff.a) + " -> " + harness::format_number(diff.b) +
                       "; " + harness::format_count(diff.differing) + " of " +
                       harness::format_count(diff.elements) + " differ");
  } else if (first.type() != second.type()) {
    different(row, "equal values, " + describe(first) + " in A, " + describe(second) + " in B");
  } else {
    row.verdict.detail = "identical";
  }
}

void print_row(std::ostream& out, const ReportRow& row) {
  constexpr std::size_t kPathWidth = 26;
  std::string line = row.name;
  line.resize(std::max(line.size() + 2, kPathWidth), ' ');
  out << harness::wrap(line + row.verdict.detail, kPathWidth) << "\n";
}

}  // namespace

int diff(const DiffOptions& options, const Session& session) {
  Reporter reporter(session, options.report, "diff");
  const GoldenFile a = golden::read(options.a);
  const GoldenFile b = golden::read(options.b);
  std::ostream& out = reporter.text();
  out << "A " << options.a << "\nB " << options.b << "\n\n";

  const auto add = [&](const std::string& name, const auto& fill) {
    ReportRow row;
    row.name = name;
    row.file = options.b;
    row.repro = "attn-compare diff " + shell_quote(options.a) + " " + shell_quote(options.b);
    guarded(row, [&] { fill(row); });
    print_row(out, row);
    reporter.report().rows.push_back(std::move(row));
  };
  add("config", [&](ReportRow& row) {
    row.verdict.detail = "identical";
    std::string text;
    for (const std::string& line : config_differences(a, b)) {
      text += (text.empty() ? "" : "; ") + line;
    }
    if (!text.empty()) different(row, text);
  });
  for (const std::string& path : dataset_order(a, b)) {
    add(path, [&](ReportRow& row) { diff_datasets(path, a, b, row); });
  }
  const harness::Tally tally = reporter.report().tally();
  out << "\n" << tally.passed << " identical, " << tally.failed << " different" << std::endl;
  return reporter.finish();
}

}  // namespace attn::cli
