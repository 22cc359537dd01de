#include "harness/backends/plugin_outputs.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>
#include <vector>

#include "harness/backends/backend_failure.h"
#include "harness/backends/guarded_memory.h"
#include "reference/stages/mask.h"

namespace attn::harness {
namespace {

/// Rows that see no key, [tokens].
std::vector<bool> empty_rows(const Case& c) {
  std::vector<bool> empty(static_cast<std::size_t>(c.tokens()));
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t i = 0; i < c.row_count(b); ++i) {
      const std::int64_t row = c.row_begin(b) + i;
      const reference::RowMask mask = reference::row_mask(c, b, row);
      std::int64_t key = mask.begin;
      while (key < mask.end && !mask.sees(key)) ++key;
      empty[static_cast<std::size_t>(row)] = key >= mask.end;
    }
  }
  return empty;
}

bool is_poison(const Tensor& tensor, std::int64_t i) {
  const std::size_t width = element_size(tensor.type());
  const auto bytes = tensor.bytes().subspan(static_cast<std::size_t>(i) * width, width);
  return std::ranges::all_of(bytes, [](std::byte b) { return b == kPoison; });
}

/// Holds rows that see nothing against the declaration and puts the exact values in their place.
void settle_empty_row(const Case& c, std::int64_t row, std::int32_t declared, Stage stage,
                      Tensor& tensor) {
  const std::int64_t width = tensor.size() / tensor.dim(0);
  for (std::int64_t i = row * width; i < (row + 1) * width; ++i) {
    const std::string where =
        std::string(name_of(stage)) + " of row " + std::to_string(row) + ", which sees no key, ";
    if (declared == ATTN_EMPTY_ROWS_UNTOUCHED && !is_poison(tensor, i)) {
      throw BackendFailure(Status::kFailed, where + "was written; declared: untouched");
    }
    if (declared == ATTN_EMPTY_ROWS_FINITE && stage == Stage::kAttnOut &&
        !std::isfinite(tensor.value(i))) {
      throw BackendFailure(Status::kFailed, where + "is not finite; declared: finite");
    }
    double exact = 0.0;
    if (stage == Stage::kLse) {
      exact = c.has_sinks() ? c.weights.at("sinks").value(i - row * width)
                            : -std::numeric_limits<double>::infinity();
    }
    tensor.set_value(i, exact);
  }
}

void settle_empty_rows(const Case& c, std::int32_t declared, Stage stage, Tensor& tensor) {
  const std::vector<bool> empty = empty_rows(c);
  for (std::int64_t row = 0; row < c.tokens(); ++row) {
    if (empty[static_cast<std::size_t>(row)]) settle_empty_row(c, row, declared, stage, tensor);
  }
}

void require_written(Stage stage, const Tensor& tensor) {
  std::int64_t unwritten = 0, first = -1;
  for (std::int64_t i = 0; i < tensor.size(); ++i) {
    if (!is_poison(tensor, i)) continue;
    if (unwritten++ == 0) first = i;
  }
  if (unwritten == 0) return;
  const std::int64_t width = tensor.size() / tensor.dim(0);
  throw BackendFailure(
      Status::kFailed,
      std::string(name_of(stage)) + ": " + std::to_string(unwritten) + " of " +
          std::to_string(tensor.size()) + " elements were never written, the first in row " +
          std::to_string(first / width) + ", column " + std::to_string(first % width));
}

/// lse in natural logarithms, from base 2.
Tensor to_natural(const Tensor& lse) {
  std::vector<double> values = lse.values();
  for (double& value : values) value *= std::numbers::ln2;
  return Tensor::from_values(ElementType::kFloat64, lse.shape(), values);
}

}  // namespace

void settle_outputs(const Case& c, const attn_capability& capability, Trace& trace) {
  for (const Stage stage : all_stages()) {
    Tensor& tensor = trace[stage];
    if (tensor.empty() || trace.is_given(stage)) continue;
    const bool of_attention = stage == Stage::kLse || stage == Stage::kAttnOut;
    if (of_attention && capability.empty_rows != ATTN_EMPTY_ROWS_EXACT) {
      settle_empty_rows(c, capability.empty_rows, stage, tensor);
    }
    require_written(stage, tensor);
    if (stage == Stage::kLse && capability.lse_base == ATTN_LSE_BASE_2) tensor = to_natural(tensor);
  }
}

}  // namespace attn::harness
