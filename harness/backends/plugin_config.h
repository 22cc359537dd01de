#pragma once

#include <string>

#include "harness/backends/attn_plugin.h"
#include "harness/compare/arithmetic.h"
#include "reference/core/case.h"

namespace attn::harness {

/// DLPack's numbers of an element type.
attn_dtype to_dlpack(ElementType type);

/// `fallback` for {0, 0, 0}, which is "not declared". Throws BackendFailure naming `field` for a
/// type that we do not have.
ElementType from_dlpack(attn_dtype dtype, ElementType fallback, const std::string& field);

/// The config as a plug-in sees it. `json` must outlive the result, which points to it.
attn_config to_plugin_config(const AttentionConfig& config, bool has_sinks,
                             const std::string& json);

/// What the bound is computed from. Not declared is float32, but the cache has the config's type.
/// Throws BackendFailure naming a field with an impossible value.
Arithmetic to_arithmetic(const AttentionConfig& config, const attn_capability& capability);

/// How a case's tensors are laid out for a plug-in that declares these ATTN_LAYOUT_...; 0 gets the
/// standard layout. Throws Error(kUnsupported) for what the plug-in does not take.
MemoryLayout taken_layout(const MemoryLayout& wanted, std::uint32_t declared);
/// The same, with what the plug-in does not take left out.
MemoryLayout reduced_layout(MemoryLayout wanted, std::uint32_t declared);

}  // namespace attn::harness
