#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

#include "harness/generate/case_spec.h"
#include "harness/generate/profiles.h"
#include "harness/generate/spec_file.h"
#include "reference/core/error.h"
#include "reference/core/rules.h"

namespace attn::harness {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

const std::vector<std::string> kSpecKeys = {"config", "rows",   "pages",  "profile", "sinks",
                                            "layer",  "layers", "layout", "source"};
constexpr std::int64_t kMaxRowTokens = (std::int64_t{1} << 31) - 1;  // positions are uint32

[[noreturn]] void refuse(const std::string& field, const std::string& message) {
  throw Error(ErrorKind::kConfig, field + ": " + message, field);
}

/// The text as JSON; a name given twice in one object is refused, since one value would be lost.
json parse_strictly(std::string_view text) {
  std::vector<std::set<std::string>> open_objects;
  const auto check_names = [&](int, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::object_start) open_objects.emplace_back();
    if (event == json::parse_event_t::object_end) open_objects.pop_back();
    if (event == json::parse_event_t::key) {
      const auto name = value.get<std::string>();
      if (!open_objects.back().insert(name).second) {
        refuse(name, "given twice in one object; keep one of them");
      }
    }
    return true;
  };
  try {
    return json::parse(text, check_names);
  } catch (const json::parse_error& error) {
    const std::string what = error.what();
    const std::size_t after_tag = what.find("] ");
    refuse("JSON", after_tag == std::string::npos ? what : what.substr(after_tag + 2));
  }
}

void check_names(const json& object, const std::vector<std::string>& known, const char* where) {
  for (const auto& [name, value] : object.items()) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      refuse(name, std::string("not a key of ") + where + hint(name, known));
    }
  }
}

std::int64_t integer(const json& value, const std::string& field) {
  const bool too_large = value.is_number_unsigned() &&
                         value.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX);
  if (!value.is_number_integer() || too_large) {
    refuse(field, value.dump() + " is not an integer of 64 bits");
  }
  return value.get<std::int64_t>();
}

std::string text(const json& value, const std::string& field) {
  if (!value.is_string()) refuse(field, value.dump() + " is not a string");
  return value.get<std::string>();
}

std::vector<RowSpec> parse_rows(const json& value) {
  const char* const kRule =
      "is not a list of pairs; write [[cached, new], ...], for entry point "
      "attention [[queries, keys], ...]";
  if (!value.is_array()) refuse("rows", value.dump() + " " + kRule);
  std::vector<RowSpec> rows;
  for (const json& pair : value) {
    if (!pair.is_array() || pair.size() != 2) refuse("rows", pair.dump() + " " + kRule);
    rows.push_back({integer(pair[0], "rows"), integer(pair[1], "rows")});
  }
  return rows;
}

/// A decode row, a prefill from an empty cache and a continued prefill.
std::vector<RowSpec> default_rows(const AttentionConfig& config) {
  if (config.starts_at_attention()) return {{1, 17}, {6, 6}, {4, 21}};
  return {{16, 1}, {0, 6}, {17, 4}};
}

/// In the order of PageOrder.
const std::vector<std::string> kPageOrders = {"shuffled", "identity", "top"};

PageOrder parse_pages(const std::string& name) {
  const auto found = std::find(kPageOrders.begin(), kPageOrders.end(), name);
  if (found != kPageOrders.end()) return static_cast<PageOrder>(found - kPageOrders.begin());
  refuse("pages", "\"" + name + "\" is not a page order" + hint(name, kPageOrders));
}

/// A word of `Value`, whose values have these words in order.
template <typename Value>
Value word_of(const json& value, const std::string& field, const std::vector<std::string>& words) {
  const std::string word = text(value, field);
  const auto found = std::find(words.begin(), words.end(), word);
  if (found == words.end())
    refuse(field, "\"" + word + "\" is none of its words" + hint(word, words));
  return static_cast<Value>(found - words.begin());
}

bool truth(const json& value, const std::string& field) {
  if (!value.is_boolean()) refuse(field, value.dump() + " is not true or false");
  return value.get<bool>();
}

const std::vector<std::string> kCacheOrders = {"nhd", "hnd"};
const std::vector<std::string> kKvPairings = {"separate", "page_pairs", "row_pairs"};
const std::vector<std::string> kQueryOrders = {"dense", "fused_qkv", "transposed"};
const std::vector<std::string> kOutputOrders = {"dense", "transposed"};

/// A number of the layout with its range.
struct LayoutNumber {
  const char* name;
  std::int64_t MemoryLayout::*field;
  std::int64_t least;
  std::int64_t most;
};
// Reserved addresses cost nothing, but a process has 2^47 bytes of them.
constexpr LayoutNumber kLayoutNumbers[] = {
    {"gap", &MemoryLayout::gap, 0, 1 << 12},
    {"channel_stride", &MemoryLayout::channel_stride, 1, 8},
    {"offset", &MemoryLayout::offset, 0, 1 << 20},
    {"row_stride", &MemoryLayout::row_stride, 0, std::int64_t{1} << 34},
    {"pool_offset", &MemoryLayout::pool_offset, 0, std::int64_t{1} << 36}};

MemoryLayout parse_layout(const json& object) {
  if (!object.is_object()) refuse("layout", object.dump() + " is not an object, {\"cache\": ...}");
  std::vector<std::string> names = {"cache", "kv", "q", "out", "broadcast"};
  for (const LayoutNumber& number : kLayoutNumbers) names.emplace_back(number.name);
  check_names(object, names, "a layout");
  MemoryLayout layout;
  for (const auto& [name, value] : object.items()) {
    if (name == "cache") layout.cache = word_of<CacheOrder>(value, name, kCacheOrders);
    if (name == "kv") layout.kv = word_of<KvPairing>(value, name, kKvPairings);
    if (name == "q") layout.q = word_of<QueryOrder>(value, name, kQueryOrders);
    if (name == "out") layout.out = word_of<OutputOrder>(value, name, kOutputOrders);
    if (name == "broadcast") layout.broadcast = truth(value, name);
    for (const LayoutNumber& number : kLayoutNumbers) {
      if (name == number.name) layout.*number.field = integer(value, name);
    }
  }
  return layout;
}

void validate(const MemoryLayout& layout) {
  for (const auto& [name, field, least, most] : kLayoutNumbers) {
    if (layout.*field >= least && layout.*field <= most) continue;
    refuse(name, std::to_string(layout.*field) + " is not in " + std::to_string(least) + " to " +
                     std::to_string(most));
  }
}

/// What differs from the default.
ordered_json layout_json(const MemoryLayout& layout) {
  const MemoryLayout standard;
  ordered_json out;
  const auto word = [&](const char* name, auto MemoryLayout::*field,
                        const std::vector<std::string>& words) {
    if (layout.*field != standard.*field)
      out[name] = words[static_cast<std::size_t>(layout.*field)];
  };
  word("cache", &MemoryLayout::cache, kCacheOrders);
  word("kv", &MemoryLayout::kv, kKvPairings);
  word("q", &MemoryLayout::q, kQueryOrders);
  word("out", &MemoryLayout::out, kOutputOrders);
  if (layout.broadcast) out["broadcast"] = true;
  for (const LayoutNumber& number : kLayoutNumbers) {
    if (layout.*number.field != standard.*number.field) out[number.name] = layout.*number.field;
  }
  return out;
}

CaseSpec spec_of(const json& object) {
  if (!object.is_object()) refuse("JSON", "a case is an object, {\"config\": {...}, ...}");
  const bool bare = std::none_of(kSpecKeys.begin(), kSpecKeys.end(),
                                 [&](const std::string& key) { return object.contains(key); });
  CaseSpec spec;
  if (bare) {
    spec.config = parse_config(object.dump());
    spec.rows = default_rows(spec.config);
    validate(spec);
    return spec;
  }
  if (object.contains("seed")) refuse("seed", "given with --seed, not inside of --config");
  check_names(object, kSpecKeys, "a case");
  if (!object.contains("config")) refuse("config", "missing; a case needs {\"config\": {...}}");
  spec.config = parse_config(object["config"].dump());
  spec.rows = object.contains("rows") ? parse_rows(object["rows"]) : default_rows(spec.config);
  if (object.contains("pages")) spec.pages = parse_pages(text(object["pages"], "pages"));
  if (object.contains("profile")) spec.profile = text(object["profile"], "profile");
  if (object.contains("sinks")) spec.sinks = truth(object["sinks"], "sinks");
  // Where the geometry comes from; for readers of the file, no part of the case.
  if (object.contains("source")) text(object["source"], "source");
  if (object.contains("layer")) spec.layer = integer(object["layer"], "layer");
  if (object.contains("layers")) spec.layers = integer(object["layers"], "layers");
  if (object.contains("layout")) spec.layout = parse_layout(object["layout"]);
  validate(spec);
  return spec;
}

std::uint64_t parse_seed(const json& value) {
  if (!value.is_number_unsigned()) {
    refuse("seed", value.dump() + " is not a whole number from 0 to 2^64 - 1");
  }
  return value.get<std::uint64_t>();
}

}  // namespace

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path)) {
    throw Error(ErrorKind::kInput, path + ": cannot be read; is it the name of a file?", path);
  }
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void validate(const CaseSpec& spec) {
  attn::validate(spec.config);
  const bool from_attention = spec.config.starts_at_attention();
  for (const RowSpec& row : spec.rows) {
    const std::string pair = json({row.first, row.second}).dump();
    if (row.first < 0 || row.second < 0) refuse("rows", pair + " has a negative count");
    if (row.first > kMaxRowTokens || row.second > kMaxRowTokens - row.first) {
      refuse("rows", pair + " is longer than 2^31 - 1 tokens, the most one " +
                         (from_attention ? "pair of queries and keys" : "sequence") + " may have");
    }
  }
  if (spec.layers < 1) refuse("layers", std::to_string(spec.layers) + " is below 1");
  if (spec.layer < 0 || spec.layer >= spec.layers) {
    refuse("layer", std::to_string(spec.layer) + " is not one of the " +
                        std::to_string(spec.layers) + " layers (\"layers\"), counted from 0");
  }
  validate(spec.layout);
  find_profile(spec.profile);
}

CaseSpec parse_case_spec(std::string_view json_text) { return spec_of(parse_strictly(json_text)); }

CaseSpec load_case_spec(const std::string& json_or_file) {
  const auto first = std::find_if_not(json_or_file.begin(), json_or_file.end(),
                                      [](unsigned char c) { return std::isspace(c) != 0; });
  if (first != json_or_file.end() && *first == '{') return parse_case_spec(json_or_file);
  return parse_file(json_or_file, [](const std::string& s) { return parse_case_spec(s); });
}

std::vector<NamedCase> load_case_list(const std::string& path) {
  return parse_file(path, [](const std::string& content) {
    const json list = parse_strictly(content);
    if (!list.is_array()) refuse("JSON", "a list of cases is an array, [{\"id\": ...}, ...]");
    std::vector<NamedCase> cases;
    for (const json& item : list) {
      if (!item.is_object()) refuse("JSON", item.dump() + " is not an object");
      check_names(item, {"id", "seed", "spec"}, "a list of cases");
      for (const char* key : {"id", "seed", "spec"}) {
        if (!item.contains(key)) refuse(key, "missing in " + item.dump());
      }
      const std::string id = text(item["id"], "id");
      try {
        cases.push_back({id, spec_of(item["spec"]), parse_seed(item["seed"])});
      } catch (const Error& error) {
        throw Error(error.kind(), id + ": " + error.what(), error.field(), error.rule());
      }
    }
    return cases;
  });
}

TomlCase parse_seeded_spec(std::string_view json_text) {
  json object = parse_strictly(json_text);
  std::uint64_t seed = 0;
  if (object.is_object() && object.contains("seed")) {
    seed = parse_seed(object["seed"]);
    object.erase("seed");
  }
  return {spec_of(object), seed};
}

std::string to_json(const CaseSpec& spec) {
  ordered_json rows = ordered_json::array();
  for (const RowSpec& row : spec.rows) rows.push_back({row.first, row.second});
  ordered_json out;
  out["config"] = ordered_json::parse(attn::to_json(spec.config));
  out["rows"] = std::move(rows);
  out["pages"] = kPageOrders.at(static_cast<std::size_t>(spec.pages));
  out["profile"] = spec.profile;
  out["sinks"] = spec.sinks;
  out["layer"] = spec.layer;
  out["layers"] = spec.layers;
  if (spec.layout != MemoryLayout()) out["layout"] = layout_json(spec.layout);
  return out.dump();
}

}  // namespace attn::harness
