#include "harness/backends/cpu/projection.h"

#include <algorithm>
#include <vector>

#include "harness/backends/cpu/linalg.h"
#include "harness/backends/cpu/parallel.h"

namespace attn::harness::cpu {
namespace {

// Weight rows unpacked at a time: small enough to stay in the second-level cache while every row of
// x passes by.
constexpr std::int64_t kPanel = 32;

void clip(float* values, std::int64_t count, double bound) {
  const auto limit = static_cast<float>(bound);
  for (std::int64_t i = 0; i < count; ++i) {
    values[i] = values[i] < -limit ? -limit : (values[i] > limit ? limit : values[i]);
  }
}

}  // namespace

void project(const Rows& x, const Projection& projection, int threads, float* y) {
  const std::int64_t count = projection.count;
  const std::vector<float> bias =
      projection.bias != nullptr ? unpack_vector(*projection.bias) : std::vector<float>{};
  const auto compute_panel = [&](std::int64_t panel) {
    const std::int64_t first = panel * kPanel;
    const std::int64_t columns = std::min(kPanel, count - first);
    Rows w = unpack_rows(*projection.weight, projection.first + first, columns, x.width);
    if (projection.weight_clip) clip(w.row(0), columns * w.stride, *projection.weight_clip);
    for (std::int64_t i = 0; i < x.count; ++i) {
      float* const y_row = y + i * count + first;
      for (std::int64_t j = 0; j < columns; j += 4) {
        float sums[4];
        dot4(x.row(i), w.row(j), w.stride, x.stride, sums);
        std::copy(sums, sums + std::min<std::int64_t>(4, columns - j), y_row + j);
      }
      if (!bias.empty()) {
        for (std::int64_t j = 0; j < columns; ++j) {
          y_row[j] += bias[static_cast<std::size_t>(first + j)];
        }
      }
      if (projection.activation_clip) clip(y_row, columns, *projection.activation_clip);
    }
  };
  const double work = 2.0 * static_cast<double>(x.count) * static_cast<double>(count * x.stride);
  parallel_for((count + kPanel - 1) / kPanel, threads, work, compute_panel);
}

}  // namespace attn::harness::cpu
