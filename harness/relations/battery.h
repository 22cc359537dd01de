#pragma once

// Internal to harness/relations: the families of relations, one list for each file.

#include <span>
#include <string>
#include <string_view>

#include "harness/relations/measurement.h"

namespace attn::harness {

/// What does not depend on where and beside what a sequence lies.
std::span<const Relation> batch_relations();
/// Masks that hide the same keys.
std::span<const Relation> mask_relations();
/// Heads and channels in another order, or repeated.
std::span<const Relation> head_relations();
/// What a layer does before and after attention.
std::span<const Relation> layer_relations();
/// What follows from the formula of attention.
std::span<const Relation> formula_relations();
/// Answers that are known without a reference, or from simpler calls.
std::span<const Relation> known_answer_relations();
/// Weights in other encodings.
std::span<const Relation> encoding_relations();
/// The rows of a call in several calls, the devices of a layer as one.
std::span<const Relation> split_relations();

/// The whole check of a relation with one counterpart: asks, rearranges, compares.
RelationResult check_counterpart(const Subject& subject, std::string_view relation,
                                 const Case& counterpart, const Mapping& mapping,
                                 const std::string& name, bool bitwise = false);
/// The mapping of a counterpart with the same rows and columns.
Place same_place(Stage stage, std::int64_t row, std::int64_t column);
/// A relation that was not checked.
RelationResult skipped(std::string reason);

}  // namespace attn::harness
