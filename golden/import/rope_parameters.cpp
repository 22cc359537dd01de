// Keys as in transformers/modeling_rope_utils.py.
#include "golden/import/rope_parameters.h"

#include <cmath>

#include "reference/core/config_json_reader_internal.h"

namespace attn::golden {
namespace {

using Json = nlohmann::json;

/// A factor of cos and sin that the checkpoint gives must be the one that the formula makes, since
/// a config has no place for another.
void check_attention_factor(ObjectReader& in, double formula) {
  constexpr double kEqual = 1e-6;  // checkpoints print the factor with 7 digits or more
  std::optional<double> given;
  in.read("attention_factor", given);
  if (given && std::abs(*given - formula) > kEqual * formula) {
    refuse("rope_scaling.attention_factor", "is " + std::to_string(*given) +
                                                ", the formula gives " + std::to_string(formula) +
                                                "; a config has no place for another factor");
  }
}

/// The original length: of the scaling, else of the model.
std::int64_t original_length(ObjectReader& in, const Json& model) {
  ObjectReader outer(model, "");
  std::optional<std::int64_t> length;
  in.read("original_max_position_embeddings", length);
  if (!length) outer.read("original_max_position_embeddings", length);
  if (!length) outer.read("max_position_embeddings", length);
  if (!length) refuse("rope_scaling.original_max_position_embeddings", "is missing");
  return *length;
}

void read_yarn(ObjectReader& in, const Json& model, RopeScaling& s,
               std::vector<std::string>& notes) {
  s.factor = in.require_number("factor");
  in.read("beta_fast", s.beta_fast);
  in.read("beta_slow", s.beta_slow);
  s.original_max_position_embeddings = original_length(in, model);
  std::optional<double> mscale;
  std::optional<double> mscale_all_dim;
  in.read("mscale", mscale);
  in.read("mscale_all_dim", mscale_all_dim);
  if (mscale && mscale_all_dim) {
    s.type = RopeScalingType::kDeepseekYarn;
    s.mscale = *mscale;
    s.mscale_all_dim = *mscale_all_dim;
  } else {
    check_attention_factor(in, s.factor <= 1.0 ? 1.0 : 0.1 * std::log(s.factor) + 1.0);
  }
  bool truncate = true;
  in.read("truncate", truncate);
  if (!truncate) {
    notes.emplace_back(
        "rope: the model's yarn does not round the pairs where its ramp begins and ends "
        "(truncate false), the layer's does");
  }
}

void read_longrope(ObjectReader& in, const Json& model, std::int64_t longest, RopeScaling& s) {
  ObjectReader outer(model, "");
  in.require("short_factor");
  in.require("long_factor");
  in.read("short_factor", s.short_factor);
  in.read("long_factor", s.long_factor);
  s.original_max_position_embeddings = original_length(in, model);
  s.max_position_embeddings = outer.require_integer("max_position_embeddings");
  s.use_long = longest > s.original_max_position_embeddings;
  const auto original = static_cast<double>(s.original_max_position_embeddings);
  const double stretch = static_cast<double>(s.max_position_embeddings) / original;
  check_attention_factor(
      in, stretch <= 1.0 ? 1.0 : std::sqrt(1.0 + std::log(stretch) / std::log(original)));
  for (const char* key : {"short_mscale", "long_mscale"}) {
    if (in.find(key) != nullptr) {
      refuse("rope_scaling." + std::string(key), "is given; a config has no place for it");
    }
  }
}

RopeScaling read_scaling(const Json& json, const Json& model, std::int64_t longest,
                         std::vector<std::string>& notes) {
  ObjectReader in(json, "rope_scaling");
  RopeScaling s;
  const Json* type = in.find("rope_type");
  if (type == nullptr) type = in.find("type");
  if (type == nullptr) return s;
  const std::string name = type->is_string() ? type->get<std::string>() : show(*type);
  if (name == "default" || name == "none") return s;
  if (name == "linear") {
    s.type = RopeScalingType::kLinear;
    s.factor = in.require_number("factor");
  } else if (name == "dynamic") {
    // Up to the length that the model was trained on the table is the default one.
    s.type = RopeScalingType::kDynamic;
    if (longest > original_length(in, model)) {
      notes.emplace_back(
          "rope: beyond its trained length the model changes theta, the layer's "
          "dynamic table does not");
    }
  } else if (name == "llama3") {
    s.type = RopeScalingType::kLlama3;
    s.factor = in.require_number("factor");
    s.low_freq_factor = in.require_number("low_freq_factor");
    s.high_freq_factor = in.require_number("high_freq_factor");
    s.original_max_position_embeddings = original_length(in, model);
  } else if (name == "yarn") {
    s.type = RopeScalingType::kYarn;
    read_yarn(in, model, s, notes);
  } else if (name == "longrope" || name == "su") {
    s.type = RopeScalingType::kLongrope;
    read_longrope(in, model, longest, s);
  } else {
    refuse("rope_scaling.rope_type",
           "is \"" + name + "\", which this family of layers does not have" +
               hint(name, {"default", "linear", "dynamic", "llama3", "yarn", "longrope"}));
  }
  return s;
}

}  // namespace

void set_rope(const Json& model, const std::string& layer_type, const std::string& local_theta,
              std::int64_t longest, AttentionConfig& config, std::vector<std::string>& notes) {
  ObjectReader in(model, "");
  RopeConfig& rope = config.rope;
  const Json* parameters = in.find("rope_parameters");
  const bool by_type =
      parameters != nullptr && parameters->is_object() && parameters->contains(layer_type);
  if (by_type) parameters = &(*parameters)[layer_type];
  if (parameters == nullptr) parameters = in.find("rope_scaling");
  in.read("rope_theta", rope.theta);
  std::optional<double> partial;
  in.read("partial_rotary_factor", partial);
  if (parameters != nullptr) {
    ObjectReader inner(*parameters, "rope_parameters");
    inner.read("rope_theta", rope.theta);
    inner.read("partial_rotary_factor", partial);
  }
  if (!by_type && !local_theta.empty() && in.find(local_theta.c_str()) != nullptr) {
    in.read(local_theta.c_str(), rope.theta);
  } else if (parameters != nullptr) {
    rope.scaling = read_scaling(*parameters, model, longest, notes);
  }
  in.read("rotary_dim", rope.rotary_dim);
  if (partial) {
    if (!(*partial > 0.0 && *partial <= 1.0)) {
      refuse("partial_rotary_factor", "must be above 0 and at most 1");
    }
    rope.rotary_dim = static_cast<std::int64_t>(static_cast<double>(config.head_dim) * *partial);
  }
  if (rope.rotary_dim == config.head_dim) rope.rotary_dim.reset();
}

}  // namespace attn::golden
