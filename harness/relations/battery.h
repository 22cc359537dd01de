#pragma once

// Internal to harness/relations: the families of relations, one list for each file.

#include <span>

#include "harness/relations/relations.h"

namespace attn::harness {

/// What does not depend on where and beside what a sequence lies.
std::span<const Relation> batch_relations();

}  // namespace attn::harness
