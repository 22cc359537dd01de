#include "harness/compare/trust.h"

#include <algorithm>
#include <array>
#include <functional>
#include <optional>

#include "harness/compare/layer_stages.h"
#include "harness/compare/rows.h"

namespace attn::harness {
namespace {

using Eigen::Index;

ElementType at_least_float32(ElementType type) {
  return type == ElementType::kFloat64 ? ElementType::kFloat32 : type;
}

/// `declared` with nothing tighter than float32.
Arithmetic at_least_float32(Arithmetic a) {
  for (ElementType* type : {&a.store, &a.out, &a.lse, &a.cache, &a.probabilities, &a.cos_sin,
                            &a.norm_eps, &a.scaling, &a.partial}) {
    *type = at_least_float32(*type);
  }
  for (Accumulator* acc : {&a.projection_acc, &a.attention_acc}) {
    if (*acc == Accumulator::kFloat64) *acc = Accumulator::kFloat32;
  }
  a.exp_rel = std::max(a.exp_rel, Arithmetic{}.exp_rel);
  return a;
}

/// float32 everywhere, its sums in the chains of `declared`.
Arithmetic float32_like(const Arithmetic& declared) {
  Arithmetic a;
  a.lanes = declared.lanes;
  a.block = declared.block;
  a.splits = declared.splits;
  return a;
}

/// The outputs of a case, row by row: exact values, their bound, and the mean of the visible values
/// (empty where that has no meaning).
struct TrustRows {
  Bounded out;
  RowMatrix mean;
};
/// Evaluates rows first .. first + count - 1 under an arithmetic.
using EvaluateRows = std::function<TrustRows(const Arithmetic&, Index first, Index count)>;

struct Trivial {
  const char* what;
  bool differs = false;  ///< from the exact answer by more than the bound, somewhere
};
using Trivials = std::array<Trivial, 3>;

bool all_differ(const Trivials& tests) {
  return std::all_of(tests.begin(), tests.end(), [](const Trivial& t) { return t.differs; });
}

bool outside(const RowMatrix& y, const RowMatrix& trivial, const RowMatrix& d) {
  return ((y - trivial).array().abs() > d.array()).any();
}

/// Which trivial answers leave the bound of `arithmetic`. Rows are taken from the last on, a few,
/// then more: late rows see most keys, and one element is enough.
Trivials find_differences(const EvaluateRows& evaluate, Index rows, const Arithmetic& arithmetic) {
  Trivials tests{{{"zeros"}, {"the mean of the visible values"}, {"the outputs moved by one row"}}};
  std::optional<RowMatrix> later;  // exact values of the first row of the block after this one
  Index size = 2;
  for (Index end = rows; end > 0 && !all_differ(tests); size *= 4) {
    const Index count = std::min(size, end);
    end -= count;
    const TrustRows block = evaluate(arithmetic, end, count);
    const RowMatrix &y = block.out.y, &d = block.out.d;
    tests[0].differs |= (y.array().abs() > d.array()).any();
    if (block.mean.size() != 0) tests[1].differs |= outside(y, block.mean, d);
    for (Index r = 1; r < count; ++r) {
      tests[2].differs |= outside(y.row(r - 1), y.row(r), d.row(r - 1));
      tests[2].differs |= outside(y.row(r), y.row(r - 1), d.row(r));
    }
    if (later) tests[2].differs |= outside(y.row(count - 1), *later, d.row(count - 1));
    later = y.row(0);
  }
  return tests;
}

/// A test applies where the trivial answer leaves the float32 bound and passes where it stays
/// within the declared one.
std::string reason_of(const EvaluateRows& evaluate, Index rows, const Arithmetic& declared) {
  const Trivials found = find_differences(evaluate, rows, at_least_float32(declared));
  if (all_differ(found)) return "";
  const Trivials applies = find_differences(evaluate, rows, float32_like(declared));
  bool any = false;
  for (std::size_t i = 0; i < found.size(); ++i) {
    any |= found[i].differs || applies[i].differs;
    if (applies[i].differs && !found[i].differs) {
      return std::string(found[i].what) + " would have passed as well";
    }
  }
  if (any) return "";
  return "zeros, the mean of the visible values and the outputs moved by one row are all right "
         "within "
         "the float32 bound";
}

/// Mean over the keys that a row sees, [1, Hq * Dv].
Eigen::RowVectorXd visible_mean(const AttentionInputs& inputs, std::int64_t row) {
  const Case& c = inputs.c;
  const std::int64_t b = sequence_of(c, row);
  const reference::RowMask mask = reference::row_mask(c, b, row);
  const Index dv = c.config.head_dim_v, group = c.config.group_size();
  Eigen::RowVectorXd mean = Eigen::RowVectorXd::Zero(c.config.attn_width());
  for (Index head = 0; head < c.config.num_key_value_heads; ++head) {
    Eigen::RowVectorXd sum = Eigen::RowVectorXd::Zero(dv);
    double count = 0.0;
    constexpr std::int64_t kChunk = 1024;
    for (std::int64_t at = mask.begin; at < mask.end; at += kChunk) {
      const std::int64_t n = std::min(kChunk, mask.end - at);
      const Bounded v = inputs.values.load(b, head, at, n);
      for (std::int64_t j = 0; j < n; ++j) {
        if (!mask.sees(at + j)) continue;
        sum += v.y.row(j);
        count += 1.0;
      }
    }
    if (count == 0.0) continue;
    for (Index h = 0; h < group; ++h) mean.segment((head * group + h) * dv, dv) = sum / count;
  }
  return mean;
}

}  // namespace

std::string attention_mistrust(const AttentionInputs& inputs, const Arithmetic& declared,
                               int threads) {
  const AttentionInputs exact{inputs.c,
                              inputs.rows,
                              {inputs.q.y, {}, {}, {}},
                              inputs.keys.without_allowances(),
                              inputs.values.without_allowances()};
  const auto evaluate = [&](const Arithmetic& arithmetic, Index first, Index count) {
    std::vector<std::int64_t> which = iota(count);
    for (std::int64_t& i : which) i += first;
    TrustRows rows;
    rows.out = attend_rows(exact, which, {arithmetic, false, false}, threads).out;
    rows.mean.resize(count, rows.out.y.cols());
    for (Index r = 0; r < count; ++r) {
      rows.mean.row(r) = visible_mean(exact, exact.rows[static_cast<std::size_t>(first + r)]);
    }
    return rows;
  };
  return reason_of(evaluate, std::ssize(inputs.rows), declared);
}

std::string cache_mistrust(const Case& c, const Arithmetic& declared) {
  const auto evaluate = [&](const Arithmetic& arithmetic, Index first, Index count) {
    std::vector<std::int64_t> which = iota(count);
    for (std::int64_t& i : which) i += first;
    const BoundOptions options{arithmetic, false, false};
    const Bounded x = input_rows(c, which);
    const auto run = [&](reference::Projection p) {
      return project_rows(c, p, make_projection(c, p, arithmetic), x, options);
    };
    const auto exact = [](Bounded b) { return Bounded{std::move(b.y), {}, {}, {}}; };
    Bounded k = exact(run(reference::Projection::kK));
    if (c.config.use_qk_norm) k = exact(normalize_rows(c, Stage::kKNorm, k, options));
    k = rotate_rows(c, k, which, options);
    const Bounded v = run(reference::Projection::kV);
    TrustRows rows;  // k and v side by side
    rows.out.y.resize(count, k.y.cols() + v.y.cols());
    rows.out.y << k.y, v.y;
    rows.out.d.resize(count, k.y.cols() + v.y.cols());
    rows.out.d << k.d, v.d;
    return rows;
  };
  return reason_of(evaluate, c.tokens(), declared);
}

std::string mistrust_reason(const Case& c, const Trace& exact, const Arithmetic& declared) {
  if (c.config.entry_point == EntryPoint::kMaterializeKvFromHidden) {
    return cache_mistrust(c, declared);
  }
  const std::vector<std::int64_t> rows = iota(c.tokens());
  const bool given = c.config.starts_at_attention();
  const auto cache = [&](Stage stage, std::int64_t width) {
    return given ? CacheRows::paged(c, stage, {}) : CacheRows::tapped(c, exact[stage], width);
  };
  return attention_mistrust(
      {c, rows, decode_tap(given ? c.q : exact[Stage::kQRope], rows),
       cache(Stage::kCacheK, c.config.head_dim), cache(Stage::kCacheV, c.config.head_dim_v)},
      declared, 1);
}

}  // namespace attn::harness
