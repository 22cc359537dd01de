#include "reference/reference.h"

#include <string_view>

#include "reference/core/error.h"
#include "reference/layers/layers.h"

namespace attn::reference {
namespace {

bool is_8_bit(ElementType type) { return element_size(type) == 1; }

void require_supported(const AttentionConfig& config) {
  const std::string reason = unsupported_reason(config);
  if (!reason.empty()) {
    throw Error(ErrorKind::kUnsupported, reason);
  }
}

void require_entry_point(const Case& c, EntryPoint wanted) {
  require_supported(c.config);
  if (c.config.entry_point != wanted) {
    throw Error(ErrorKind::kUsage,
                "entry_point: the case starts at \"" + std::string(name_of(c.config.entry_point)) +
                    "\", not at \"" + std::string(name_of(wanted)) + "\"; call evaluate",
                "entry_point");
  }
}

std::string not_evaluated_yet(std::string_view what) {
  return std::string(what) + " not evaluated yet";
}

}  // namespace

std::string unsupported_reason(const AttentionConfig& config) {
  if (config.quant) {
    for (const QuantEncoding encoding :
         {config.quant->q_proj, config.quant->k_proj, config.quant->v_proj, config.quant->o_proj}) {
      if (encoding != QuantEncoding::kNone) {
        return not_evaluated_yet(std::string(name_of(encoding)) + " weights are");
      }
    }
  }
  if (is_8_bit(config.kv_cache.dtype)) {
    return not_evaluated_yet("a " + std::string(element_name(config.kv_cache.dtype)) +
                             " key-value cache is");
  }
  return {};
}

Trace forward(const Case& c, Mode mode) {
  require_entry_point(c, EntryPoint::kForward);
  switch (c.config.variant) {
    case Variant::kNoOpaque:
      return no_opaque(c, mode);
    case Variant::kTensorParallel:
      return tensor_parallel(c, mode);
    case Variant::kDataParallel:
      return data_parallel(c, mode);
    case Variant::kAttentionWithRope:
    case Variant::kGguf:
    case Variant::kGptq:
    case Variant::kAttention:
      return attention_with_rope(c, mode);
  }
  throw Error(ErrorKind::kInternal, "variant: no layer for it", "variant");
}

Trace materialize_kv_from_hidden(const Case& c, Mode mode) {
  require_entry_point(c, EntryPoint::kMaterializeKvFromHidden);
  switch (c.config.variant) {
    case Variant::kNoOpaque:
      return no_opaque(c, mode);
    case Variant::kTensorParallel:
      return tensor_parallel(c, mode);
    case Variant::kDataParallel:
      return data_parallel(c, mode);
    default:
      return materialize(c, mode);
  }
}

Trace attention(const Case& c, Mode mode) {
  require_entry_point(c, EntryPoint::kAttention);
  return attention_core(c, mode);
}

Trace evaluate(const Case& c, Mode mode) {
  switch (c.config.entry_point) {
    case EntryPoint::kForward:
      return forward(c, mode);
    case EntryPoint::kMaterializeKvFromHidden:
      return materialize_kv_from_hidden(c, mode);
    case EntryPoint::kAttention:
      return attention(c, mode);
  }
  throw Error(ErrorKind::kInternal, "entry_point: nothing evaluates it", "entry_point");
}

}  // namespace attn::reference
