#include "golden/import/checkpoint_names.h"

#include "golden/import/byte_file.h"
#include "reference/core/error.h"

namespace attn::golden {

/// The text of data/models/checkpoint_names.json, built in so that the program needs no data
/// folder beside it.
extern const char kCheckpointNames[];

namespace {

using Json = nlohmann::json;

const Json& table(CheckpointFormat format) {
  static const Json kTable = Json::parse(kCheckpointNames);
  return kTable.at(format == CheckpointFormat::kGguf ? "gguf" : "huggingface");
}

/// A member of the row, else of the table's default row, else "".
std::string word(const Json& defaults, const Json& row, const char* key) {
  return row.value(key, defaults.value(key, std::string()));
}

CheckpointFamily parse_family(const Json& defaults, const Json& row) {
  CheckpointFamily f;
  f.family = row.at("family").get<std::string>();
  f.prefixes = row.value("prefix", defaults.at("prefix")).get<std::vector<std::string>>();
  f.q_proj = word(defaults, row, "q_proj");
  f.k_proj = word(defaults, row, "k_proj");
  f.v_proj = word(defaults, row, "v_proj");
  f.o_proj = word(defaults, row, "o_proj");
  f.qkv_proj = word(defaults, row, "qkv_proj");
  f.q_norm = word(defaults, row, "q_norm");
  f.k_norm = word(defaults, row, "k_norm");
  f.sinks = word(defaults, row, "sinks");
  f.interleaved = word(defaults, row, "rope") == "interleaved";
  f.sliding = word(defaults, row, "sliding");
  f.every = row.value("every", std::int64_t{0});
  f.no_rope = word(defaults, row, "no_rope");
  f.local_theta = word(defaults, row, "local_theta");
  f.scale = word(defaults, row, "scale");
  f.scale_by_width_at_layers = row.value("scale_by_width_at_layers", std::int64_t{0});
  f.norm_weight_offset = row.value("norm_weight_offset", 0.0);
  f.config_defaults = row.value("config", Json::object());
  return f;
}

}  // namespace

std::vector<std::string> known_model_types(CheckpointFormat format) {
  std::vector<std::string> known;
  for (const Json& row : table(format).at("families")) {
    for (const Json& name : row.at("model_type")) known.push_back(name.get<std::string>());
  }
  return known;
}

CheckpointFamily find_family(CheckpointFormat format, const std::string& model_type,
                             const std::string& path) {
  for (const Json& row : table(format).at("families")) {
    for (const Json& name : row.at("model_type")) {
      if (name == model_type) return parse_family(table(format).at("default"), row);
    }
  }
  refuse_file(path, format == CheckpointFormat::kGguf ? "general.architecture" : "model_type",
              "\"" + model_type + "\" is not in the table of checkpoints" +
                  hint(model_type, known_model_types(format)));
}

const Json& gguf_metadata_names() { return table(CheckpointFormat::kGguf).at("metadata"); }

}  // namespace attn::golden
