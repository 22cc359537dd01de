#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace attn::history {

struct ChangePointOptions {
  double significance = 0.01;  ///< largest p of a change that is reported
  std::int64_t permutations = 999;
  std::size_t minimum_segment = 3;  ///< points between two changes, at least
  double minimum_effect = 0.0;      ///< of after / before - 1, in magnitude
  std::uint64_t seed = 1;
};

/// The series has another distribution from point `index` on.
struct ChangePoint {
  std::size_t index = 0;
  double before = 0.0;  ///< median from the change before (or the begin) to this one
  double after = 0.0;   ///< median from this one to the next (or the end)
  double p = 1.0;       ///< of the permutation test
  double size() const { return after / before - 1.0; }
};

/// E-Divisive (Matteson and James, 2014, "A nonparametric approach for multiple change point
/// analysis of multivariate data", JASA 109, 334-345) of a series of finite numbers, oldest first.
/// Of all segments and splits the one with the largest energy statistic (exponent 1) is taken; it
/// is tested by permuting the points inside every segment; accepted splits make new segments, the
/// first that is refused ends the search. The right part of a split always reaches to the end of
/// its segment (kappa = the end in the paper's terms). In order of index; the same seed gives the
/// same answer.
std::vector<ChangePoint> change_points(std::span<const double> series,
                                       const ChangePointOptions& options = {});

}  // namespace attn::history
