#pragma once

#include <memory>
#include <string>

#include "harness/backends/attn_plugin.h"
#include "harness/backends/backend.h"

namespace attn::harness {

/// A plug-in of the interface attn_plugin.h, run in this process: what it does wrong may end it.
/// The spec is "PATH" or "PATH:OPTIONS". Every case is run twice, once with pages that cannot be
/// accessed right after each tensor and once right before, the second time with read-only inputs.
/// A case that starts at the hidden states is fed with the exact reference's queries and cache, so
/// that an attention kernel is tested in every layer. Throws Error(kUsage) for a library that is no
/// plug-in; run throws BackendFailure when the plug-in breaks a rule of the interface.
std::unique_ptr<Backend> make_plugin_backend(const std::string& spec);

/// The same of a plug-in that is in this process already and outlives the backend: how languages
/// that call us, rather than being loaded, offer one. `name` stands for its path in messages.
std::unique_ptr<Backend> make_plugin_backend(const std::string& name, const attn_plugin* plugin,
                                             const std::string& options);

}  // namespace attn::harness
