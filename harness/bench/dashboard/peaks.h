#pragma once

#include <string>

#include "harness/bench/history/records.h"

namespace attn::dashboard {

/// What a device does at most, per second.
struct Peak {
  double tflops = 0.0;  ///< of matrix products in the benchmark's type, dense; 0: not known
  double gbps = 0.0;    ///< of its memory
};

/// From the makers' data sheets; docs/dashboard.md names them. Zeros for other devices.
Peak peak_of(const std::string& gpu, const history::Benchmark& benchmark);

/// The larger of both fractions; NaN when the peak or the rates are not known.
double roofline_of(const Peak& peak, double tflops, double gbps);

}  // namespace attn::dashboard
