#pragma once

#include <string>
#include <string_view>

namespace attn::harness {

/// "decode and fp8kv" as a predicate of harness/report/predicate.h: words that stand for
/// conditions, and, or, not. What is no such word is left as it is, so that both may be mixed:
/// "decode and head_dim > 128".
std::string expand_case_words(std::string_view text);

}  // namespace attn::harness
