#include "harness/cli/fuzz_totals.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <ostream>
#include <utility>
#include <variant>

#include "harness/report/format.h"
#include "reference/core/error.h"

namespace attn::cli {
namespace {

using nlohmann::json;

std::string count(std::int64_t n) { return harness::format_count(n); }

/// Whether a feature of the tuple is a layout other than the standard one.
bool of_layout(const harness::Coverage::Tuple& tuple) {
  for (std::size_t i = 0; i < tuple.axes.size(); ++i) {
    const harness::Axis& axis = harness::space_axes()[static_cast<std::size_t>(tuple.axes[i])];
    if (axis.of_layout && tuple.values[i] != 0) return true;
  }
  return false;
}

}  // namespace

std::string to_json(const FuzzNote& note) {
  json object{{"points", note.points}};
  if (!note.account.empty()) object["account"] = note.account;
  if (note.like) object["like"] = *note.like;
  return object.dump();
}

FuzzNote parse_note(const std::string& text) {
  try {
    const json object = json::parse(text);
    FuzzNote note;
    note.points = object.at("points").get<std::vector<harness::Point>>();
    note.account = object.value("account", "");
    if (object.contains("like")) note.like = object.at("like").get<std::int64_t>();
    return note;
  } catch (const json::exception& error) {
    throw Error(ErrorKind::kInput, std::string("not a note of fuzz: ") + error.what());
  }
}

void FuzzTotals::add(const harness::ReportRow& row, const FuzzNote& note) {
  ++cases_;
  for (const auto& [name, value] : row.properties) {
    if (name == "origin") ++origins_[std::get<std::string>(value)];
    if (name == "pair") {
      const std::string& reason = std::get<std::string>(value);
      ++pairs_[reason.substr(0, reason.find(':'))];
    }
    if (name == "fitted") ++fitted_;
    if (name == "relations") {
      ++related_;
      relation_checks_ += std::get<std::int64_t>(value);
    }
  }
  if (row.trouble == harness::Trouble::kNone &&
      row.verdict.status == harness::Status::kUnsupported) {
    ++unsupported_[row.verdict.detail];
  }
  points_.insert(points_.end(), note.points.begin(), note.points.end());
}

void FuzzTotals::print(std::ostream& out, const std::string& backend) const {
  std::string line = count(cases_) + " cases on " + backend;
  const char* separator = ": ";
  for (const char* origin : {"corpus", "covering", "random"}) {
    const auto found = origins_.find(origin);
    if (found == origins_.end()) continue;
    line += separator + count(found->second) + " " + origin;
    separator = ", ";
  }
  out << harness::wrap(line, 2) << "\n";
  std::int64_t pairs = 0;
  std::string reasons;
  for (const auto& [reason, number] : pairs_) {
    pairs += number;
    reasons += (reasons.empty() ? "" : ", ") + count(number) + " " + reason;
  }
  if (pairs > 0) {
    out << harness::wrap(
               count(pairs) + (pairs == 1 ? " pair" : " pairs") +
                   " of a case that shows little by itself and a neighbour that does: " + reasons,
               2)
        << "\n";
  }
  if (fitted_ > 0) {
    out << harness::wrap(
               count(fitted_) + " judged without the features that the backend does not support", 2)
        << "\n";
  }
  if (related_ > 0) {
    out << harness::wrap(count(related_) + (related_ == 1 ? " case" : " cases") +
                             " put through the relations that are about them, " +
                             count(relation_checks_) + " in all",
                         2)
        << "\n";
  }
  for (const auto& [reason, number] : unsupported_) {
    out << harness::wrap(count(number) + " unsupported: " + reason, 2) << "\n";
  }
}

harness::Coverage FuzzTotals::coverage() const { return harness::coverage_of(points_, 2); }

std::string FuzzTotals::coverage_line(const harness::Coverage& coverage) {
  std::string line =
      count(coverage.covered) + " of " + count(coverage.legal) + " legal pairs of features covered";
  const std::int64_t unlaid = std::ranges::count_if(coverage.uncovered, of_layout);
  if (unlaid > 0) line += "; " + count(unlaid) + " of the others need a layout that it did not get";
  return line;
}

}  // namespace attn::cli
