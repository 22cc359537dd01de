#pragma once

#include <string>

#include "harness/bench/history/records.h"

namespace attn::history {

/// Fills in what a benchmark's name says: backend ("NAME | BACKEND"), and by the names of
/// attn-bench and the peers ("decode B1 ctx2048 32/8 D64") kind and sizes. Names of other programs
/// are kept as they are, with the arguments after their slashes as parameters ("arg0", or "rows:8"
/// by name).
void read_name(Benchmark& benchmark, const std::string& name);

/// Sets one parameter by its column's name ("batch", "dtype"); one without a column is kept under
/// its own name. False when a number is wanted and `value` is none.
bool set_parameter(Benchmark& benchmark, const std::string& name, const std::string& value);

/// Fills in shape and is_peer, the last step. The shape leaves out who does the work and where the
/// cache's pages lie.
void settle(Benchmark& benchmark);

/// Program, name, backend, timer and parameters as one text: equal texts are one series.
std::string identity_of(const Benchmark& benchmark);
std::string identity_of(const Machine& machine);

}  // namespace attn::history
