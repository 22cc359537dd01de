#include "harness/fuzz/case_source.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "reference/core/error.h"
#include "reference/stages/mask.h"

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

CaseOrigin parse_origin(std::string_view name) {
  for (const CaseOrigin origin :
       {CaseOrigin::kCorpus, CaseOrigin::kCovering, CaseOrigin::kRandom}) {
    if (name_of(origin) == name) return origin;
  }
  throw Error(ErrorKind::kInput, "origin: \"" + std::string(name) + "\" is none", "origin");
}

CaseSource::CaseSource(const std::vector<CorpusEntry>& corpus, const GatePlan& plan) : plan_(plan) {
  for (const CorpusEntry& entry : corpus) {
    planned_.push_back({entry.spec, entry.seed, CaseOrigin::kCorpus, entry.exec, entry.relation});
  }
  for (PlannedCase& planned : covering_cases(plan)) {
    planned_.push_back({std::move(planned.spec), planned.seed, CaseOrigin::kCovering, {}, {}});
  }
}

FuzzCase CaseSource::at(std::int64_t n) const {
  if (n < planned()) return planned_[static_cast<std::size_t>(n)];
  PlannedCase random = random_case(plan_, n - planned());
  return {std::move(random.spec), random.seed, CaseOrigin::kRandom, {}, {}};
}

OtherCase other_case(const CaseSpec& spec, std::uint64_t seed, bool keeps_rows) {
  OtherCase other{spec, ~seed};
  other.spec.profile = "normal";
  const bool longer = seed % 2 == 1;
  const bool same_rows = keeps_rows && seed % 4 < 2;
  const bool attention = spec.config.starts_at_attention();
  for (RowSpec& row : other.spec.rows) {
    const std::int64_t queries = attention ? row.first : row.second;
    row.first = longer ? 2 * row.first + 1 : row.first / 2;
    row.second = longer ? row.second + 3 : (row.second + 1) / 2;
    if (same_rows) (attention ? row.first : row.second) = queries;
  }
  return other;
}

namespace {

/// The most keys that a row of the case sees.
std::int64_t most_visible_keys(const Case& c) {
  std::int64_t most = 0;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t row = c.row_begin(b); row < c.row_begin(b) + c.row_count(b); ++row) {
      const reference::RowMask mask = reference::row_mask(c, b, row);
      const auto hidden = std::ranges::count(mask.added, -std::numeric_limits<double>::infinity());
      most = std::max<std::int64_t>(most, mask.end - mask.begin - hidden);
      if (most > 1) return most;
    }
  }
  return most;
}

}  // namespace

std::string degeneracy(const CaseSpec& spec, const Case& c) {
  if (c.config.entry_point == EntryPoint::kMaterializeKvFromHidden || c.tokens() == 0) return "";
  if (spec.profile == "equal_keys") return "all keys equal";
  if (c.config.scale == 0.0) return "scale 0";
  const std::int64_t visible = most_visible_keys(c);
  if (visible > 1) return "";
  return visible == 1 ? "one visible key" : "no visible key";
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
