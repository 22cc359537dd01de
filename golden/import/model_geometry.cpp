#include "golden/import/model_geometry.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "golden/import/byte_file.h"
#include "golden/import/gguf.h"
#include "golden/import/json_text.h"
#include "golden/import/rope_parameters.h"
#include "reference/core/config_json_reader_internal.h"

namespace attn::golden {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kLongestConfig = std::size_t{4} << 20;

/// Puts `defaults` where the config has nothing.
void fill_in(Json& config, const Json& defaults) {
  for (const auto& item : defaults.items()) {
    if (!config.contains(item.key())) config[item.key()] = item.value();
  }
}

std::string text_of(const Json& config, const char* key, const std::string& path) {
  const auto found = config.find(key);
  if (found == config.end() || !found->is_string()) {
    refuse_file(path, key, "is missing or no string; this is no model's config");
  }
  return found->get<std::string>();
}

/// The metadata of a GGUF file under the keys that config.json has.
Json config_of_metadata(const GgufFile& file, const std::string& arch, std::int64_t layer) {
  Json config = Json::object();
  for (const auto& item : gguf_metadata_names().items()) {
    std::string name = item.value().get<std::string>();
    name.replace(name.find("{arch}"), 6, arch);
    const auto found = file.metadata().find(name);
    if (found == file.metadata().end()) continue;
    Json value = *found;
    if (value.is_array()) {  // one element a layer
      if (layer < 0 || static_cast<std::size_t>(layer) >= value.size()) continue;
      value = value[static_cast<std::size_t>(layer)];
    }
    const std::string& key = item.key();
    const std::size_t dot = key.find('.');
    if (dot == std::string::npos) {
      config[key] = std::move(value);
    } else {
      config[key.substr(0, dot)][key.substr(dot + 1)] = std::move(value);
    }
  }
  return config;
}

/// Factors of the frequencies are stored as tensors: of Llama 3.1 one list for all lengths, of
/// Phi-3 a short and a long one. Each is a longrope list; the first stretches nothing.
void add_frequency_factors(const GgufFile& file, Json& config) {
  const auto factors = [&](const char* name) { return file.read(name).values(); };
  if (file.has("rope_freqs.weight")) {
    const Json length = config.value("max_position_embeddings", Json(131072));
    config["rope_scaling"] = {{"rope_type", "longrope"},
                              {"short_factor", factors("rope_freqs.weight")},
                              {"long_factor", factors("rope_freqs.weight")},
                              {"original_max_position_embeddings", length}};
    config["max_position_embeddings"] = length;
  } else if (file.has("rope_factors_short.weight") && file.has("rope_factors_long.weight")) {
    Json& scaling = config["rope_scaling"];
    scaling["rope_type"] = "longrope";
    scaling["short_factor"] = factors("rope_factors_short.weight");
    scaling["long_factor"] = factors("rope_factors_long.weight");
  }
}

Model open_gguf_model(const std::string& path, std::int64_t layer) {
  Model model;
  auto file = open_gguf(path);
  const std::string arch = text_of(file->metadata(), "general.architecture", path);
  model.format = CheckpointFormat::kGguf;
  model.family = find_family(model.format, arch, path);
  model.config = config_of_metadata(*file, arch, layer);
  add_frequency_factors(*file, model.config);
  model.config_path = path;
  fill_in(model.config, model.family.config_defaults);
  model.tensors = std::move(file);
  return model;
}

Model open_folder(const std::string& folder) {
  namespace fs = std::filesystem;
  Model model;
  model.config_path = (fs::path(folder) / "config.json").string();
  model.config = read_json_file(model.config_path, kLongestConfig);
  if (!model.config.is_object()) refuse_file(model.config_path, "", "is no JSON object");
  if (model.config.contains("text_config") && model.config["text_config"].is_object()) {
    // A model that also sees or hears: its language part has a config of its own.
    Json text = model.config["text_config"];
    fill_in(text, model.config);
    if (!model.config["text_config"].contains("model_type")) {
      text["model_type"] = model.config.value("model_type", Json());
    }
    model.config = std::move(text);
  }
  model.family = find_family(model.format, text_of(model.config, "model_type", model.config_path),
                             model.config_path);
  fill_in(model.config, model.family.config_defaults);
  const fs::path old_quantisation = fs::path(folder) / "quantize_config.json";
  if (!model.config.contains("quantization_config") && fs::exists(old_quantisation)) {
    model.config["quantization_config"] = read_json_file(old_quantisation.string(), kLongestConfig);
    model.config["quantization_config"]["quant_method"] = "gptq";
  }
  model.tensors = open_checkpoint(folder);
  return model;
}

enum class LayerKind { kFull, kSliding, kChunked };

LayerKind kind_of_type(const std::string& type) {
  if (type == "full_attention") return LayerKind::kFull;
  if (type == "sliding_attention") return LayerKind::kSliding;
  if (type == "chunked_attention") return LayerKind::kChunked;
  refuse("layer_types", "has \"" + type +
                            "\", which is no attention of this family; use a layer "
                            "of type full_attention, sliding_attention or chunked_attention");
}

/// Whether the layer has the window, where the config does not say so layer by layer.
bool slides(const Json& config, const CheckpointFamily& family, std::int64_t layer) {
  ObjectReader in(config, "");
  const Json* pattern = in.find("sliding_window_pattern");
  if (pattern != nullptr && pattern->is_boolean()) return pattern->get<bool>();
  if (family.sliding == "all") return true;
  if (family.sliding == "even") return layer % 2 == 0;
  if (family.sliding == "all_but_every_nth") {
    std::int64_t every = family.every;
    in.read("sliding_window_pattern", every);
    if (every < 1) refuse("sliding_window_pattern", "must be at least 1");
    return (layer + 1) % every != 0;
  }
  if (family.sliding == "above") {
    bool used = false;
    std::int64_t first = 0;
    in.read("use_sliding_window", used);
    in.read("max_window_layers", first);
    return used && layer >= first;
  }
  return false;
}

LayerKind kind_of_layer(const Json& config, const CheckpointFamily& family, std::int64_t layer) {
  ObjectReader in(config, "");
  if (const Json* types = in.find("layer_types")) {
    const auto index = static_cast<std::size_t>(layer);
    if (!types->is_array() || types->size() <= index || !(*types)[index].is_string()) {
      refuse("layer_types", "must be a list with a name for each layer");
    }
    return kind_of_type((*types)[index].get<std::string>());
  }
  const Json* window = in.find("sliding_window");
  const bool has_window = window != nullptr && !(window->is_number() && *window == 0);
  return has_window && slides(config, family, layer) ? LayerKind::kSliding : LayerKind::kFull;
}

void set_mask(ObjectReader& in, LayerKind kind, AttentionConfig& c) {
  if (kind == LayerKind::kSliding) {
    c.mask.variant = MaskVariant::kSlidingWindowCausal;
    c.mask.window_size = in.require_integer("sliding_window");
  } else if (kind == LayerKind::kChunked) {
    c.mask.variant = MaskVariant::kChunkedCausal;
    c.mask.chunk_size = in.require_integer("attention_chunk_size");
  }
}

void check_rope_used(ObjectReader& in, const CheckpointFamily& family, LayerKind kind,
                     std::int64_t layer) {
  bool used = family.no_rope != "full" || kind != LayerKind::kFull;
  if (family.no_rope == "no_rope_layers") {
    const Json* list = in.find("no_rope_layers");
    const auto index = static_cast<std::size_t>(layer);
    used = list == nullptr || !list->is_array() || list->size() <= index || (*list)[index] != 0;
  }
  if (!used) {
    refuse("layer " + std::to_string(layer),
           "has no rope, which every layer of this family has; choose another layer");
  }
}

void set_scale(ObjectReader& in, const CheckpointFamily& family, std::int64_t layers,
               AttentionConfig& c) {
  if (!family.scale.empty()) {
    std::optional<double> value;
    in.read(family.scale.c_str(), value);
    const bool root = family.scale == "query_pre_attn_scalar";
    if (value) c.scale = root ? 1.0 / std::sqrt(*value) : *value;
  } else if (layers != 0 && layers == family.scale_by_width_at_layers) {
    c.scale = 1.0 / std::sqrt(static_cast<double>(c.hidden_size) /
                              static_cast<double>(c.num_attention_heads));
  }
}

AttentionConfig read_geometry(const Model& model, const LayerRequest& request,
                              std::vector<std::string>& notes) {
  ObjectReader in(model.config, "");
  const std::int64_t layers = in.require_integer("num_hidden_layers");
  if (request.layer < 0 || request.layer >= layers) {
    throw Error(ErrorKind::kUsage,
                "--layer " + std::to_string(request.layer) + ": the model has layers 0 to " +
                    std::to_string(layers - 1),
                "--layer");
  }
  AttentionConfig c;
  c.num_attention_heads = in.require_integer("num_attention_heads");
  c.num_key_value_heads = c.num_attention_heads;
  in.read("num_key_value_heads", c.num_key_value_heads);
  c.hidden_size = in.require_integer("hidden_size");
  if (c.num_attention_heads < 1) refuse("num_attention_heads", "must be positive");
  c.head_dim = c.hidden_size / c.num_attention_heads;
  in.read("head_dim", c.head_dim);
  c.head_dim_v = c.head_dim;
  in.read("head_dim_v", c.head_dim_v);
  in.read("rms_norm_eps", c.rms_norm_eps);
  in.read("attn_logit_softcapping", c.logit_softcap);
  in.read("clip_qkv", c.clip_activations);
  c.kv_cache.page_size = request.page_size;

  const LayerKind kind = kind_of_layer(model.config, model.family, request.layer);
  set_mask(in, kind, c);
  check_rope_used(in, model.family, kind, request.layer);
  set_scale(in, model.family, layers, c);
  c.rope.interleaved = model.family.interleaved;
  const bool local = kind == LayerKind::kSliding && !model.family.local_theta.empty();
  set_rope(model.config, kind == LayerKind::kFull ? "full_attention" : "sliding_attention",
           local ? model.family.local_theta : "", request.longest_sequence, c, notes);
  validate(c);
  return c;
}

}  // namespace

Model open_model(const std::string& path, std::int64_t layer) {
  if (std::filesystem::is_directory(path)) return open_folder(path);
  return open_gguf_model(path, layer);
}

AttentionConfig geometry_of(const Model& model, const LayerRequest& request,
                            std::vector<std::string>& notes) {
  try {
    return read_geometry(model, request, notes);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kConfig) throw;
    refuse_config(model.config_path, error);
  }
}

}  // namespace attn::golden
