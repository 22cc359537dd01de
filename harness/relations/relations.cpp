#include "harness/relations/relations.h"

#include <algorithm>

#include "harness/relations/battery.h"
#include "harness/relations/measurement.h"
#include "harness/report/format.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

std::vector<Relation> all_relations() {
  std::vector<Relation> all;
  for (const std::span<const Relation> family :
       {batch_relations(), mask_relations(), head_relations(), split_relations(), layer_relations(),
        formula_relations(), known_answer_relations(), encoding_relations()}) {
    all.insert(all.end(), family.begin(), family.end());
  }
  return all;
}

}  // namespace

RelationResult skipped(std::string reason) { return {std::move(reason), std::nullopt, 0.0}; }

Place same_place(Stage /*stage*/, std::int64_t row, std::int64_t column) { return {row, column}; }

RelationResult check_counterpart(const Subject& subject, std::string_view relation,
                                 const Case& counterpart, const Mapping& mapping,
                                 const std::string& name, bool bitwise) {
  if (std::string reason = refusal(subject, counterpart); !reason.empty()) {
    return skipped(std::move(reason));
  }
  const Measurement other = measure(subject, counterpart, answer(subject, counterpart));
  return compare_answers(subject, relation, own_measurement(subject),
                         rearrange(other, counterpart, subject.c(), mapping), name, bitwise);
}

Subject::Subject(const Case& c, const Backend& backend, const RelationOptions& options)
    : state_(std::make_unique<State>(State{c, backend, options, {}, {}})) {}
Subject::~Subject() = default;
const Case& Subject::c() const { return state_->c; }
const Backend& Subject::backend() const { return state_->backend; }
const RelationOptions& Subject::options() const { return state_->options; }

std::span<const Relation> relations() {
  static const std::vector<Relation> kAll = all_relations();
  return kAll;
}

const Relation& find_relation(std::string_view name) {
  std::vector<std::string> names;
  for (const Relation& relation : relations()) {
    if (relation.name == name) return relation;
    names.emplace_back(relation.name);
  }
  throw Error(ErrorKind::kUsage,
              "unknown relation \"" + std::string(name) + "\"" + hint(name, names), "--relations");
}

std::optional<Broken> first_broken(const Case& c, const Backend& backend,
                                   const RelationOptions& options,
                                   std::span<const Relation> which) {
  const Subject subject(c, backend, options);
  for (const Relation& relation : which) {
    if (!relation.applies(c)) continue;
    RelationResult result = relation.check(subject);
    if (result.broken) return std::move(result.broken);
  }
  return std::nullopt;
}

std::string to_string(const Broken& broken) {
  std::string text = broken.relation + ": " + broken.detail + "; worst at " + broken.where + ": " +
                     format_number(broken.one) + " against " + format_number(broken.other);
  if (broken.allowed > 0.0) text += ", allowed " + format_short(broken.allowed);
  return text;
}

}  // namespace attn::harness
