#pragma once

#include <string>

#include "golden/golden_file.h"

namespace attn::golden {

/// Version of the numeric semantics that `expected` follows (docs/golden-format.md).
inline constexpr int kSemanticsVersion = 1;

/// The JSON text of attribute `provenance`. `repro`: the words that make the case again, "" when
/// unknown. Throws Error(kUsage) when SOURCE_DATE_EPOCH is not a number.
std::string make_provenance(const WriteOptions& options, const std::string& repro);

}  // namespace attn::golden
