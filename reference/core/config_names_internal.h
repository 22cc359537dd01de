#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "reference/core/config.h"

namespace attn {

// Names of the enumerations in the JSON: one table each, read in both directions.

template <typename E>
using Names = std::span<const std::pair<std::string_view, E>>;

template <typename E, std::size_t N>
using NameTable = std::array<std::pair<std::string_view, E>, N>;

constexpr NameTable<Variant, 7> kVariants{{
    {"attention_with_rope", Variant::kAttentionWithRope},
    {"no_opaque", Variant::kNoOpaque},
    {"gguf", Variant::kGguf},
    {"gptq", Variant::kGptq},
    {"tensor_parallel", Variant::kTensorParallel},
    {"data_parallel", Variant::kDataParallel},
    {"attention", Variant::kAttention},
}};
constexpr NameTable<EntryPoint, 3> kEntryPoints{{
    {"forward", EntryPoint::kForward},
    {"materialize_kv_from_hidden", EntryPoint::kMaterializeKvFromHidden},
    {"attention", EntryPoint::kAttention},
}};
constexpr NameTable<MaskVariant, 6> kMasks{{
    {"null", MaskVariant::kNull},
    {"causal", MaskVariant::kCausal},
    {"chunked_causal", MaskVariant::kChunkedCausal},
    {"sliding_window_causal", MaskVariant::kSlidingWindowCausal},
    {"sliding_window_noncausal", MaskVariant::kSlidingWindowNoncausal},
    {"tensor", MaskVariant::kTensor},
}};
constexpr NameTable<MaskAlign, 2> kAligns{{
    {"bottom_right", MaskAlign::kBottomRight},
    {"top_left", MaskAlign::kTopLeft},
}};
constexpr NameTable<RopeScalingType, 7> kScalings{{
    {"default", RopeScalingType::kDefault},
    {"linear", RopeScalingType::kLinear},
    {"dynamic", RopeScalingType::kDynamic},
    {"llama3", RopeScalingType::kLlama3},
    {"yarn", RopeScalingType::kYarn},
    {"deepseek_yarn", RopeScalingType::kDeepseekYarn},
    {"longrope", RopeScalingType::kLongrope},
}};
constexpr NameTable<LongropeConvention, 2> kConventions{{
    {"transformers", LongropeConvention::kTransformers},
    {"max", LongropeConvention::kMax},
}};
constexpr NameTable<RotarySide, 2> kRotarySides{{
    {"first", RotarySide::kFirst},
    {"last", RotarySide::kLast},
}};
constexpr NameTable<ScaleGranularity, 3> kScaleGranularities{{
    {"tensor", ScaleGranularity::kTensor},
    {"head", ScaleGranularity::kHead},
    {"token_head", ScaleGranularity::kTokenHead},
}};
constexpr NameTable<QuantEncoding, 10> kEncodings{{
    {"float8_e4m3fn", QuantEncoding::kFloat8E4M3FN},
    {"nvfp4", QuantEncoding::kNvfp4},
    {"mxfp4", QuantEncoding::kMxfp4},
    {"mxfp8", QuantEncoding::kMxfp8},
    {"gptq", QuantEncoding::kGptq},
    {"q4_0", QuantEncoding::kQ4_0},
    {"q8_0", QuantEncoding::kQ8_0},
    {"q4_k", QuantEncoding::kQ4_K},
    {"q5_k", QuantEncoding::kQ5_K},
    {"q6_k", QuantEncoding::kQ6_K},
}};
/// The encodings that may differ between the projections.
constexpr Names<QuantEncoding> kGgufEncodings = Names<QuantEncoding>(kEncodings).subspan(5);
constexpr NameTable<WeightGranularity, 3> kWeightGranularities{{
    {"tensor", WeightGranularity::kTensor},
    {"rowwise", WeightGranularity::kRowwise},
    {"block", WeightGranularity::kBlock},
}};
constexpr NameTable<ActivationQuant, 5> kActivations{{
    {"none", ActivationQuant::kNone},
    {"static", ActivationQuant::kStatic},
    {"token", ActivationQuant::kToken},
    {"block", ActivationQuant::kBlock},
    {"int8", ActivationQuant::kInt8},
}};
/// Types of activations and caches.
constexpr NameTable<ElementType, 4> kElementTypes{{
    {"float32", ElementType::kFloat32},
    {"bfloat16", ElementType::kBFloat16},
    {"float16", ElementType::kFloat16},
    {"float8_e4m3fn", ElementType::kFloat8E4M3FN},
}};
constexpr NameTable<bool, 2> kCheckpointFormats{{{"gptq", false}, {"gptq_v2", true}}};

template <typename E>
std::string_view name_in(Names<E> names, E value) {
  for (const auto& [name, known] : names) {
    if (known == value) return name;
  }
  return "none";
}

template <typename E>
std::vector<std::string> words(Names<E> names) {
  std::vector<std::string> list;
  for (const auto& entry : names) list.emplace_back(entry.first);
  return list;
}

}  // namespace attn
