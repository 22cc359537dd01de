#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "reference/core/element.h"

namespace attn {

enum class Variant {
  kAttentionWithRope,
  kNoOpaque,
  kGguf,
  kGptq,
  kTensorParallel,
  kDataParallel,
  kAttention,
};

/// Where a case starts: the whole layer, only the cache, or q and a filled cache.
enum class EntryPoint { kForward, kMaterializeKvFromHidden, kAttention };

enum class MaskVariant {
  kNull,                   ///< every key
  kCausal,                 ///< k <= q
  kChunkedCausal,          ///< k <= q and q / chunk_size == k / chunk_size
  kSlidingWindowCausal,    ///< k <= q and q - k < window_size
  kSlidingWindowNoncausal, ///< k + window_size > q
  kTensor,                 ///< every key, a float32 tensor added to the scaled (and capped) score
};

/// Position of query row i of n with L keys: L - n + i, or i.
enum class MaskAlign { kBottomRight, kTopLeft };

struct MaskConfig {
  MaskVariant variant = MaskVariant::kCausal;
  MaskAlign align = MaskAlign::kBottomRight;
  std::optional<std::int64_t> window_size;
  std::optional<std::int64_t> chunk_size;
  friend bool operator==(const MaskConfig&, const MaskConfig&) = default;
};

enum class RopeScalingType { kDefault, kLinear, kDynamic, kLlama3, kYarn, kDeepseekYarn, kLongrope };

/// longrope: "transformers" takes one factor list for the whole table and multiplies cos and sin;
/// "max" takes the short list for rows below the original length and the long list beyond.
enum class LongropeConvention { kTransformers, kMax };

struct RopeScaling {
  RopeScalingType type = RopeScalingType::kDefault;
  double factor = 1.0;                                ///< linear, llama3, yarn, deepseek_yarn
  double low_freq_factor = 1.0;                       ///< llama3
  double high_freq_factor = 4.0;                      ///< llama3
  double beta_fast = 32.0;                            ///< yarn, deepseek_yarn
  double beta_slow = 1.0;                             ///< yarn, deepseek_yarn
  double mscale = 1.0;                                ///< deepseek_yarn
  double mscale_all_dim = 1.0;                        ///< deepseek_yarn
  std::int64_t original_max_position_embeddings = 0;  ///< llama3, yarn, deepseek_yarn, longrope
  std::int64_t max_position_embeddings = 0;           ///< longrope
  std::vector<double> short_factor;                   ///< longrope, [rotary_dim / 2]
  std::vector<double> long_factor;                    ///< longrope, [rotary_dim / 2]
  LongropeConvention convention = LongropeConvention::kTransformers;
  bool use_long = false;                              ///< longrope, convention transformers
  friend bool operator==(const RopeScaling&, const RopeScaling&) = default;
};

/// Which channels rotate when rotary_dim < head_dim.
enum class RotarySide { kFirst, kLast };

struct RopeConfig {
  double theta = 10000.0;
  /// true: pair j is channels (2j, 2j+1); false: (j, j + rotary_dim/2).
  bool interleaved = true;
  std::optional<std::int64_t> rotary_dim;  ///< default head_dim
  RotarySide rotary_side = RotarySide::kFirst;
  RopeScaling scaling;
  friend bool operator==(const RopeConfig&, const RopeConfig&) = default;
};

enum class ScaleGranularity { kNone, kTensor, kHead, kTokenHead };

struct KvCacheConfig {
  std::int64_t page_size = 128;
  ElementType dtype = ElementType::kFloat32;  ///< default: the config's dtype
  ScaleGranularity scale_granularity = ScaleGranularity::kNone;
  friend bool operator==(const KvCacheConfig&, const KvCacheConfig&) = default;
};

enum class QuantEncoding {
  kNone, kFloat8E4M3FN, kNvfp4, kMxfp4, kMxfp8, kGptq, kQ4_0, kQ8_0, kQ4_K, kQ5_K, kQ6_K,
};
enum class WeightGranularity { kTensor, kRowwise, kBlock };
enum class ActivationQuant { kNone, kStatic, kToken, kBlock, kInt8 };

struct QuantConfig {
  /// Encoding of each projection; all four are equal unless the JSON gives an object.
  QuantEncoding q_proj = QuantEncoding::kNone;
  QuantEncoding k_proj = QuantEncoding::kNone;
  QuantEncoding v_proj = QuantEncoding::kNone;
  QuantEncoding o_proj = QuantEncoding::kNone;
  ActivationQuant activation = ActivationQuant::kNone;
  WeightGranularity weight_granularity = WeightGranularity::kTensor;  ///< float8_e4m3fn
  std::int64_t block_n = 128;                                         ///< float8_e4m3fn, block
  std::int64_t block_k = 128;
  std::int64_t bits = 4;            ///< gptq
  std::int64_t group_size = 128;    ///< gptq; -1 is the whole row
  bool desc_act = false;            ///< gptq
  bool sym = true;                  ///< gptq
  bool checkpoint_v2 = false;       ///< gptq: "gptq_v2" stores the zero point, "gptq" zero - 1
  friend bool operator==(const QuantConfig&, const QuantConfig&) = default;
};

/// One layer's shape and semantics: every key of docs/golden-format.md. A plain value.
struct AttentionConfig {
  Variant variant = Variant::kAttentionWithRope;
  EntryPoint entry_point = EntryPoint::kForward;
  std::int64_t num_attention_heads = 0;   ///< Hq
  std::int64_t num_key_value_heads = 0;   ///< Hkv
  std::int64_t head_dim = 0;              ///< D, of q and k
  std::int64_t head_dim_v = 0;            ///< of v; equals head_dim except for entry point attention
  std::int64_t hidden_size = 0;           ///< 0 for entry point attention
  ElementType dtype = ElementType::kFloat32;  ///< of the activations: float32, bfloat16, float16
  bool stacked_qkv = false;
  std::optional<double> scale;            ///< absent: 1 / sqrt(head_dim)
  bool has_bias = false;
  std::optional<double> clip_qkv;         ///< bound of the weights; absent or 0: no clipping
  std::optional<double> clip_activations; ///< bound of the q, k, v values
  bool use_qk_norm = false;
  double rms_norm_eps = 1e-6;
  std::int64_t num_devices = 1;
  bool kv_head_replication = false;
  std::optional<double> logit_softcap;
  RopeConfig rope;
  MaskConfig mask;
  KvCacheConfig kv_cache;
  std::optional<QuantConfig> quant;

  bool starts_at_attention() const { return entry_point == EntryPoint::kAttention; }
  std::int64_t group_size() const { return num_attention_heads / num_key_value_heads; }
  std::int64_t rotary_dim() const { return rope.rotary_dim.value_or(head_dim); }
  double softmax_scale() const;
  /// Clip bound of the weights, or nothing when there is none (absent or 0).
  std::optional<double> weight_clip() const;
  std::int64_t q_width() const { return num_attention_heads * head_dim; }
  std::int64_t k_width() const { return num_key_value_heads * head_dim; }
  std::int64_t v_width() const { return num_key_value_heads * head_dim_v; }
  std::int64_t attn_width() const { return num_attention_heads * head_dim_v; }

  friend bool operator==(const AttentionConfig&, const AttentionConfig&) = default;
};

/// Reads the JSON object of docs/golden-format.md. Unknown names, wrong types and every refused
/// combination throw Error(kConfig) with the key, its value, the rule and what to try.
AttentionConfig parse_config(std::string_view json);

/// The same without the table of refused combinations (structure and names are still checked).
AttentionConfig parse_config_unchecked(std::string_view json);

/// The config as canonical JSON (keys sorted, keys that make no sense for the entry point left out);
/// parse_config(to_json(c)) == c.
std::string to_json(const AttentionConfig& config);

/// Throws the first rule of reference/core/rules.h that the config breaks.
void validate(const AttentionConfig& config);

std::string_view name_of(Variant);
std::string_view name_of(EntryPoint);
std::string_view name_of(MaskVariant);
std::string_view name_of(MaskAlign);
std::string_view name_of(RopeScalingType);
std::string_view name_of(QuantEncoding);
std::string_view name_of(WeightGranularity);
std::string_view name_of(ActivationQuant);
std::string_view name_of(ScaleGranularity);

}  // namespace attn
