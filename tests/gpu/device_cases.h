#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "harness/backends/backend.h"
#include "harness/backends/execution.h"
#include "harness/generate/case_spec.h"
#include "reference/core/case.h"

namespace attn::harness {

/// Cases of a test of random ones: ATTN_GPU_CASES, or 200.
std::uint64_t device_case_count();

/// Fails the test for each complaint, ten of them at most.
void expect_none(const std::vector<std::string>& complaints);

/// "" when the trace is within the bound of what the backend declares, else what is wrong and how
/// to see it again.
std::string why_wrong(const Case& c, const Trace& trace, const Backend& backend);

/// The n-th execution mode, in turns.
ExecMode mode_in_turn(std::uint64_t n);

/// A case of the spec in that mode, in some seeds with heads before tokens in a page, or a pool
/// that begins 5 GiB on. "" when it is right.
std::string run_case(const Backend& backend, const CaseSpec& spec, std::uint64_t seed,
                     ExecMode mode);

/// Of the first `most` cases of the smoke gate, those that `takes` accepts after fitting: the small
/// set that compute-sanitizer runs. `layers_only`: not those that start at attention. How many were
/// judged.
std::uint64_t run_covering_set(const Backend& backend, std::uint64_t most,
                               const std::function<bool(const AttentionConfig&)>& takes,
                               bool layers_only);

/// Both backends within their bound on cases of `spec_of`, and nine in ten of the values of rotated
/// keys the same bits: for kernels whose roundings are the same and only the order of sums is not.
void expect_alike(const Backend& a, const Backend& b,
                  const std::function<CaseSpec(std::uint64_t)>& spec_of);

}  // namespace attn::harness
