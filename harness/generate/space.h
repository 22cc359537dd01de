#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "harness/generate/case_spec.h"

namespace attn::harness {

/// One dimension of the space of cases: a feature and the values that it is tested with.
struct Axis {
  std::string name;  ///< "group_size"
  std::vector<std::string>
      values;                 ///< "1", "2", ..., in words of the field; the first is the default
  bool compile_time = false;  ///< a just-in-time compiler would make a kernel for each value
  bool of_layout = false;     ///< of MemoryLayout, which backends that work on values ignore
};

/// Value number per axis.
using Point = std::vector<int>;

/// Every axis, in a fixed order.
std::span<const Axis> space_axes();

/// Whether a point with some axes open (-1) can be completed to a legal one.
bool is_legal(const Point& partial);

/// The case of a legal, complete point. What the axes leave open (sizes, exact lengths, theta, ...)
/// is drawn under `seed`. The result is valid.
CaseSpec spec_of(const Point& point, std::uint64_t seed);

/// The point that a spec lies at: for coverage of cases that were not made from points. An axis
/// whose value is none of the listed ones is -1.
Point point_of(const CaseSpec& spec);

struct CoveringOptions {
  int strength = 2;                          ///< 1, 2 or 3: every legal tuple of so many axes
  std::uint64_t seed = 1;                    ///< same options, same array
  std::optional<std::int64_t> max_compiles;  ///< at most so many combinations of compile-time axes
  std::optional<std::int64_t> max_rows;      ///< the array's first rows, which hold the most tuples
};
/// Points that together hold every legal tuple of `strength` values; with max_compiles as many as
/// fit. Where all keys are equal, or there is one, or all kv heads are (strides of 0), a mistake in
/// anything else may not show: such a point counts only for the tuples that these values are part
/// of, here and in coverage_of.
std::vector<Point> covering_array(const CoveringOptions& options);

/// Combinations of compile-time values, at most `most`, that hold as many pairs of such values as
/// they can; every other axis is open (-1). Deterministic.
std::vector<Point> compile_points(std::uint64_t seed, std::int64_t most);

/// Which legal tuples a set of points holds.
struct Coverage {
  std::int64_t legal = 0;
  std::int64_t covered = 0;
  struct Tuple {
    std::vector<int> axes;
    std::vector<int> values;
  };
  std::vector<Tuple> uncovered;
};
Coverage coverage_of(std::span<const Point> points, int strength);
/// "mask=chunked_causal, group_size=24"
std::string to_string(const Coverage::Tuple& tuple);

/// What a gate runs, in order: the covering array, then random cases.
enum class Gate { kSmoke, kPr, kNightly };
struct GatePlan {
  Gate gate = Gate::kPr;
  std::uint64_t seed = 1;
  std::optional<std::int64_t> max_compiles;
};
struct PlannedCase {
  CaseSpec spec;
  std::uint64_t seed = 0;
};
/// The covering cases of the gate: smoke a thin sample that ends in 10 s, pr every pair, nightly
/// every triple. Deterministic.
std::vector<PlannedCase> covering_cases(const GatePlan& plan);
/// Random case number n that follows them: the same generator, every axis drawn.
PlannedCase random_case(const GatePlan& plan, std::int64_t n);

}  // namespace attn::harness
