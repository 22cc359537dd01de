#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "reference/core/error.h"

namespace attn::golden {

/// A JSON text that is part of file `path`. Throws Error(kInput) naming file and part; repeated
/// keys, deep nesting and texts longer than `longest` bytes are refused.
nlohmann::json parse_json_part(const std::string& path, const std::string& part,
                               const std::string& text, std::size_t longest);

/// A whole file of JSON.
nlohmann::json read_json_file(const std::string& path, std::size_t longest);

/// An error of a config reader as the fault of file `path`.
[[noreturn]] void refuse_config(const std::string& path, const Error& error);

}  // namespace attn::golden
