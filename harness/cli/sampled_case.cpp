#include "harness/cli/sampled_case.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "harness/compare/rows.h"
#include "harness/report/format.h"
#include "reference/core/error.h"
#include "reference/stages/mask.h"

namespace attn::cli {
namespace {

/// Multiplications of the float64 evaluations that are done without asking; some seconds.
constexpr double kManyProducts = 0x1p32;

Tensor take_rows(const Tensor& t, const std::vector<std::int64_t>& rows) {
  Shape shape = t.shape();
  const std::size_t bytes = t.bytes().size() / static_cast<std::size_t>(shape[0]);
  shape[0] = static_cast<std::int64_t>(rows.size());
  Tensor out(t.type(), shape);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(out.data() + i * bytes, t.data() + static_cast<std::size_t>(rows[i]) * bytes,
                bytes);
  }
  return out;
}

/// 0 or what the case's own mask tensor adds where row `row` of sequence b sees a key, else -inf.
void set_mask_row(const Case& c, std::int64_t b, std::int64_t row, std::int64_t to, Tensor& mask) {
  const reference::RowMask seen = reference::row_mask(c, b, row);
  const std::int64_t width = mask.dim(1);
  for (std::int64_t key = 0; key < width; ++key) {
    double value = -std::numeric_limits<double>::infinity();
    if (key < c.key_count(b) && seen.sees(key)) {
      value = c.mask.empty() ? 0.0 : c.mask.value(row * c.mask.dim(1) + key);
    }
    mask.set_value(to * width + key, value);
  }
}

}  // namespace

bool is_large(const Case& c) {
  double products = 0;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    products += static_cast<double>(c.row_count(b)) * static_cast<double>(c.key_count(b));
  }
  const AttentionConfig& config = c.config;
  return products * static_cast<double>(config.num_attention_heads) *
             static_cast<double>(config.head_dim + config.head_dim_v) >
         kManyProducts;
}

SampledCase sample_rows(const Case& c, const harness::RowSelection& selection, std::int64_t block) {
  SampledCase sampled;
  sampled.rows = harness::select_rows(c, selection, block);
  if (sampled.rows.empty()) throw Error(ErrorKind::kUsage, "--rows: no row is left", "--rows");
  const auto kept = static_cast<std::int64_t>(sampled.rows.size());
  std::int64_t longest = 0;
  for (std::int64_t b = 0; b < c.batch(); ++b) longest = std::max(longest, c.key_count(b));

  sampled.c = c;
  Case& out = sampled.c;
  out.config.mask = {};
  out.config.mask.variant = MaskVariant::kTensor;
  out.q = take_rows(c.q, sampled.rows);
  out.mask = Tensor(ElementType::kFloat32, {kept, longest});
  out.input_row_offsets = Tensor(ElementType::kUInt32, {c.batch() + 1});
  std::int64_t to = 0;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    const std::int64_t end = c.row_begin(b) + c.row_count(b);
    for (; to < kept && sampled.rows[static_cast<std::size_t>(to)] < end; ++to) {
      set_mask_row(c, b, sampled.rows[static_cast<std::size_t>(to)], to, out.mask);
    }
    out.input_row_offsets.as<std::uint32_t>()[b + 1] = static_cast<std::uint32_t>(to);
  }
  sampled.note = "the file holds " + harness::format_count(kept) + " of " +
                 harness::format_count(c.tokens()) +
                 " query rows, what each sees as a mask tensor; --rows all keeps every row";
  return sampled;
}

}  // namespace attn::cli
