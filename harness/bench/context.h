#pragma once

#include <string>

#include "harness/bench/shapes.h"

namespace attn::bench {

/// Adds to the context of Google Benchmark's report what `attn-compare history import` keeps of a
/// run: program, cpu, compiler, build_type, commit, and where `on_device` gpu, gpu_count, driver,
/// cuda and clocks.
void add_run_context(const std::string& program, bool on_device);

/// Adds the sizes of a shape under "parameters NAME": the columns of docs/history.md, as
/// harness/bench/peers writes them. Rows of unequal lengths have none.
void add_shape_context(const Shape& shape);

/// The JSON of it.
std::string shape_parameters(const Shape& shape);

}  // namespace attn::bench
