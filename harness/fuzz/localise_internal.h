#pragma once

#include "harness/fuzz/construct.h"

namespace attn::harness {

/// The first bad stage of failing cases of entry point attention.
Localised localise_attention(const Constructs& attention);
/// The same of entry point forward; `attention`: the attention of these layers on its own.
Localised localise_layer(const Constructs& layer, const Constructs& attention);
/// The same of entry point materialize_kv_from_hidden.
Localised localise_cache(const Constructs& cache);

}  // namespace attn::harness
