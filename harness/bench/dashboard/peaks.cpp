#include "harness/bench/dashboard/peaks.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace attn::dashboard {
namespace {

struct Device {
  const char* name;  ///< how the name begins, as the driver says it
  double tflops;     ///< bfloat16 and float16 on the matrix units, dense
  double gbps;
};

// Ordered so that a longer name comes before its prefix.
constexpr Device kDevices[] = {
    {"NVIDIA H200 NVL", 835.5, 4800.0},       {"NVIDIA H200", 989.5, 4800.0},
    {"NVIDIA H100 PCIe", 756.0, 2000.0},      {"NVIDIA H100 80GB HBM3", 989.5, 3350.0},
    {"NVIDIA A100-SXM4-80GB", 312.0, 2039.0}, {"NVIDIA A100-SXM4-40GB", 312.0, 1555.0},
};

bool is_fp8(const history::Benchmark& b) {
  return b.dtype.find("float8") != std::string::npos ||
         b.weights.find("float8") != std::string::npos ||
         b.weights.find("fp8") != std::string::npos;
}

}  // namespace

Peak peak_of(const std::string& gpu, const history::Benchmark& benchmark) {
  for (const Device& device : kDevices) {
    if (gpu.rfind(device.name, 0) != 0) continue;
    const bool is_hopper = device.tflops > 700.0;
    // float32 is not judged: which of the units a kernel may use is a matter of its arithmetic.
    const double factor = benchmark.dtype == "float32"     ? 0.0
                          : is_hopper && is_fp8(benchmark) ? 2.0
                                                           : 1.0;
    return {factor * device.tflops, device.gbps};
  }
  return {};
}

double roofline_of(const Peak& peak, double tflops, double gbps) {
  double fraction = std::numeric_limits<double>::quiet_NaN();
  if (peak.tflops > 0.0 && std::isfinite(tflops)) fraction = tflops / peak.tflops;
  if (peak.gbps > 0.0 && std::isfinite(gbps)) fraction = std::fmax(fraction, gbps / peak.gbps);
  return fraction;
}

}  // namespace attn::dashboard
