#include <cmath>
#include <limits>

#include "golden/second_evaluation.h"

namespace attn::golden {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// The table is rounded to float32, once on each side. Before that rounding the two differ by the
/// angle's own error: in double, two roundings of an angle of at most p radians and one each of
/// cosine and factor, 2^-50 * (1 + p) with room. Where that crosses a float32 rounding boundary the
/// results differ by one step, 2^-23 of the value.
bool same_table_entry(double a, double b, std::int64_t position) {
  const double step = std::ldexp(std::fmax(std::fabs(a), std::fabs(b)), -23);
  return std::fabs(a - b) <= step + std::ldexp(1.0 + static_cast<double>(position), -50);
}

double difference(Stage stage, const Tensor& first, const Tensor& second) {
  if (first.shape() != second.shape()) return kInfinity;
  const std::int64_t columns = first.shape().empty() ? 1 : first.shape().back();
  double largest = 0.0;
  double worst = 0.0;
  for (std::int64_t i = 0; i < first.size(); ++i) {
    const double a = first.value(i);
    const double b = second.value(i);
    if (std::isfinite(a)) largest = std::fmax(largest, std::fabs(a));
    if (a == b || (std::isnan(a) && std::isnan(b))) continue;
    if (!std::isfinite(a) || !std::isfinite(b)) return kInfinity;
    if (stage == Stage::kFreqsCis && same_table_entry(a, b, i / columns)) continue;
    worst = std::fmax(worst, std::fabs(a - b));
  }
  return worst == 0.0 ? 0.0 : worst / largest;  // infinity when all of `first` is zero
}

}  // namespace

Agreement agree(const Trace& first, const Trace& second) {
  Agreement out;
  bool compared = false;
  for (const Stage stage : all_stages()) {
    if (!first.has(stage)) continue;
    compared = true;
    const double d = second.has(stage) ? difference(stage, first[stage], second[stage]) : kInfinity;
    if (d > out.worst) {
      out.worst = d;
      out.stage = stage;
    }
  }
  if (!compared) out.worst = kInfinity;
  return out;
}

}  // namespace attn::golden
