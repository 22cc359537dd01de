#include <algorithm>

#include "reference/core/quant_internal.h"
#include "reference/core/rules_internal.h"

namespace attn {
namespace {

using Config = AttentionConfig;
using Result = std::optional<Violation>;

bool encodes(const Config& c, QuantEncoding encoding) {
  return std::ranges::any_of(projections_of(c),
                             [&](const Projection& p) { return p.encoding == encoding; });
}

bool uses_gguf(const Config& c) {
  return std::ranges::any_of(projections_of(c),
                             [](const Projection& p) { return is_gguf(p.encoding); });
}

bool is_fp8(const Config& c) { return encodes(c, QuantEncoding::kFloat8E4M3FN); }

bool clips_weights(const Config& c) { return c.weight_clip().has_value(); }

Result encodings_go_together(const Config& c) {
  if (!c.quant) return std::nullopt;
  for (const Projection& p : projections_of(c)) {
    const bool known = p.encoding != QuantEncoding::kNone &&
                       (is_gguf(p.encoding) || p.encoding == c.quant->q_proj);
    if (!known || is_gguf(p.encoding) != is_gguf(c.quant->q_proj)) {
      return when(true, "quant.encoding." + std::string(p.name), name_of(p.encoding),
                  "encodings may differ between projections only among q4_0, q8_0, q4_k, q5_k and "
                  "q6_k; use one for all four, or quant null for none");
    }
  }
  return std::nullopt;
}

Result activation_is_known(const Config& c) {
  if (!c.quant) return std::nullopt;
  using enum ActivationQuant;
  const QuantEncoding encoding = c.quant->q_proj;
  const ActivationQuant activation = c.quant->activation;
  std::string known = "none";
  bool found = activation == kNone;
  if (encoding == QuantEncoding::kFloat8E4M3FN) {
    known += ", static, token, block";
    found = found || activation != kInt8;
  } else if (is_gguf(encoding)) {
    known += ", int8";
    found = found || activation == kInt8;
  } else if (encoding != QuantEncoding::kGptq) {
    known += ", block";
    found = found || activation == kBlock;
  }
  return when(
      !found, "quant.activation", name_of(activation),
      "not one of the activations of " + std::string(name_of(encoding)) + "; known: " + known);
}

Result gguf_blocks_fit(const Config& c) {
  for (const Projection& p : projections_of(c)) {
    const std::int64_t block = gguf_block(p.encoding).elements;
    if (p.in % block != 0) {
      return when(true, p.name == "o_proj" ? "num_attention_heads * head_dim" : "hidden_size", p.in,
                  "the input of " + std::string(p.name) + " must be a multiple of the " +
                      show(block) + " columns of a " + std::string(name_of(p.encoding)) +
                      " block; use such a width or another encoding");
    }
  }
  return std::nullopt;
}

/// Rules 12: the input of each projection in whole blocks of one scale.
Result scale_blocks_fit(const Config& c, QuantEncoding encoding) {
  for (const Projection& p : projections_of(c)) {
    if (p.encoding == encoding && p.in % scale_block(encoding) != 0) {
      return when(true, p.name == "o_proj" ? "num_attention_heads * head_dim" : "hidden_size", p.in,
                  "the input of " + std::string(p.name) + " must be a multiple of the " +
                      show(scale_block(encoding)) + " columns of a " +
                      std::string(name_of(encoding)) + " block; use such a width");
    }
  }
  return std::nullopt;
}

Result gptq_groups_fit(const Config& c) {
  if (!encodes(c, QuantEncoding::kGptq) || c.quant->group_size == -1) return std::nullopt;
  const std::int64_t group = c.quant->group_size;
  for (const Projection& p : projections_of(c)) {
    if (group < 1 || p.in % group != 0) {
      return when(true, "quant.group_size", group,
                  "must divide the input of " + std::string(p.name) + ", " + show(p.in) +
                      "; use a divisor, or -1 for one group over the whole row");
    }
  }
  return std::nullopt;
}

Result fp8_block_heights_fit(const Config& c) {
  if (!is_fp8(c) || c.quant->weight_granularity != WeightGranularity::kBlock) return std::nullopt;
  for (const Projection& p : projections_of(c)) {
    if (p.name != "o_proj" && p.out % c.quant->block_n != 0) {
      return when(true, "quant.block[0]", c.quant->block_n,
                  "must divide the rows of " + std::string(p.name) + ", " + show(p.out) +
                      ", or the stacked scales would be misaligned; use a divisor");
    }
  }
  return std::nullopt;
}

constexpr const char* kNoClip =
    "clipping would act on codes, not on weights; leave clip_qkv out, or clip before quantising";

Result clip_with(const Config& c, QuantEncoding encoding) {
  return when(clips_weights(c) && encodes(c, encoding), "clip_qkv", c.clip_qkv.value_or(0.0),
              "with encoding " + std::string(name_of(encoding)) + " " + kNoClip);
}

constexpr auto kRules = std::to_array<ConfigRule>({
    {"13o", "encodings go together", encodings_go_together},
    {"13n", "the activation belongs to the encoding", activation_is_known},
    // The GGUF layer refuses every clip_qkv that is given, 0 included.
    {"2a", "gguf weights are not clipped",
     [](const Config& c) {
       return when(c.clip_qkv && (c.variant == Variant::kGguf || uses_gguf(c)), "clip_qkv",
                   c.clip_qkv.value_or(0.0), std::string("with gguf weights ") + kNoClip);
     }},
    {"2b", "gptq weights are not clipped",
     [](const Config& c) { return clip_with(c, QuantEncoding::kGptq); }},
    {"2c", "nvfp4 weights are not clipped",
     [](const Config& c) { return clip_with(c, QuantEncoding::kNvfp4); }},
    {"2d", "mxfp4 weights are not clipped",
     [](const Config& c) { return clip_with(c, QuantEncoding::kMxfp4); }},
    {"2e", "mxfp8 weights are not clipped",
     [](const Config& c) { return clip_with(c, QuantEncoding::kMxfp8); }},
    {"9a", "gguf activations are float32",
     [](const Config& c) {
       return when(
           (c.variant == Variant::kGguf || uses_gguf(c)) && c.dtype != ElementType::kFloat32,
           "dtype", element_name(c.dtype), "the gguf layer runs in float32; use float32");
     }},
    {"9b", "gguf rows are whole blocks", gguf_blocks_fit},
    {"10a", "gptq has 4 or 8 bits",
     [](const Config& c) {
       return when(encodes(c, QuantEncoding::kGptq) && c.quant->bits != 4 && c.quant->bits != 8,
                   "quant.bits", c.quant.value_or(QuantConfig{}).bits,
                   "gptq codes have 4 or 8 bits; use 4 or 8");
     }},
    {"10b", "gptq groups divide the input", gptq_groups_fit},
    {"10c", "gptq is symmetric",
     [](const Config& c) {
       return when(encodes(c, QuantEncoding::kGptq) && !c.quant->sym, "quant.sym", false,
                   "only symmetric codes are decoded; quantise with sym true");
     }},
    {"11a", "static activations have no row-wise weights",
     [](const Config& c) {
       return when(
           is_fp8(c) && c.quant->activation == ActivationQuant::kStatic &&
               c.quant->weight_granularity == WeightGranularity::kRowwise,
           "quant.weight_granularity", "rowwise",
           "static activations need weight_granularity tensor; use it, or activation token");
     }},
    {"11b", "static activations have no block weights",
     [](const Config& c) {
       return when(
           is_fp8(c) && c.quant->activation == ActivationQuant::kStatic &&
               c.quant->weight_granularity == WeightGranularity::kBlock,
           "quant.weight_granularity", "block",
           "static activations need weight_granularity tensor; use it, or activation block");
     }},
    {"11e", "blocks are 1 to 2^20 wide and high",
     [](const Config& c) {
       const QuantConfig q = c.quant.value_or(QuantConfig{});
       constexpr std::int64_t kLargest = std::int64_t{1} << 20;
       const bool rows_fit = q.block_n >= 1 && q.block_n <= kLargest;
       const bool columns_fit = q.block_k >= 1 && q.block_k <= kLargest;
       return when(is_fp8(c) && !(rows_fit && columns_fit),
                   rows_fit ? "quant.block[1]" : "quant.block[0]", rows_fit ? q.block_k : q.block_n,
                   "a block has at least 1 and at most 2^20 rows and columns; use [128, 128]");
     }},
    {"11c", "fp8 blocks divide the heights of q, k and v", fp8_block_heights_fit},
    {"11f", "block activations are 128 wide",
     [](const Config& c) {
       const QuantConfig q = c.quant.value_or(QuantConfig{});
       return when(is_fp8(c) && q.activation == ActivationQuant::kBlock && q.block_k != 128,
                   "quant.block[1]", q.block_k,
                   "activations are quantised by 128 columns, and a weight block is as wide; use "
                   "128");
     }},
    {"12a", "nvfp4 rows are whole blocks",
     [](const Config& c) { return scale_blocks_fit(c, QuantEncoding::kNvfp4); }},
    {"12b", "mxfp4 rows are whole blocks",
     [](const Config& c) { return scale_blocks_fit(c, QuantEncoding::kMxfp4); }},
    {"12c", "mxfp8 rows are whole blocks",
     [](const Config& c) { return scale_blocks_fit(c, QuantEncoding::kMxfp8); }},
});

}  // namespace

std::span<const ConfigRule> quant_rules() { return kRules; }

}  // namespace attn
