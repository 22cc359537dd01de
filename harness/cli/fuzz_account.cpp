#include "harness/cli/fuzz_account.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <ostream>
#include <sstream>
#include <utility>

#include "harness/faults/catalogue.h"
#include "harness/generate/shrink.h"
#include "harness/report/format.h"
#include "harness/report/writers.h"
#include "reference/core/error.h"

namespace attn::cli {
namespace {

using nlohmann::json;

std::string counted(std::int64_t n, const std::string& noun) {
  return harness::format_count(n) + " " + noun + (n == 1 ? "" : "s");
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : "; ") + word;
  return text;
}

/// "3.2x the bound"; of an error that no bound measures the values.
std::string error_words(const harness::StageReport& stage) {
  if (std::isfinite(stage.worst_ratio)) {
    return harness::format_ratio(stage.worst_ratio) + "x the bound";
  }
  std::ostringstream words;
  words << "got " << stage.got << " for " << stage.want;
  return words.str();
}

/// What the case asks of the backend.
std::string task_name(const harness::CaseSpec& spec) {
  return spec.config.entry_point == EntryPoint::kMaterializeKvFromHidden
             ? "materialize"
             : std::string(name_of(spec.config.entry_point));
}

json to_object(const FuzzResult& result) {
  return {{"spec", harness::to_json(result.tried.spec)},
          {"seed", result.tried.seed},
          {"origin", name_of(result.tried.origin)},
          {"exec", name_of(result.exec)},
          {"relation", result.relation},
          {"alone", result.alone},
          {"row", harness::to_json_line(result.row)}};
}

FuzzResult result_of(const json& object) {
  FuzzResult result;
  result.tried.spec = harness::parse_case_spec(object.at("spec").get<std::string>());
  result.tried.seed = object.at("seed");
  result.tried.origin = harness::parse_origin(object.at("origin").get<std::string>());
  result.exec = harness::parse_exec_modes(object.at("exec").get<std::string>()).front();
  result.relation = object.at("relation");
  result.alone = object.at("alone");
  result.row = harness::parse_json_row(object.at("row").get<std::string>());
  return result;
}

/// Whether the second of two groups, found apart, is the first one's mistake.
bool is_same_mistake(const FailureGroup& a, const FailureGroup& b) {
  if (a.first.exec != b.first.exec) return false;
  if (!a.likeness.empty() && !b.likeness.empty()) {
    return a.likeness.front().fault == b.likeness.front().fault;
  }
  return fails_alike(a.smallest, b.smallest) &&
         (has_kinds(a.features, b.features) || has_kinds(b.features, a.features));
}

}  // namespace

bool has_answer(const FuzzResult& result) {
  const harness::ReportRow& row = result.row;
  return result.relation.empty() && row.trouble == harness::Trouble::kNone &&
         row.verdict.status == harness::Status::kFailed && row.verdict.first_bad.has_value();
}

bool has_kinds(const std::vector<std::string>& features, const std::vector<std::string>& needed) {
  const auto kind = [](const std::string& feature) { return feature.substr(0, feature.find(':')); };
  return std::ranges::all_of(needed, [&](const std::string& wanted) {
    return std::ranges::any_of(
        features, [&](const std::string& feature) { return kind(feature) == kind(wanted); });
  });
}

void print_account(std::ostream& out, const FailureGroup& group) {
  const harness::ReportRow& row = group.smallest.row;
  const harness::CaseSpec& spec = group.smallest.tried.spec;
  std::string line = "fails: " + row.backend + " " + task_name(spec);
  const harness::StageReport* const stage = headline_stage(row.verdict);
  if (has_answer(group.smallest) && stage != nullptr) {
    line += ", stage " + std::string(name_of(stage->stage)) + ", " + error_words(*stage) + ", " +
            stage->worst_where;
    if (!stage->note.empty()) line += " (" + stage->note + ")";
  } else if (!group.smallest.relation.empty()) {
    line += ", relation " + row.verdict.detail;
  } else {
    line += ": " + row.verdict.detail;
  }
  if (group.first.exec != harness::ExecMode::kPlain) {
    line += "; only with --exec " + std::string(name_of(group.first.exec));
  }
  if (group.inside) {
    line += "; first bad stage inside: " + std::string(name_of(group.inside->stage));
  }
  if (group.shrunk) line += "; shrunk to " + harness::headline_sizes(spec);
  if (!group.likeness.empty()) line += "; looks like: " + harness::to_string(group.likeness);
  out << "\n" << harness::wrap(line, 2) << "\n";
  if (group.inside) out << harness::wrap("  inside     " + group.inside->how, 13) << "\n";
  std::vector<std::string> features = group.features;
  if (group.first.exec != harness::ExecMode::kPlain) {
    features.push_back("exec: " + std::string(name_of(group.first.exec)));
  }
  const std::string needs = features.empty() ? "no feature, only sizes" : joined(features);
  out << harness::wrap("  needs      " + needs, 13) << "\n";
  out << harness::wrap("  sizes      " + joined(harness::all_sizes(spec)), 13) << "\n";
  if (group.count > 1) out << "  seen in    " << counted(group.count, "case") << "\n";
  if (!group.first.alone) {
    out << "  note       it did not fail on its own, so cases that ran before it matter\n";
  }
  out << "  reproduce  " << row.repro << "\n";
}

harness::CorpusEntry corpus_entry(const FailureGroup& group) {
  const auto& bad = group.smallest.row.verdict.first_bad;
  return {group.smallest.tried.spec,
          group.smallest.tried.seed,
          group.first.exec,
          group.smallest.row.backend,
          bad ? std::string(name_of(*bad)) : "",
          group.smallest.relation};
}

std::string to_json(const FailureGroup& group) {
  json likeness = json::array();
  for (const harness::Likeness& like : group.likeness) {
    likeness.push_back({{"id", like.fault->id}, {"of_bound", like.of_bound}});
  }
  json inside;
  if (group.inside) inside = {{"stage", name_of(group.inside->stage)}, {"how", group.inside->how}};
  const json object{{"item", group.item},
                    {"first", to_object(group.first)},
                    {"smallest", to_object(group.smallest)},
                    {"shrunk", group.shrunk},
                    {"likeness", std::move(likeness)},
                    {"inside", std::move(inside)}};
  return object.dump(-1, ' ', false, json::error_handler_t::replace);
}

FailureGroup parse_group(const std::string& text) {
  try {
    const json object = json::parse(text);
    FailureGroup group;
    group.item = object.at("item");
    group.first = result_of(object.at("first"));
    group.smallest = result_of(object.at("smallest"));
    group.shrunk = object.at("shrunk");
    group.features = harness::non_default_features(group.smallest.tried.spec);
    for (const json& like : object.at("likeness")) {
      const harness::FaultInfo& fault = harness::find_fault(like.at("id").get<std::string>());
      group.likeness.push_back({&fault, like.at("of_bound")});
    }
    if (const json& inside = object.at("inside"); !inside.is_null()) {
      group.inside = {parse_stage(inside.at("stage").get<std::string>()), inside.at("how")};
    }
    group.count = 1;
    return group;
  } catch (const json::exception& error) {
    throw Error(ErrorKind::kInput, std::string("not a failure that fuzz kept: ") + error.what());
  }
}

std::vector<FailureGroup> merge_groups(std::vector<FailureGroup> groups) {
  std::ranges::sort(groups, {}, &FailureGroup::item);
  std::vector<FailureGroup> merged;
  for (FailureGroup& group : groups) {
    const auto same = std::ranges::find_if(
        merged, [&](const FailureGroup& known) { return is_same_mistake(known, group); });
    if (same == merged.end()) {
      merged.push_back(std::move(group));
    } else {
      same->count += group.count;
    }
  }
  return merged;
}

}  // namespace attn::cli
