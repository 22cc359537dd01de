#pragma once

#include "harness/fuzz/construct.h"

namespace attn::harness {

/// How the probabilities of a kernel are wrong, as its outputs over identity values show them.
enum class ProbabilityError {
  kUnknown,    ///< nothing could be run
  kNone,       ///< all within their bound
  kScaled,     ///< every wrong row is the right one times a factor: the denominator
  kMassKept,   ///< the wrong rows sum to what they should: other scores, or other keys seen
  kMoved,      ///< the right rows, in other places
  kNotFinite,  ///< NaN or infinity
  kOther,      ///< sums that are off, as no softmax makes them
};

/// Reads the probabilities of the constructed cases of attention and holds them against the exact
/// ones: the strangest error of any row of any of them, in the order of the enumeration, as one
/// mistake may look plain where there is little to see. `normalised`: rows are divided by their
/// sums first, so that a factor of the values does not count.
ProbabilityError read_probabilities(const Constructs& constructs, const Construct& construct,
                                    bool normalised);

}  // namespace attn::harness
