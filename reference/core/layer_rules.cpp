#include "reference/core/rules_internal.h"

namespace attn {
namespace {

using Config = AttentionConfig;
using Result = std::optional<Violation>;

bool is_layer(const Config& c) { return !c.starts_at_attention(); }

bool clips_weights(const Config& c) { return c.weight_clip().has_value(); }

bool is_window(MaskVariant mask) {
  return mask == MaskVariant::kSlidingWindowCausal || mask == MaskVariant::kSlidingWindowNoncausal;
}

constexpr const char* kStacked = "a stacked weight has no place for it; set stacked_qkv to false";
constexpr const char* kNoOpaque =
    "variant no_opaque does not have it; leave it out, or use variant attention_with_rope";

// The rules of no_opaque come before the general ones, so that its messages are the ones seen.
constexpr auto kRules = std::to_array<ConfigRule>({
    {"3a", "no_opaque is stacked",
     [](const Config& c) {
       return when(c.variant == Variant::kNoOpaque && !c.stacked_qkv, "stacked_qkv", false,
                   "variant no_opaque has one stacked weight; set stacked_qkv to true");
     }},
    {"3b", "no_opaque is interleaved",
     [](const Config& c) {
       return when(c.variant == Variant::kNoOpaque && !c.rope.interleaved, "rope.interleaved",
                   false, "variant no_opaque rotates interleaved pairs; set it to true");
     }},
    {"3c", "no_opaque has no bias",
     [](const Config& c) {
       return when(c.variant == Variant::kNoOpaque && c.has_bias, "has_bias", true, kNoOpaque);
     }},
    {"3d", "no_opaque clips no weights",
     [](const Config& c) {
       return when(c.variant == Variant::kNoOpaque && clips_weights(c), "clip_qkv",
                   c.clip_qkv.value_or(0.0), kNoOpaque);
     }},
    {"3e", "no_opaque clips no activations",
     [](const Config& c) {
       return when(c.variant == Variant::kNoOpaque && c.clip_activations.has_value(),
                   "clip_activations", c.clip_activations.value_or(0.0), kNoOpaque);
     }},
    {"3f", "no_opaque has no qk-norm",
     [](const Config& c) {
       return when(c.variant == Variant::kNoOpaque && c.use_qk_norm, "use_qk_norm", true,
                   kNoOpaque);
     }},
    {"3g", "no_opaque is not quantised",
     [](const Config& c) {
       return when(c.variant == Variant::kNoOpaque && c.quant.has_value(), "quant.encoding",
                   name_of(c.quant.value_or(QuantConfig{}).q_proj), kNoOpaque);
     }},
    {"1a", "a stacked weight has no bias",
     [](const Config& c) { return when(c.stacked_qkv && c.has_bias, "has_bias", true, kStacked); }},
    {"1b", "a stacked weight is not clipped",
     [](const Config& c) {
       return when(c.stacked_qkv && clips_weights(c), "clip_qkv", c.clip_qkv.value_or(0.0),
                   kStacked);
     }},
    {"1c", "a stacked weight is not quantised",
     [](const Config& c) {
       return when(c.stacked_qkv && c.quant.has_value(), "quant.encoding",
                   name_of(c.quant.value_or(QuantConfig{}).q_proj), kStacked);
     }},
    {"4", "whole groups of query heads",
     [](const Config& c) {
       return when(c.num_attention_heads % c.num_key_value_heads != 0, "num_attention_heads",
                   c.num_attention_heads,
                   "must be a multiple of num_key_value_heads = " + show(c.num_key_value_heads) +
                       "; change one of the two");
     }},
    {"5c", "rotary_dim is at least 2",
     [](const Config& c) {
       return when(is_layer(c) && c.rotary_dim() < 1, "rope.rotary_dim", c.rotary_dim(),
                   "must be positive; leave it out to rotate all of head_dim");
     }},
    {"5a", "rotary_dim is even",
     [](const Config& c) {
       return when(is_layer(c) && c.rotary_dim() % 2 != 0,
                   c.rope.rotary_dim ? "rope.rotary_dim" : "head_dim", c.rotary_dim(),
                   "channels rotate in pairs, so their number must be even; set rope.rotary_dim");
     }},
    {"5b", "rotary_dim fits into head_dim",
     [](const Config& c) {
       return when(is_layer(c) && c.rotary_dim() > c.head_dim, "rope.rotary_dim", c.rotary_dim(),
                   "must not be larger than head_dim = " + show(c.head_dim) +
                       "; leave it out to rotate all of it");
     }},
    {"7a", "a sliding window has a size",
     [](const Config& c) {
       return when(is_window(c.mask.variant) && !c.mask.window_size, "mask.variant",
                   name_of(c.mask.variant), "needs window_size; give the number of visible keys");
     }},
    {"7b", "chunked_causal has a chunk size",
     [](const Config& c) {
       return when(c.mask.variant == MaskVariant::kChunkedCausal && !c.mask.chunk_size,
                   "mask.variant", name_of(c.mask.variant),
                   "needs chunk_size; give the number of keys in a chunk");
     }},
    {"7c", "window_size belongs to a sliding window",
     [](const Config& c) {
       return when(c.mask.window_size && !is_window(c.mask.variant), "mask.window_size",
                   c.mask.window_size.value_or(0),
                   "mask variant " + std::string(name_of(c.mask.variant)) +
                       " has no window; leave it out, or use sliding_window_causal");
     }},
    {"7d", "chunk_size belongs to chunked_causal",
     [](const Config& c) {
       return when(c.mask.chunk_size && c.mask.variant != MaskVariant::kChunkedCausal,
                   "mask.chunk_size", c.mask.chunk_size.value_or(0),
                   "mask variant " + std::string(name_of(c.mask.variant)) +
                       " has no chunks; leave it out, or use chunked_causal");
     }},
    {"7e", "window_size is at least 1",
     [](const Config& c) {
       return when(c.mask.window_size && *c.mask.window_size < 1, "mask.window_size",
                   c.mask.window_size.value_or(0), "a window holds at least 1 key; use 1 or more");
     }},
    {"7f", "chunk_size is at least 1",
     [](const Config& c) {
       return when(c.mask.chunk_size && *c.mask.chunk_size < 1, "mask.chunk_size",
                   c.mask.chunk_size.value_or(0), "a chunk holds at least 1 key; use 1 or more");
     }},
    {"8a", "tensor_parallel has at most a device for each kv head",
     [](const Config& c) {
       return when(c.variant == Variant::kTensorParallel && !c.kv_head_replication &&
                       c.num_devices > c.num_key_value_heads,
                   "num_devices", c.num_devices,
                   "more than num_key_value_heads = " + show(c.num_key_value_heads) +
                       "; use fewer devices, or set kv_head_replication to true");
     }},
    {"8b", "replicated kv heads divide the device count",
     [](const Config& c) {
       return when(c.variant == Variant::kTensorParallel && c.kv_head_replication &&
                       c.num_devices > c.num_key_value_heads &&
                       c.num_devices % c.num_key_value_heads != 0,
                   "num_devices", c.num_devices,
                   "must be a multiple of num_key_value_heads = " + show(c.num_key_value_heads) +
                       " to replicate each as often; use such a device count");
     }},
});

}  // namespace

std::span<const ConfigRule> layer_rules() { return kRules; }

}  // namespace attn
