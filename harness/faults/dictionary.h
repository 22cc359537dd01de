#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "harness/backends/exec_mode.h"
#include "harness/compare/arithmetic.h"
#include "harness/faults/catalogue.h"
#include "harness/faults/faulty_library.h"
#include "reference/core/case.h"
#include "reference/core/trace.h"

namespace attn::harness {

/// A run of the failing backend: what it was given, how, and what it answered. Refers to objects
/// of the caller.
struct Evidence {
  const Case& c;
  const Trace& got;
  Arithmetic arithmetic;  ///< that the backend declares for the config
  ExecMode mode = ExecMode::kPlain;
  const Case* other = nullptr;  ///< of the modes that need one
};

/// A planted bug whose output is like that of the failing backend.
struct Likeness {
  const FaultInfo* fault = nullptr;
  /// Largest difference between the two as a fraction of what a correct answer is allowed to be off
  /// by, over all elements of all stages of all evidence.
  double of_bound = 0.0;
  /// All of the evidence is answered with NaN, and beside it with infinities and zeros alone: many
  /// a mistake does that, and none is told from the others by it.
  bool by_nan_alone = false;
};

/// "query head mapped to kv head by modulo (within 0.3 of the bound)", "... (exactly)", "... (NaN
/// throughout as well, which says little)", and the second after " or " where it is as near; "" for
/// none.
std::string to_string(std::span<const Likeness> likenesses);

/// Finds the known mistake that explains a wrong answer.
class FaultDictionary {
 public:
  /// Null where there is no library of planted bugs.
  static const FaultDictionary* instance();

  /// The faults that answer as the backend does on all of the evidence, within the bound of
  /// `arithmetic`, where the right answer does not: the nearest, and the second where it is as
  /// near. At most two. Those of `without` are left out, as if nobody had thought of them.
  std::vector<Likeness> look_up(std::span<const Evidence> evidence,
                                std::span<const std::string_view> without = {}) const;

  /// Whether some of the faults answers as the backend does on all of the evidence, within the
  /// bound. Of a case that was made smaller: whether it still shows the mistake that the first one
  /// looked like, and not another.
  bool explains(std::span<const Likeness> faults, std::span<const Evidence> evidence) const;

  /// Whether the two faults answer differently, so that a backend's answer to the case would tell
  /// which of them it has.
  bool tells_apart(const Likeness& a, const Likeness& b, const Case& c, ExecMode mode,
                   const Case* other) const;

  /// Whether the fault answers with more than NaN, so that a backend of NaN throughout would be
  /// told from it.
  bool leaves_numbers(const Likeness& likeness, const Case& c, ExecMode mode,
                      const Case* other) const;

  /// How far the fault's output lies from `got`, as Likeness::of_bound; nothing when the fault
  /// makes no difference on any of the evidence.
  std::optional<double> distance(std::string_view fault, std::span<const Evidence> evidence) const;

 private:
  explicit FaultDictionary(const FaultyLibrary& library) : library_(library) {}
  const FaultyLibrary& library_;
};

}  // namespace attn::harness
