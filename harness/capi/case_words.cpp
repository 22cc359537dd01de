#include "harness/capi/case_words.h"

#include <algorithm>
#include <cctype>
#include <utility>

namespace attn::harness {
namespace {

/// What users say, and what it means of a case.
constexpr std::pair<std::string_view, std::string_view> kWords[] = {
    {"and", "&&"},
    {"or", "||"},
    {"not", "!"},
    {"any", "(batch >= 0)"},
    {"decode", "(queries == 1)"},
    {"prefill", "(queries > 1)"},
    {"mha", "(group_size == 1)"},
    {"gqa", "(group_size > 1)"},
    {"mqa", "(num_key_value_heads == 1)"},
    {"causal", "(mask == causal)"},
    {"chunked", "(mask == chunked_causal)"},
    {"window", "(mask == sliding_window_causal || mask == sliding_window_noncausal)"},
    {"maskless", "(mask == \"null\")"},
    {"tensormask", "(mask == tensor)"},
    {"sinks", "(sinks == true)"},
    {"softcap", "(logit_softcap != null)"},
    {"fp8kv", "(kv_cache.dtype == float8_e4m3fn)"},
    {"quantised", "(quant != null)"},
    {"bf16", "(dtype == bfloat16)"},
    {"fp16", "(dtype == float16)"},
    {"fp32", "(dtype == float32)"},
    {"attention", "(entry_point == attention)"},
    {"layer", "(entry_point == forward)"},
};

bool in_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.';
}

/// Whether the word at `at` is the value of a comparison: "mask == causal" is already a condition.
bool is_value(std::string_view text, std::size_t at) {
  while (at > 0 && std::isspace(static_cast<unsigned char>(text[at - 1])) != 0) --at;
  return at > 0 &&
         (text[at - 1] == '=' || text[at - 1] == '<' || text[at - 1] == '>' || text[at - 1] == '"');
}

}  // namespace

std::string expand_case_words(std::string_view text) {
  std::string expanded;
  std::size_t at = 0;
  while (at < text.size()) {
    if (!in_word(text[at])) {
      expanded += text[at++];
      continue;
    }
    std::size_t end = at;
    while (end < text.size() && in_word(text[end])) ++end;
    const std::string_view word = text.substr(at, end - at);
    const auto* const known =
        std::ranges::find(kWords, word, [](const auto& pair) { return pair.first; });
    const bool stands = known != std::end(kWords) && !is_value(text, at);
    expanded += stands ? known->second : word;
    at = end;
  }
  return expanded;
}

}  // namespace attn::harness
