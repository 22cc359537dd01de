#include "harness/fuzz/case_source.h"

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

CaseSource::CaseSource(std::vector<FuzzCase> corpus, std::uint64_t seed)
    : planned_(std::move(corpus)), seed_(seed) {}

FuzzCase CaseSource::at(std::int64_t n) const {
  if (n < planned()) return planned_[static_cast<std::size_t>(n)];
  const std::uint64_t seed = seed_ + static_cast<std::uint64_t>(n - planned());
  return {random_small_spec(seed), seed, CaseOrigin::kRandom};
}

}  // namespace attn::harness
