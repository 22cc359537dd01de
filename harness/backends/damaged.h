#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "harness/backends/backend.h"

namespace attn::harness {

/// One planted mistake in the output of one stage. It is small on purpose: a harness that lets it
/// pass would let a real bug of that size pass.
struct Damage {
  enum class Kind {
    kScale,      ///< every element times `factor`, rounded to the stage's type
    kRowShift,   ///< row `row` gets the values of the row before it (row 0: of the row after it)
    kSwapHeads,  ///< heads `head` and `head` + 1 change places in every row
    kBatchUlp,   ///< in a batch the first element moves by its last bit: within every bound
  };
  Stage stage = Stage::kAttnOut;
  Kind kind = Kind::kScale;
  double factor = 1.0005;
  std::int64_t row = -1;   ///< -1: the middle row
  std::int64_t head = -1;  ///< -1: the first pair of neighbours that differ
};

/// Damages `trace` in place. False when the trace lacks the stage or nothing changed: the rows or
/// heads are equal, or there is only one.
bool apply_damage(const Case& c, const Damage& damage, Trace& trace);

/// Runs `inner` and damages its trace. Support and declared arithmetic stay those of `inner`.
std::unique_ptr<Backend> make_damaged_backend(std::unique_ptr<Backend> inner, const Damage& damage);

/// The same from a backend spec: "damaged:INNER,stage=S,factor=1.0005",
/// "damaged:INNER,stage=S,row_shift", "damaged:INNER,stage=S,swap_heads"; `row_shift=R` and
/// `swap_heads=H` choose where. `options` is what follows "damaged:"; words that are not ours
/// belong to INNER, which may be any spec of make_backend. Throws Error(kUsage).
std::unique_ptr<Backend> make_damaged_backend(std::string_view options);

}  // namespace attn::harness
