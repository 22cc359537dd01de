#include <algorithm>
#include <array>
#include <vector>

#include "harness/relations/battery.h"
#include "harness/relations/measurement.h"
#include "harness/relations/transform.h"

namespace attn::harness {
namespace {

using Bitwise = Relation::Bitwise;

bool has_rows(const Case& c) { return c.tokens() > 0; }
bool has_sequences(const Case& c) { return c.batch() > 1 && has_rows(c); }
bool has_keys(const Case& c) { return c.cache.num_pages() > 1 && has_rows(c); }

Arithmetic declared(const Subject& subject) {
  return subject.backend().arithmetic(subject.c().config);
}

RelationResult check_repeat(const Subject& subject) {
  const Measurement again = measure(subject, subject.c(), answer(subject, subject.c()));
  return compare_answers(subject, "repeat", own_measurement(subject), again,
                         "the same case a second time",
                         subject.options().bitwise || declared(subject).deterministic);
}

RelationResult check_page_permutation(const Subject& subject) {
  return check_counterpart(subject, "page_permutation", reverse_pages(subject.c()), same_place,
                           "the pages of the pool in reverse order", subject.options().bitwise);
}

/// The sequences `order` of the subject's case as a batch, against the whole batch.
RelationResult check_sequences(const Subject& subject, std::string_view relation,
                               std::span<const std::int64_t> order, const std::string& name) {
  const Case& c = subject.c();
  std::vector<Part> parts;
  for (const std::int64_t b : order) parts.push_back(whole_sequence(c, b));
  return check_counterpart(subject, relation, take(c, parts), sequence_mapping(c, order), name,
                           declared(subject).batch_invariant);
}

RelationResult check_order(const Subject& subject) {
  std::vector<std::int64_t> order;
  for (std::int64_t b = subject.c().batch(); b-- > 0;) order.push_back(b);
  return check_sequences(subject, "sequence_order", order, "the sequences in reverse order");
}

/// The first, the last and the longest sequence that has rows.
std::vector<std::int64_t> sequences_to_try(const Case& c) {
  std::vector<std::int64_t> with_rows;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    if (c.row_count(b) > 0) with_rows.push_back(b);
  }
  const std::int64_t longest =
      *std::ranges::max_element(with_rows, {}, [&](std::int64_t b) { return c.key_count(b); });
  std::vector<std::int64_t> chosen{with_rows.front(), longest, with_rows.back()};
  std::ranges::sort(chosen);
  const auto [first, last] = std::ranges::unique(chosen);
  chosen.erase(first, last);
  return chosen;
}

RelationResult check_row_alone(const Subject& subject) {
  RelationResult worst;
  for (const std::int64_t b : sequences_to_try(subject.c())) {
    RelationResult result = check_sequences(subject, "row_alone", std::array{b},
                                            "sequence " + std::to_string(b) + " alone");
    if (result.broken || !result.skipped.empty()) return result;
    worst.worst_ratio = std::max(worst.worst_ratio, result.worst_ratio);
  }
  return worst;
}

constexpr std::array kRelations{
    Relation{"repeat", "the same case twice", Bitwise::kOnDemand, has_rows, check_repeat},
    Relation{"page_permutation", "the same values in other pages of the pool", Bitwise::kOnDemand,
             has_keys, check_page_permutation},
    Relation{"row_alone", "a sequence alone equals the sequence in the batch",
             Bitwise::kOfBatchInvariant, has_sequences, check_row_alone},
    Relation{"sequence_order", "the sequences of the batch in reverse order",
             Bitwise::kOfBatchInvariant, has_sequences, check_order},
};

}  // namespace

std::span<const Relation> batch_relations() { return kRelations; }

}  // namespace attn::harness
