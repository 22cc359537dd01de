#pragma once

#include <span>

#include "harness/backends/backend.h"

namespace attn::harness {

/// Runs a case in a mode: as the backend itself arranges it, else by calls of run(). `other` is a
/// case of the same config, for the modes that need one. Throws what run() throws;
/// Error(kUnsupported) for a mode that the backend cannot run; BackendFailure(kFailed) when a
/// backend that declares itself deterministic answers two equal calls differently.
Trace execute(const Backend& backend, ExecMode mode, const Case& c, const Case* other,
              std::span<const Stage> wanted);

/// Fills with NaN what the next call on this thread is likely to find in memory that it does not
/// clear: free blocks of the heap and the stack below.
void dirty_free_memory();

/// The case with NaN for every value of its inputs and its cache: run before another, it leaves NaN
/// in whatever the backend keeps.
Case with_nan_inputs(const Case& c);

/// The first stage whose bits differ, "" for none.
std::string first_difference(const Trace& a, const Trace& b);

}  // namespace attn::harness
