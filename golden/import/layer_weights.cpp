#include "golden/import/layer_weights.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "golden/import/byte_file.h"
#include "reference/core/config_json_reader_internal.h"

namespace attn::golden {
namespace {

using Json = nlohmann::json;

constexpr std::array<const char*, 4> kProjections = {"q_proj", "k_proj", "v_proj", "o_proj"};

std::string describe(const Tensor& t) {
  return std::string(element_name(t.type())) + " " + to_string(t.shape());
}

/// Part `first` .. `first + count - 1` of an axis.
Tensor slice(const Tensor& t, std::size_t axis, std::int64_t first, std::int64_t count) {
  Shape shape = t.shape();
  const std::int64_t length = shape[axis];
  shape[axis] = count;
  Tensor out(t.type(), shape);
  auto inner = static_cast<std::int64_t>(element_size(t.type()));
  for (std::size_t i = axis + 1; i < shape.size(); ++i) inner *= shape[i];
  std::int64_t outer = 1;
  for (std::size_t i = 0; i < axis; ++i) outer *= shape[i];
  for (std::int64_t i = 0; i < outer; ++i) {
    std::memcpy(out.data() + i * count * inner, t.data() + (i * length + first) * inner,
                static_cast<std::size_t>(count * inner));
  }
  return out;
}

enum class Storage { kDense, kFp8, kNvfp4, kGptq, kGguf };

/// Finds and reads the tensors of one layer.
class LayerReader {
 public:
  LayerReader(const Model& model, std::int64_t layer, AttentionConfig& config,
              std::vector<std::string>& notes)
      : model_(model), files_(*model.tensors), config_(config), notes_(notes) {
    find_prefix(layer);
  }

  LayerWeights read() {
    storage_ = storage_of(part(model_.family.o_proj));
    switch (storage_) {
      case Storage::kDense:
        set_dense();
        break;
      case Storage::kFp8:
        set_fp8();
        break;
      case Storage::kNvfp4:
        set_nvfp4();
        break;
      case Storage::kGptq:
        set_gptq();
        break;
      case Storage::kGguf:
        set_gguf();
        break;
    }
    set_vectors();
    validate(config_);
    for (std::size_t i = 0; i < kProjections.size(); ++i) read_projection(i);
    if (config_.has_bias) read_biases();
    if (config_.use_qk_norm) read_norms();
    if (files_.has(sinks_)) weights_["sinks"] = files_.read(sinks_);
    check_output_bias();
    return fitted();
  }

 private:
  bool fused() const { return !model_.family.qkv_proj.empty(); }
  std::string part(const std::string& name) const { return prefix_ + name; }

  /// Where projection i lies: its own tensors, or rows of the fused ones.
  struct Place {
    std::string base;
    std::int64_t first = 0;
    std::int64_t count = 0;  ///< 0: all of it
  };
  Place place_of(std::size_t i) const {
    const CheckpointFamily& f = model_.family;
    const std::array<const std::string*, 4> names = {&f.q_proj, &f.k_proj, &f.v_proj, &f.o_proj};
    if (!fused() || i == 3) return {part(*names[i])};
    const std::array<std::int64_t, 3> counts = {config_.q_width(), config_.k_width(),
                                                config_.v_width()};
    std::int64_t first = 0;
    for (std::size_t j = 0; j < i; ++j) first += counts[j];
    return {part(f.qkv_proj), first, counts[i]};
  }

  void find_prefix(std::int64_t layer) {
    for (std::string prefix : model_.family.prefixes) {
      prefix.replace(prefix.find("{layer}"), 7, std::to_string(layer));
      const auto next = files_.tensors().lower_bound(prefix);
      if (next != files_.tensors().end() && next->first.starts_with(prefix)) {
        prefix_ = prefix;
        sinks_ =
            part(model_.family.sinks) + (files_.has(part(model_.family.sinks)) ? "" : ".weight");
        return;
      }
    }
    std::string wanted = model_.family.prefixes.front();
    wanted.replace(wanted.find("{layer}"), 7, std::to_string(layer));
    refuse_file(files_.path(), wanted + "*",
                "no such tensor; " + model_.family.family +
                    " checkpoints have them, is the file complete?");
  }

  Storage storage_of(const std::string& base) const {
    if (files_.has(base + ".qweight")) return Storage::kGptq;
    const StoredTensor& weight = files_.entry(base + ".weight");
    if (weight.encoding != QuantEncoding::kNone) return Storage::kGguf;
    if (weight.type == ElementType::kFloat8E4M3FN) return Storage::kFp8;
    if (weight.type == ElementType::kUInt8 && files_.has(base + ".weight_scale_2")) {
      return Storage::kNvfp4;
    }
    return Storage::kDense;
  }

  const StoredTensor& weight_entry(std::size_t i) const {
    return files_.entry(place_of(i).base + ".weight");
  }

  void set_dense() {
    std::optional<ElementType> common;
    for (std::size_t i = 0; i < kProjections.size(); ++i) {
      const StoredTensor& weight = weight_entry(i);
      const bool usable =
          weight.type && weight.encoding == QuantEncoding::kNone &&
          (*weight.type == ElementType::kFloat32 || *weight.type == ElementType::kFloat16 ||
           *weight.type == ElementType::kBFloat16);
      if (!usable) {
        refuse_file(weight.file, place_of(i).base + ".weight",
                    "has type " + weight.dtype +
                        " beside a dense o_proj; a layer is all dense in "
                        "F32, F16 or BF16, or all quantised");
      }
      if (!common) common = weight.type;
      if (*common != *weight.type) common = ElementType::kFloat32;
    }
    config_.dtype = *common;
  }

  /// The type of the activations where the weights do not say it.
  ElementType activation_type() const {
    ObjectReader in(model_.config, "");
    const Json* name = in.find("torch_dtype");
    if (name == nullptr) name = in.find("dtype");
    if (name == nullptr) return ElementType::kBFloat16;
    const ElementType type = parse_name("torch_dtype", *name, Names<ElementType>(kElementTypes));
    if (element_size(type) == 1) refuse("torch_dtype", "must be float32, bfloat16 or float16");
    return type;
  }

  Json quantisation() const { return model_.config.value("quantization_config", Json::object()); }

  std::string first_present(const std::string& base,
                            std::initializer_list<const char*> suffixes) const {
    for (const char* suffix : suffixes) {
      if (files_.has(base + suffix)) return base + suffix;
    }
    return "";
  }
  std::string scale_name(const std::string& base) const {
    const std::string name = first_present(base, {".weight_scale", ".weight_scale_inv", ".scale"});
    return name.empty() ? base + ".weight_scale" : name;  // the read then says what is missing
  }
  std::string input_scale_name(const std::string& base) const {
    return first_present(base, {".input_scale", ".activation_scale", ".input_activation_scale"});
  }

  void quantised(QuantEncoding encoding) {
    config_.dtype = activation_type();
    QuantConfig quant;
    quant.q_proj = quant.k_proj = quant.v_proj = quant.o_proj = encoding;
    config_.quant = quant;
  }

  void set_fp8() {
    quantised(QuantEncoding::kFloat8E4M3FN);
    const std::string base = place_of(3).base;
    const StoredTensor& scale = files_.entry(scale_name(base));
    const std::int64_t rows = files_.entry(base + ".weight").shape.front();
    const std::int64_t scales = num_elements(scale.shape);
    QuantConfig& quant = *config_.quant;
    const Json settings = quantisation();
    if (scales == 1) {
      quant.weight_granularity = WeightGranularity::kTensor;
    } else if (scale.shape == Shape{rows} || scale.shape == Shape{rows, 1}) {
      quant.weight_granularity = WeightGranularity::kRowwise;
    } else {
      quant.weight_granularity = WeightGranularity::kBlock;
      const Json block = settings.value("weight_block_size", Json::array({128, 128}));
      if (!block.is_array() || block.size() != 2) {
        refuse("quantization_config.weight_block_size", "must be [rows, columns]");
      }
      quant.block_n = parse_integer("weight_block_size[0]", block[0]);
      quant.block_k = parse_integer("weight_block_size[1]", block[1]);
    }
    quant.activation = fp8_activation(settings, quant);
  }

  ActivationQuant fp8_activation(const Json& settings, const QuantConfig& quant) const {
    if (!input_scale_name(place_of(3).base).empty()) return ActivationQuant::kStatic;
    if (settings.value("activation_scheme", "dynamic") == "static") {
      refuse("quantization_config.activation_scheme",
             "is static, and the input scales are missing");
    }
    // compressed-tensors leaves input_activations out when only the weights are codes.
    if (const auto groups = settings.find("config_groups"); groups != settings.end()) {
      for (const Json& group : *groups) {
        if (group.is_object() && group.value("input_activations", Json()).is_null()) {
          return ActivationQuant::kNone;
        }
      }
    }
    return quant.weight_granularity == WeightGranularity::kBlock ? ActivationQuant::kBlock
                                                                 : ActivationQuant::kToken;
  }

  void set_nvfp4() { quantised(QuantEncoding::kNvfp4); }

  void set_gptq() {
    quantised(QuantEncoding::kGptq);
    config_.variant = Variant::kGptq;
    const Json settings = quantisation();
    ObjectReader in(settings, "quantization_config");
    QuantConfig& quant = *config_.quant;
    quant.bits = in.require_integer("bits");
    quant.group_size = in.require_integer("group_size");
    in.read("desc_act", quant.desc_act);
    in.read("sym", quant.sym);
    in.read("checkpoint_format", quant.checkpoint_v2, kCheckpointFormats);
  }

  void set_gguf() {
    config_.variant = Variant::kGguf;
    config_.dtype = ElementType::kFloat32;
    QuantConfig quant;
    const std::array<QuantEncoding*, 4> encodings = {&quant.q_proj, &quant.k_proj, &quant.v_proj,
                                                     &quant.o_proj};
    for (std::size_t i = 0; i < kProjections.size(); ++i) {
      const StoredTensor& weight = weight_entry(i);
      if (weight.encoding == QuantEncoding::kNone) {
        refuse_file(weight.file, place_of(i).base + ".weight",
                    "has type " + weight.dtype +
                        " beside a quantised o_proj; a layer is all dense "
                        "or all in Q4_0, Q8_0, Q4_K, Q5_K and Q6_K");
      }
      *encodings[i] = weight.encoding;
    }
    config_.quant = quant;
    notes_.emplace_back("activations are not quantised, as a CPU that runs the file would do");
  }

  /// Presence of biases and norms switches them on.
  void set_vectors() {
    config_.has_bias = files_.has(place_of(0).base + ".bias");
    config_.kv_cache.dtype = config_.dtype;
    const std::string& norm = model_.family.q_norm;
    config_.use_qk_norm = !norm.empty() && files_.has(part(norm) + ".weight");
    config_.stacked_qkv = fused() && storage_ == Storage::kDense && !config_.has_bias;
    if (config_.stacked_qkv) {
      weights_["qkv_proj.weight"] = files_.read(part(model_.family.qkv_proj) + ".weight");
    }
  }

  /// A tensor of a projection, of the fused one the projection's part along `axis`, which has
  /// `per_unit` rows in each of its units (rows of blocks, packed words).
  Tensor take(const Place& place, const std::string& name, std::size_t axis,
              std::int64_t per_unit = 1) const {
    Tensor t = files_.read(name);
    if (place.count == 0 || t.size() == 1) return t;
    const bool whole = place.first % per_unit == 0 && place.count % per_unit == 0;
    if (!whole || t.shape().size() <= axis ||
        (place.first + place.count) / per_unit > t.dim(axis)) {
      refuse_file(files_.path(), name,
                  "is " + describe(t) + ", which cannot be cut into q, k and v of " +
                      std::to_string(config_.q_width()) + ", " + std::to_string(config_.k_width()) +
                      " and " + std::to_string(config_.v_width()) + " rows");
    }
    return slice(t, axis, place.first / per_unit, place.count / per_unit);
  }

  void read_projection(std::size_t i) {
    if (config_.stacked_qkv && i != 3) return;
    const Place place = place_of(i);
    const std::string name = std::string(kProjections[i]) + ".";
    const auto put = [&](const char* suffix, Tensor t) { weights_[name + suffix] = std::move(t); };
    if (storage_ != storage_of(place.base)) {
      refuse_file(files_.path(), place.base, "is stored in another way than o_proj");
    }
    if (storage_ == Storage::kGptq) {
      const std::int64_t codes_per_word = 32 / std::max<std::int64_t>(1, config_.quant->bits);
      put("qweight", take(place, place.base + ".qweight", 1));
      put("scales", take(place, place.base + ".scales", 1));
      put("qzeros", take(place, place.base + ".qzeros", 1, codes_per_word));
      put("g_idx", group_index(i));
      return;
    }
    put("weight", take(place, place.base + ".weight", 0));
    if (storage_ == Storage::kFp8) {
      const bool blocks = config_.quant->weight_granularity == WeightGranularity::kBlock;
      put("weight_scale",
          take(place, scale_name(place.base), 0, blocks ? config_.quant->block_n : 1));
      if (config_.quant->activation == ActivationQuant::kStatic) {
        put("input_scale", files_.read(required_input_scale(place.base)));
      }
    }
    if (storage_ == Storage::kNvfp4) {
      put("weight_scale", take(place, place.base + ".weight_scale", 0));
      put("weight_scale_2", files_.read(place.base + ".weight_scale_2"));
      const std::string input = input_scale_name(place.base);
      if (!input.empty()) put("input_scale", files_.read(input));
    }
  }

  std::string required_input_scale(const std::string& base) const {
    const std::string name = input_scale_name(base);
    return name.empty() ? base + ".input_scale" : name;
  }

  /// Files without desc_act may leave it out: column k is of group k / group_size.
  Tensor group_index(std::size_t i) const {
    const std::string name = place_of(i).base + ".g_idx";
    if (files_.has(name) || config_.quant->desc_act) return files_.read(name);
    const std::int64_t in = i == 3 ? config_.attn_width() : config_.hidden_size;
    const std::int64_t group = config_.quant->group_size > 0 ? config_.quant->group_size : in;
    Tensor index(ElementType::kInt32, {in});
    for (std::int64_t k = 0; k < in; ++k) {
      index.set_code(k, static_cast<std::uint64_t>(k / group));
    }
    return index;
  }

  void read_biases() {
    for (std::size_t i = 0; i < 3; ++i) {
      const Place place = place_of(i);
      weights_[std::string(kProjections[i]) + ".bias"] = take(place, place.base + ".bias", 0);
    }
  }

  void read_norms() {
    const CheckpointFamily& f = model_.family;
    for (const auto& [name, target] :
         {std::pair{&f.q_norm, "q_norm.weight"}, std::pair{&f.k_norm, "k_norm.weight"}}) {
      const std::string source = part(*name) + ".weight";
      Tensor t = files_.read(source);
      if (t.shape() != Shape{config_.head_dim}) {
        refuse_file(files_.path(), source,
                    "has shape " + to_string(t.shape()) +
                        ", this family of layers normalises each "
                        "head with one weight of " +
                        to_string({config_.head_dim}));
      }
      if (f.norm_weight_offset != 0.0) {
        std::vector<double> values = t.values();
        for (double& value : values) value += f.norm_weight_offset;
        t = Tensor::from_values(ElementType::kFloat32, t.shape(), values);
      }
      weights_[target] = std::move(t);
    }
  }

  void check_output_bias() {
    const std::string name = place_of(3).base + ".bias";
    if (!files_.has(name)) return;
    const std::vector<double> values = files_.read(name).values();
    if (std::ranges::any_of(values, [](double v) { return v != 0.0; })) {
      notes_.emplace_back("o_proj.bias is left out: `out` is what comes before it is added");
    }
  }

  /// Every tensor in the shape and type that the config asks for.
  LayerWeights fitted() const {
    LayerWeights out;
    for (const TensorSpec& spec : expected_weights(config_)) {
      const auto found = weights_.find(spec.name);
      if (found == weights_.end()) {
        if (spec.optional) continue;
        refuse_file(files_.path(), prefix_ + spec.name, "is missing; is the checkpoint complete?");
      }
      out[spec.name] = fit(found->second, spec, files_.path(), prefix_ + spec.name);
    }
    return out;
  }

  const Model& model_;
  const TensorFile& files_;
  AttentionConfig& config_;
  std::vector<std::string>& notes_;
  std::string prefix_;
  std::string sinks_;
  Storage storage_ = Storage::kDense;
  LayerWeights weights_;
};

}  // namespace

Tensor reshaped(const Tensor& tensor, const Shape& shape) {
  Tensor out(tensor.type(), shape);
  std::ranges::copy(tensor.bytes(), out.bytes().begin());
  return out;
}

Tensor fit(const Tensor& tensor, const TensorSpec& spec, const std::string& path,
           const std::string& where) {
  const Shape& have = tensor.shape();
  // A scale may be kept as [1] or [1, 1], one a row as [rows].
  const bool renamed = tensor.size() == num_elements(spec.shape) &&
                       (tensor.size() == 1 || Shape{have.front(), 1} == spec.shape);
  if (have != spec.shape && !renamed) {
    refuse_file(path, where,
                "is " + describe(tensor) + ", the layer needs " + to_string(spec.shape) +
                    "; do the config and the file belong together?");
  }
  Tensor out = have == spec.shape ? tensor : reshaped(tensor, spec.shape);
  if (std::ranges::count(spec.types, out.type()) != 0) return out;
  const ElementType wanted = spec.types.back();  // float32 where it is one of the types
  if (is_float(out.type()) && is_float(wanted)) {
    Tensor converted = Tensor::from_values(wanted, spec.shape, out.values());
    if (converted.values() == out.values()) return converted;
  }
  refuse_file(path, where,
              "is " + describe(tensor) + ", the layer needs " + std::string(element_name(wanted)) +
                  ", which cannot hold these values");
}

LayerWeights read_layer_weights(const Model& model, std::int64_t layer, AttentionConfig& config,
                                std::vector<std::string>& notes) {
  return LayerReader(model, layer, config, notes).read();
}

}  // namespace attn::golden
