#include "reference/reference.h"

#include "reference/core/error.h"
#include "reference/layers/layers.h"

namespace attn::reference {
namespace {

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

}  // namespace

std::string unsupported_reason(const AttentionConfig& /*config*/) { return {}; }

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
