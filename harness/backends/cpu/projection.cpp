#include "harness/backends/cpu/projection.h"

#include <algorithm>
#include <vector>

#include "harness/backends/cpu/clip.h"
#include "harness/backends/cpu/fault_switch.h"
#include "harness/backends/cpu/linalg.h"
#include "harness/backends/cpu/parallel.h"

namespace attn::harness::cpu {
namespace {

// Weight rows decoded at a time: few enough to stay in the second-level cache while every row of x
// passes by; 16 words of a GPTQ weight are a cache line.
constexpr std::int64_t kPanel = 16;
// Panels that share a buffer: clearing one for each would cost as much as decoding bfloat16.
constexpr std::int64_t kPanelsPerTask = 4;

/// y[i, first ..] for the rows of w, which are rows first .. of the projection.
void multiply_panel(const Rows& x, const Projection& projection, const Rows& w, std::int64_t first,
                    const std::vector<float>& bias, float* y) {
  for (std::int64_t i = 0; i < x.count; ++i) {
    float* const y_row = y + i * projection.rows.count + first;
    for (std::int64_t j = 0; j < w.count; j += 4) {
      float sums[4];
      dot4(x.row(i), w.row(j), w.stride, x.stride, sums);
      std::copy(sums, sums + std::min<std::int64_t>(4, w.count - j), y_row + j);
    }
    if (ATTN_FAULT(clip_activations_before_bias, projection.activation_clip && !bias.empty())) {
      clip(y_row, w.count, *projection.activation_clip);
    }
    if (!bias.empty()) {
      const float* panel_bias = bias.data() + projection.rows.first + first;
      if (ATTN_FAULT(tp_bias_of_first_heads, projection.rows.first != 0))
        panel_bias = bias.data() + first;
      for (std::int64_t j = 0; j < w.count; ++j) y_row[j] += panel_bias[j];
    }
    if (projection.activation_clip && !ATTN_FAULT(clip_activations_before_bias, !bias.empty())) {
      clip(y_row, w.count, *projection.activation_clip);
    }
  }
}

void copy_columns(const Rows& from, std::int64_t first_column, Rows& to) {
  to.count = from.count;
  for (std::int64_t i = 0; i < to.count; ++i) {
    const float* const source = from.row(i) + first_column;
    std::copy(source, source + to.width, to.row(i));
  }
}

}  // namespace

void project(const Rows& x, const Projection& projection, int threads, float* y) {
  const std::int64_t count = projection.rows.count;
  const std::vector<float> bias =
      projection.bias != nullptr ? unpack_vector(*projection.bias) : std::vector<float>{};
  const bool whole_rows = x.width == projection.weight_width;
  const auto compute_panels = [&](std::int64_t task) {
    const std::int64_t begin = task * kPanel * kPanelsPerTask;
    const std::int64_t end = std::min(count, begin + kPanel * kPanelsPerTask);
    Rows w(std::min(kPanel, end - begin), projection.weight_width);
    Rows slice(whole_rows ? 0 : w.count, x.width);
    for (std::int64_t first = begin; first < end; first += kPanel) {
      w.count = std::min(kPanel, end - first);
      projection.weight->decode(projection.rows.first + first, w);
      if (!whole_rows) copy_columns(w, projection.first_column, slice);
      multiply_panel(x, projection, whole_rows ? w : slice, first, bias, y);
    }
  };
  const double work = 2.0 * static_cast<double>(x.count) * static_cast<double>(count * x.stride);
  const std::int64_t per_task = kPanel * kPanelsPerTask;
  parallel_for((count + per_task - 1) / per_task, threads, work, compute_panels);
}

}  // namespace attn::harness::cpu
