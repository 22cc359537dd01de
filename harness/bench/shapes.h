#pragma once

#include <string>
#include <vector>

namespace attn::bench {

/// One case that layers are timed at.
struct Shape {
  std::string group;      ///< prefill, decode, layer, store, projection or small
  std::string name;       ///< "decode B1 ctx2048 32/8"
  std::string spec;       ///< JSON that harness::parse_case_spec reads
  bool is_large = false;  ///< takes long to draw and to judge exactly: harness/bench/peers times it
};

/// Those that attn-bench times, then the large ones.
const std::vector<Shape>& shapes();

/// They as a JSON array of {"group", "name", "large", "case"}.
std::string shapes_json(const std::vector<Shape>& listed);

}  // namespace attn::bench
