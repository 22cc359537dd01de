#include "harness/fuzz/probabilities.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "harness/compare/compare.h"
#include "reference/reference.h"

namespace attn::harness {
namespace {

using Row = std::vector<double>;

/// Probabilities by row and head, over the keys of the longest sequence.
struct Probabilities {
  std::vector<Row> got, exact, allowed;
};

/// Values of `width` keys from `first` on are unit vectors, all others zero.
Construct identity_block(std::int64_t first) {
  return {{},
          [first](Draft& d) {
            for (std::int64_t i = 0; i < d.v.size(); ++i) d.v.set_value(i, 0.0);
            const std::int64_t width = d.config().head_dim_v;
            for (std::size_t b = 0; b < d.cached.size(); ++b) {
              for (std::int64_t p = first; p < std::min(first + width, d.cached[b]); ++p) {
                for (std::int64_t h = 0; h < d.config().num_key_value_heads; ++h) {
                  const std::int64_t token = d.first_cached[b] + p;
                  d.v.set_value((token * d.config().num_key_value_heads + h) * width + p - first,
                                1.0);
                }
              }
            }
          },
          {}};
}

/// Appends what a case with one block of unit values shows.
void append(const Constructs::Run& run, Probabilities& read) {
  const Case& c = run.c;
  const std::int64_t width = c.config.head_dim_v;
  const Tensor& got = run.answer.got[Stage::kAttnOut];
  const Trace exact = reference::evaluate(c, reference::Mode::kExact);
  const std::vector<double> allowed = allowances(
      c, run.answer.got, run.answer.arithmetic)[static_cast<std::size_t>(Stage::kAttnOut)];
  const auto rows = static_cast<std::size_t>(c.tokens() * c.config.num_attention_heads);
  for (std::vector<Row>* part : {&read.got, &read.exact, &read.allowed}) part->resize(rows);
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::int64_t channel = 0; channel < width; ++channel) {
      const std::int64_t i = static_cast<std::int64_t>(row) * width + channel;
      read.got[row].push_back(got.value(i));
      read.exact[row].push_back(exact[Stage::kAttnOut].value(i));
      read.allowed[row].push_back(allowed[static_cast<std::size_t>(i)]);
    }
  }
}

double sum(const Row& row) { return std::accumulate(row.begin(), row.end(), 0.0); }

bool near(const Row& got, const Row& want, const Row& allowed, double factor) {
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double room = std::max(1.0, std::abs(factor)) * allowed[i];
    if (!(std::abs(got[i] - factor * want[i]) <= room)) return false;
  }
  return true;
}

/// The rows of the right answer in other places, each once.
bool is_moved(const Probabilities& read) {
  std::vector<bool> used(read.exact.size());
  for (std::size_t i = 0; i < read.got.size(); ++i) {
    bool found = false;
    for (std::size_t j = 0; j < read.exact.size() && !found; ++j) {
      found = !used[j] && near(read.got[i], read.exact[j], read.allowed[j], 1.0);
      if (found) used[j] = true;
    }
    if (!found) return false;
  }
  return true;
}

ProbabilityError error_of_row(const Row& got, const Row& exact, const Row& allowed) {
  if (near(got, exact, allowed, 1.0)) return ProbabilityError::kNone;
  if (!std::ranges::all_of(got, [](double p) { return std::isfinite(p); })) {
    return ProbabilityError::kNotFinite;
  }
  const double mass = sum(exact);
  if (mass > 0.0 && near(got, exact, allowed, sum(got) / mass)) return ProbabilityError::kScaled;
  // Where a row that should see nothing sees a key, or the other way round, the mass is 0 or 1.
  constexpr double kRounding = 1e-5;
  const double room = sum(allowed) + kRounding;
  const bool whole = std::abs(sum(got)) <= room || std::abs(sum(got) - 1.0) <= room;
  const bool kept = whole || std::abs(sum(got) - mass) <= room;
  return kept ? ProbabilityError::kMassKept : ProbabilityError::kOther;
}

/// The strangest error of any row, as one mistake may look plain in some.
ProbabilityError error_of(const Probabilities& read) {
  ProbabilityError worst = ProbabilityError::kNone;
  for (std::size_t i = 0; i < read.got.size(); ++i) {
    worst = std::max(worst, error_of_row(read.got[i], read.exact[i], read.allowed[i]));
  }
  if (worst != ProbabilityError::kNone && is_moved(read)) return ProbabilityError::kMoved;
  return worst;
}

/// Rows that sum to one; a percent is what an output over fp8 values may be off by.
void normalise(Probabilities& read) {
  constexpr double kRoom = 0.02;
  for (std::size_t i = 0; i < read.got.size(); ++i) {
    for (Row* row : {&read.got[i], &read.exact[i]}) {
      const double mass = sum(*row);
      if (!(std::abs(mass) > 0.0)) continue;
      for (double& p : *row) p /= mass;
    }
    std::ranges::fill(read.allowed[i], kRoom);
  }
}

std::int64_t longest(const CaseSpec& spec) {
  std::int64_t keys = 1;
  for (const RowSpec& row : spec.rows) keys = std::max(keys, row.second);
  return keys;
}

}  // namespace

ProbabilityError read_probabilities(const Constructs& constructs, const Construct& construct,
                                    bool normalised) {
  constexpr std::int64_t kMostBlocks = 40;
  ProbabilityError worst = ProbabilityError::kUnknown;
  for (const FailingCase& base : constructs.bases()) {
    const std::int64_t width = std::max<std::int64_t>(base.spec.config.head_dim_v, 1);
    if (longest(base.spec) > kMostBlocks * width) continue;
    for (std::uint64_t seed = 0; seed < Constructs::kSeeds; ++seed) {
      Probabilities read;
      for (std::int64_t first = 0; first < longest(base.spec); first += width) {
        const auto run =
            constructs.run(base, base.seed + seed, construct.with(identity_block(first)));
        if (!run) break;
        append(*run, read);
      }
      if (read.got.empty()) continue;
      if (normalised) normalise(read);
      worst = std::max(worst, error_of(read));
    }
  }
  return worst;
}

}  // namespace attn::harness
