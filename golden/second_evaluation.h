#pragma once

#include "reference/core/case.h"
#include "reference/core/trace.h"

namespace attn::golden {

/// The second opinion a golden file needs before it is sealed: naive long-double loops written from
/// docs/golden-format.md alone, sharing neither stage nor decoder with reference/ (it includes only
/// reference/core, and of that the codecs of single elements). Covers every config. Returns every
/// stage of the case as float64 tensors.
Trace evaluate_second(const Case& c);

/// The same to compare with `first`. A value that lies on a tie between two codes may become either
/// when it is off by its last bit, and both are right: x = max|x| / 2 is 63.5 in int8 codes. So the
/// new rows of the cache and the input of o_proj are rounded from first's values, each where the
/// two evaluations agree about the stage before.
Trace evaluate_second(const Case& c, const Trace& first);

/// Largest difference of any stage between the two, as a fraction of that stage's largest
/// magnitude.
struct Agreement {
  double worst = 0.0;
  Stage stage = Stage::kOut;
  bool agreed(double tolerance = 1e-11) const { return worst <= tolerance; }
};
Agreement agree(const Trace& first, const Trace& second);

}  // namespace attn::golden
