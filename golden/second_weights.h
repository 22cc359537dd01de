#pragma once

#include <string>

#include "golden/second_matrix.h"
#include "reference/core/case.h"

namespace attn::golden {

/// The weight that "q_proj", "k_proj", "v_proj" or "o_proj" multiplies by, [out, in]: decoded, its
/// rows cut out of a stacked one, clipped, and requantised where the three share one scale.
Matrix second_weight(const Case& c, const std::string& projection);

/// How that projection's weight is stored.
QuantEncoding second_encoding(const AttentionConfig& config, const std::string& projection);

/// The largest of q's, k's and v's scalar weights "projection.suffix"; for o_proj its own.
Real shared_scale(const Case& c, const std::string& projection, const std::string& suffix);

}  // namespace attn::golden
