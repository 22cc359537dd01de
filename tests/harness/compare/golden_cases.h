#pragma once

#include <string>
#include <vector>

#include "golden/golden_file.h"
#include "reference/core/case.h"

namespace attn::harness {

/// A golden file of data/golden that the reference evaluates, laid into shuffled pages.
struct GoldenCase {
  golden::GoldenFile file;
  Case c;
};

/// All of them, in the order of their names.
std::vector<GoldenCase> covered_golden_cases();

/// One of them. Throws when it is not there.
GoldenCase golden_case(const std::string& id);

}  // namespace attn::harness
