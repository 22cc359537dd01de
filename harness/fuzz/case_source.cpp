#include "harness/fuzz/case_source.h"

#include <algorithm>
#include <utility>

namespace attn::harness {

std::string_view name_of(CaseOrigin origin) {
  switch (origin) {
    case CaseOrigin::kCorpus:
      return "corpus";
    case CaseOrigin::kCovering:
      return "covering";
    case CaseOrigin::kRandom:
      return "random";
  }
  return "";
}

CaseSource::CaseSource(const std::vector<CorpusEntry>& corpus, const GatePlan& plan) : plan_(plan) {
  for (const CorpusEntry& entry : corpus) {
    planned_.push_back({entry.spec, entry.seed, CaseOrigin::kCorpus, entry.exec});
  }
  for (PlannedCase& planned : covering_cases(plan)) {
    planned_.push_back({std::move(planned.spec), planned.seed, CaseOrigin::kCovering, {}});
  }
}

FuzzCase CaseSource::at(std::int64_t n) const {
  if (n < planned()) return planned_[static_cast<std::size_t>(n)];
  PlannedCase random = random_case(plan_, n - planned());
  return {std::move(random.spec), random.seed, CaseOrigin::kRandom, {}};
}

OtherCase other_case(const CaseSpec& spec, std::uint64_t seed) {
  OtherCase other{spec, ~seed};
  other.spec.profile = "normal";
  const bool longer = seed % 2 == 1;
  for (RowSpec& row : other.spec.rows) {
    row.first = longer ? 2 * row.first + 1 : row.first / 2;
    row.second = longer ? row.second + 3 : (row.second + 1) / 2;
  }
  return other;
}

CaseSpec trusted_neighbour(const CaseSpec& spec) {
  constexpr std::int64_t kLeastRows = 4, kLeastKeys = 8;
  CaseSpec neighbour = spec;
  neighbour.profile = "normal";
  if (spec.config.scale == 0.0) neighbour.config.scale.reset();
  MaskConfig& mask = neighbour.config.mask;
  if (mask.window_size) mask.window_size = std::max<std::int64_t>(*mask.window_size, 2);
  if (mask.chunk_size) mask.chunk_size = std::max<std::int64_t>(*mask.chunk_size, 2);
  if (neighbour.rows.empty()) neighbour.rows.push_back({});
  for (RowSpec& row : neighbour.rows) {
    if (spec.config.starts_at_attention()) {
      row = {std::max(row.first, kLeastRows), std::max(row.second, kLeastKeys)};
    } else {
      row.second = std::max(row.second, kLeastRows);
    }
  }
  return neighbour;
}

}  // namespace attn::harness
