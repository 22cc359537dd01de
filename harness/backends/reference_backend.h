#pragma once

#include <memory>

#include "harness/backends/backend.h"
#include "reference/reference.h"

namespace attn::harness {

/// The reference as a backend: "exact" or "faithful".
std::unique_ptr<Backend> make_reference_backend(reference::Mode mode);

}  // namespace attn::harness
