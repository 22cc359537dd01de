#pragma once

#include <string>
#include <string_view>

#include "harness/generate/case_spec.h"
#include "reference/core/error.h"

namespace attn::harness {

/// A case object that may hold `seed` besides the keys of a spec.
TomlCase parse_seeded_spec(std::string_view json);

/// The whole file. Throws Error(kInput) when it cannot be read.
std::string read_text(const std::string& path);

/// parse(text of the file); what `parse` refuses is reported as the file's fault, Error(kInput).
template <typename Parse>
auto parse_file(const std::string& path, const Parse& parse) {
  const std::string text = read_text(path);
  try {
    return parse(text);
  } catch (const Error& error) {
    throw Error(ErrorKind::kInput, path + ": " + error.what(), error.field(), error.rule());
  }
}

}  // namespace attn::harness
