#pragma once

#include <string>
#include <vector>

#include "harness/bench/shapes.h"

namespace attn::bench {

/// The rows of the speed goals that shapes() does not have: group "targets".
std::vector<Shape> target_shapes();

/// Layers of public models, group "models": of each case file of `folder` (data/models) that says
/// no lengths a prefill of 512 tokens and a decode step at 2,048, of one with lengths those.
/// Throws Error(kUsage) for a folder that has none.
std::vector<Shape> model_shapes(const std::string& folder);

}  // namespace attn::bench
