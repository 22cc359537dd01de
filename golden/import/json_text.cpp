#include "golden/import/json_text.h"

#include "golden/import/byte_file.h"
#include "reference/core/config_json_reader_internal.h"

namespace attn::golden {

namespace {

std::string without_prefix(const Error& error) {
  constexpr std::string_view kPrefix = "config: ";
  std::string_view what = error.what();
  if (what.starts_with(kPrefix)) what.remove_prefix(kPrefix.size());
  return std::string(what);
}

}  // namespace

void refuse_config(const std::string& path, const Error& error) {
  refuse_file(path, "", without_prefix(error));
}

nlohmann::json parse_json_part(const std::string& path, const std::string& part,
                               const std::string& text, std::size_t longest) {
  try {
    return parse_json(text, longest);
  } catch (const Error& error) {
    refuse_file(path, part, without_prefix(error));
  }
}

nlohmann::json read_json_file(const std::string& path, std::size_t longest) {
  const ByteFile file(path);
  if (file.size() > longest) {
    refuse_file(path, "",
                "has " + std::to_string(file.size()) + " bytes, at most " +
                    std::to_string(longest) + " are read; is it the right file?");
  }
  std::string text(file.size(), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)), "");
  return parse_json_part(path, "", text, longest);
}

}  // namespace attn::golden
