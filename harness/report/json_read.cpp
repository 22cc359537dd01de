#include <limits>
#include <nlohmann/json.hpp>

#include "harness/report/writers.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

using json = nlohmann::ordered_json;  // properties keep their order

double read_number(const json& value) {
  if (!value.is_string()) return value.get<double>();
  const auto text = value.get<std::string>();
  if (text == "Infinity") return std::numeric_limits<double>::infinity();
  if (text == "-Infinity") return -std::numeric_limits<double>::infinity();
  return std::numeric_limits<double>::quiet_NaN();
}

StageReport read_stage(const json& value) {
  StageReport stage;
  stage.stage = parse_stage(value.at("stage").get<std::string>());
  value.at("elements").get_to(stage.elements);
  value.at("bad").get_to(stage.bad);
  stage.worst_ratio = read_number(value.at("worst_ratio"));
  value.at("worst_index").get_to(stage.worst_index);
  value.at("worst_where").get_to(stage.worst_where);
  stage.got = read_number(value.at("got"));
  stage.want = read_number(value.at("want"));
  stage.bound = read_number(value.at("bound"));
  for (const json& part : value.at("bound_parts")) {
    stage.parts.emplace_back(part.at("name").get<std::string>(), read_number(part.at("value")));
  }
  value.at("weak_bound").get_to(stage.weak_bound);
  value.at("note").get_to(stage.note);
  return stage;
}

PropertyValue read_property(const json& value) {
  if (value.is_number_integer()) return value.get<std::int64_t>();
  if (value.is_number()) return value.get<double>();
  return value.get<std::string>();
}

void read_outcome(const std::string& word, ReportRow& row) {
  for (const Trouble trouble : {Trouble::kUnreadable, Trouble::kInternal}) {
    row.trouble = trouble;
    if (outcome(row) == word) return;
  }
  row.trouble = Trouble::kNone;
  for (int status = 0; status <= static_cast<int>(Status::kTimedOut); ++status) {
    row.verdict.status = static_cast<Status>(status);
    if (outcome(row) == word) return;
  }
  throw Error(ErrorKind::kInput, "status: \"" + word + "\" is none", "status");
}

ReportRow read_row(const json& value) {
  ReportRow row;
  value.at("name").get_to(row.name);
  value.at("file").get_to(row.file);
  value.at("backend").get_to(row.backend);
  const json& waived = value.at("waived_status");
  read_outcome((waived.is_null() ? value.at("status") : waived).get<std::string>(), row);
  value.at("waiver").get_to(row.waiver);
  Verdict& verdict = row.verdict;
  if (const json& stage = value.at("first_bad_stage"); !stage.is_null()) {
    verdict.first_bad = parse_stage(stage.get<std::string>());
  }
  value.at("detail").get_to(verdict.detail);
  value.at("rows_checked").get_to(verdict.rows_checked);
  value.at("rows_total").get_to(verdict.rows_total);
  row.seconds = read_number(value.at("seconds"));
  value.at("repro").get_to(row.repro);
  for (const auto& [name, property] : value.at("properties").items()) {
    row.properties.emplace_back(name, read_property(property));
  }
  for (const json& stage : value.at("stages")) verdict.stages.push_back(read_stage(stage));
  return row;
}

}  // namespace

ReportRow parse_json_row(std::string_view line) {
  try {
    return read_row(json::parse(line));
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorKind::kInput, std::string("not a row of a report: ") + error.what());
  }
}

}  // namespace attn::harness
