#include <cmath>
#include <nlohmann/json.hpp>

#include "harness/report/writers.h"

namespace attn::harness {
namespace {

using nlohmann::ordered_json;

/// JSON has no NaN and no infinities.
ordered_json number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return value;
}

ordered_json stage_json(const StageReport& stage) {
  ordered_json parts = ordered_json::array();
  for (const auto& [name, value] : stage.parts) {
    parts.push_back({{"name", name}, {"value", number(value)}});
  }
  return {{"stage", name_of(stage.stage)},
          {"elements", stage.elements},
          {"bad", stage.bad},
          {"worst_ratio", number(stage.worst_ratio)},
          {"worst_index", stage.worst_index},
          {"worst_where", stage.worst_where},
          {"got", number(stage.got)},
          {"want", number(stage.want)},
          {"error", number(std::abs(stage.got - stage.want))},
          {"bound", number(stage.bound)},
          {"bound_parts", std::move(parts)},
          {"weak_bound", stage.weak_bound},
          {"note", stage.note}};
}

ordered_json property_json(const PropertyValue& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return *integer;
  if (const auto* real = std::get_if<double>(&value)) return number(*real);
  return std::get<std::string>(value);
}

ordered_json row_json(const ReportRow& row) {
  const Verdict& verdict = row.verdict;
  const StageReport* headline = headline_stage(verdict);
  ordered_json json = {{"name", row.name},
                       {"file", row.file},
                       {"backend", row.backend},
                       {"status", outcome(row)},
                       {"waived_status", nullptr},
                       {"waiver", row.waiver},
                       {"first_bad_stage", nullptr},
                       {"worst_stage", nullptr},
                       {"worst_ratio", nullptr},
                       {"detail", verdict.detail},
                       {"rows_checked", verdict.rows_checked},
                       {"rows_total", verdict.rows_total},
                       {"seconds", number(row.seconds)},
                       {"repro", row.repro},
                       {"properties", ordered_json::object()},
                       {"stages", ordered_json::array()}};
  if (is_waived(row)) json["waived_status"] = name_of(verdict.status);
  if (verdict.first_bad) json["first_bad_stage"] = name_of(*verdict.first_bad);
  if (headline != nullptr) {
    json["worst_stage"] = name_of(headline->stage);
    json["worst_ratio"] = number(headline->worst_ratio);
  }
  for (const auto& [name, value] : row.properties) json["properties"][name] = property_json(value);
  for (const StageReport& stage : verdict.stages) json["stages"].push_back(stage_json(stage));
  return json;
}

}  // namespace

std::string to_json_line(const ReportRow& row) {
  return row_json(row).dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

std::string to_json(const Report& report) {
  const Tally tally = report.tally();
  ordered_json json = {
      {"schema_version", kReportSchemaVersion},
      {"tool", {{"name", "attn-compare"}, {"version", report.version}, {"commit", report.commit}}},
      {"verb", report.verb},
      {"command_line", report.command_line},
      {"exit_code", report.exit_code},
      {"interrupted", report.interrupted},
      {"seconds", number(report.seconds)},
      {"summary",
       {{"passed", tally.passed},
        {"failed", tally.failed},
        {"unsupported", tally.unsupported},
        {"skipped", tally.skipped},
        {"mistrusted", tally.mistrusted},
        {"crashed", tally.crashed},
        {"timed_out", tally.timed_out},
        {"waived", tally.waived},
        {"unreadable", tally.unreadable},
        {"internal", tally.internal}}},
      {"rows", ordered_json::array()}};
  for (const ReportRow& row : report.rows) json["rows"].push_back(row_json(row));
  // Names and messages may hold bytes of a hostile file: anything that is not UTF-8 is replaced.
  return json.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace attn::harness
