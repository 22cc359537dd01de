#include "harness/fuzz/localise.h"

#include <utility>
#include <vector>

#include "harness/fuzz/localise_internal.h"
#include "harness/generate/shrink.h"

namespace attn::harness {
namespace {

/// The same with ordinary data and a few more rows and keys: a case that was shrunk to one key
/// shows no probabilities, one without cached tokens no queries.
FailingCase enriched(const FailingCase& failing, std::int64_t more_keys) {
  constexpr std::int64_t kMoreRows = 2;
  FailingCase more = failing;
  if (more.spec.profile == "equal_keys") more.spec.profile = "normal";
  const bool attention = more.spec.config.starts_at_attention();
  for (RowSpec& row : more.spec.rows) {
    row.first += attention ? kMoreRows : more_keys;
    row.second += attention ? more_keys : kMoreRows;
  }
  return more;
}

}  // namespace

Trace final_answer(const Case& c, Trace answer) {
  Trace last;
  const auto keep = [&](Stage stage) { last[stage] = std::move(answer[stage]); };
  switch (c.config.entry_point) {
    case EntryPoint::kForward:
      keep(Stage::kOut);
      break;
    case EntryPoint::kAttention:
      keep(Stage::kAttnOut);
      break;
    case EntryPoint::kMaterializeKvFromHidden:
      keep(Stage::kCacheK);
      keep(Stage::kCacheV);
      break;
  }
  return last;
}

Localised localise(std::span<const FailingCase> failing, const FinalProbe& probe) {
  const EntryPoint entry = failing.front().spec.config.entry_point;
  std::vector<FailingCase> bases, attention;
  for (const FailingCase& one : failing) {
    if (one.spec.config.entry_point == entry) bases.push_back(one);
  }
  constexpr std::int64_t kFew = 5, kSeveralBlocks = 70;
  bases.push_back(enriched(bases.front(), kFew));
  for (const FailingCase& one : failing) {
    if (one.spec.config.entry_point == EntryPoint::kAttention) attention.push_back(one);
    if (one.spec.config.entry_point != EntryPoint::kForward) continue;
    attention.push_back({attention_alone(one.spec), one.seed});
  }
  for (const std::int64_t more : {kFew, kSeveralBlocks}) {
    if (!attention.empty()) attention.push_back(enriched(attention.front(), more));
  }
  switch (entry) {
    case EntryPoint::kAttention:
      return localise_attention(Constructs(std::move(attention), probe));
    case EntryPoint::kForward:
      return localise_layer(Constructs(std::move(bases), probe),
                            Constructs(std::move(attention), probe));
    case EntryPoint::kMaterializeKvFromHidden:
      break;
  }
  return localise_cache(Constructs(std::move(bases), probe));
}

}  // namespace attn::harness
