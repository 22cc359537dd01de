#include "harness/cli/relation_rows.h"

#include <algorithm>
#include <iterator>
#include <span>
#include <sstream>
#include <string_view>

#include "harness/cli/session.h"

namespace attn::cli {

std::vector<harness::Relation> chosen_relations(const std::string& names) {
  const std::span<const harness::Relation> all = harness::relations();
  if (names.empty() || names == "all") return {all.begin(), all.end()};
  std::vector<std::string_view> wanted;
  std::istringstream words(names);
  for (std::string word; std::getline(words, word, ',');) {
    wanted.push_back(harness::find_relation(word).name);
  }
  std::vector<harness::Relation> chosen;
  std::ranges::copy_if(all, std::back_inserter(chosen), [&](const harness::Relation& relation) {
    return std::ranges::count(wanted, relation.name) > 0;
  });
  return chosen;
}

void set_broken(harness::ReportRow& row, const harness::Broken& broken, double worst_ratio) {
  row.verdict = {};
  row.verdict.status = harness::Status::kFailed;
  row.verdict.first_bad = broken.stage;
  row.verdict.detail = to_string(broken);
  harness::StageReport& stage = row.verdict.stages.emplace_back();
  stage.stage = broken.stage;
  stage.bad = 1;
  stage.worst_ratio = worst_ratio;
  stage.worst_where = broken.where;
  stage.got = broken.one;
  stage.want = broken.other;
  stage.bound = broken.allowed;
}

std::string relation_repro(const std::string& case_words, const std::string& backend,
                           std::string_view relation) {
  return "attn-compare invariance " + case_words + " --backend " + shell_quote(backend) +
         " --relations " + std::string(relation);
}

}  // namespace attn::cli
