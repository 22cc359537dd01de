#include "harness/compare/compare.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>

#include "harness/compare/attention_rows.h"
#include "harness/compare/cache_guard.h"
#include "harness/compare/cached_row.h"
#include "harness/compare/layer_stages.h"
#include "harness/compare/lse_mistake.h"
#include "harness/compare/rope_table_bound.h"
#include "harness/compare/rows.h"
#include "harness/compare/spread.h"
#include "harness/compare/stage_score.h"
#include "harness/compare/trust.h"
#include "reference/core/error.h"
#include "reference/reference.h"
#include "reference/stages/rope.h"

namespace attn::harness {
namespace {

using Eigen::Index;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::vector<BoundPart> named_parts(const Allowance& a) {
  std::vector<BoundPart> parts;
  for (const auto& [name, value] : {std::pair{"own rounding", a.rounding},
                                    {"sum", a.sum},
                                    {"operand", a.operand},
                                    {"scores", a.scores},
                                    {"P", a.probabilities},
                                    {"propagation", a.propagation},
                                    {"codes", a.codes}}) {
    if (value > 0.0) parts.emplace_back(name, value);
  }
  return parts;
}

/// q, k or v on its way from x to attention.
struct Path {
  reference::Projection projection;
  Stage projected, normed, rotated;
  bool has_heads;  ///< normed and rotated; v is neither
};
constexpr Path kQueryPath{reference::Projection::kQ, Stage::kQProj, Stage::kQNorm, Stage::kQRope,
                          true};
constexpr Path kKeyPath{reference::Projection::kK, Stage::kKProj, Stage::kKNorm, Stage::kKRope,
                        true};
constexpr Path kValuePath{reference::Projection::kV, Stage::kVProj, Stage::kVProj, Stage::kVProj,
                          false};

/// One comparison of a trace with the exact stages. A stage is evaluated on the backend's own
/// previous stage when that is there (taps), else on the evaluated one with its allowances.
class Comparison {
 public:
  Comparison(const Case& c, const Trace& got, const Arithmetic& arithmetic,
             const CompareOptions& options)
      : c_(c), config_(c.config), got_(got), arithmetic_(arithmetic), options_(options) {}

  Verdict run();
  /// run() writes the allowances of every stage that it judges to `allowances`.
  void keep_allowances(StageAllowances& allowances) { allowances_ = &allowances; }

 private:
  using Rows = std::vector<std::int64_t>;
  /// The stage evaluated on some of the rows of its input, by index.
  using Evaluate = std::function<Bounded(std::span<const std::int64_t> which, const BoundOptions&)>;

  bool accept_shapes();
  bool offers(std::initializer_list<Stage> stages) const;
  bool is_tap(Stage stage) const {
    return (options_.taps || got_.is_given(stage)) && offered(stage);
  }
  bool offered(Stage s) const { return got_.has(s); }

  Bounded step(Stage stage, const Rows& rows, const Evaluate& evaluate);
  Bounded follow(const Path& path, const Rows& rows);
  CacheRows fill_cache(Stage stage, const Path& path, const Rows& rows, const Bounded& value);
  void judge(Stage stage, const Rows& rows, const Bounded& exact,
             const std::function<std::vector<Allowance>(Index row)>& parts);
  void keep_allowance(Stage stage, std::int64_t element, double allowed);
  void judge_table();
  void judge_prior(Stage stage, const Tensor& got, StageScore& score);
  void judge_cache(Stage stage, const Rows& rows, const CodedRows& coded);
  void count_codes(StageScore& score, const std::vector<double>& got, const CodedRows& coded,
                   Index i) const;
  void guard_cache();
  AttentionInputs attention_inputs();
  void judge_attention(const AttentionInputs& inputs);
  void finish();
  void name_lse_mistake();

  void describe(Stage stage, std::int64_t row, std::int64_t column, StageReport& report) const;
  std::int64_t head_width(Stage stage) const;
  bool weak(Stage stage, const Bounded& exact) const;

  const Case& c_;
  const AttentionConfig& config_;
  const Trace& got_;
  const Arithmetic& arithmetic_;
  const CompareOptions& options_;
  Rows rows_;
  Verdict verdict_;
  StageAllowances* allowances_ = nullptr;
};

/// Channels of one head in a row of the stage; 0 where a row has no heads.
std::int64_t Comparison::head_width(Stage stage) const {
  switch (stage) {
    case Stage::kFreqsCis:
    case Stage::kOut:
      return 0;
    case Stage::kLse:
      return 1;
    case Stage::kVProj:
    case Stage::kCacheV:
    case Stage::kAttnOut:
      return config_.head_dim_v;
    default:
      return config_.head_dim;
  }
}

void Comparison::describe(Stage stage, std::int64_t row, std::int64_t column,
                          StageReport& report) const {
  const std::int64_t width = head_width(stage);
  report.worst_where = describe_row(c_, row);
  report.worst_index = {row};
  if (width > 0) {
    report.worst_index.push_back(column / width);
    report.worst_where += ", head " + std::to_string(column / width);
  }
  if (width == 1) return;
  const std::int64_t channel = width > 0 ? column % width : column;
  report.worst_index.push_back(channel);
  report.worst_where += ", channel " + std::to_string(channel);
}

/// More than half of the elements have a bound above the rms of their head.
bool Comparison::weak(Stage stage, const Bounded& exact) const {
  if (stage == Stage::kLse || exact.y.size() == 0) return false;
  const Index width = head_width(stage) > 0 ? head_width(stage) : exact.y.cols();
  Index above = 0, judged = 0;
  for (Index first = 0; first < exact.y.cols(); first += width) {
    const auto y = exact.y.middleCols(first, width).array();
    const auto d = exact.d.middleCols(first, width).array();
    const double rms = std::sqrt(y.square().mean());
    above += (d > rms).count();
    judged += (d > 0.0).count();
  }
  return 2 * above > judged;
}

bool Comparison::offers(std::initializer_list<Stage> stages) const {
  return std::any_of(stages.begin(), stages.end(), [&](Stage s) { return offered(s); });
}

bool Comparison::accept_shapes() {
  for (const Stage stage : all_stages()) {
    if (!offered(stage) || got_[stage].shape() == stage_shape(c_, stage)) continue;
    verdict_.status = Status::kFailed;
    verdict_.first_bad = stage;
    verdict_.detail = std::string(name_of(stage)) + ": shape " + to_string(got_[stage].shape()) +
                      ", must be " + to_string(stage_shape(c_, stage));
    return false;
  }
  return true;
}

void Comparison::keep_allowance(Stage stage, std::int64_t element, double allowed) {
  if (allowances_ == nullptr) return;
  std::vector<double>& kept = (*allowances_)[static_cast<std::size_t>(stage)];
  if (kept.empty()) kept.resize(static_cast<std::size_t>(got_[stage].size()));
  kept[static_cast<std::size_t>(element)] = allowed;
}

void Comparison::judge(Stage stage, const Rows& rows, const Bounded& exact,
                       const std::function<std::vector<Allowance>(Index row)>& parts) {
  StageScore score(stage);
  const Index columns = exact.y.cols();
  const Index width = head_width(stage) > 0 ? head_width(stage) : columns;
  Spread spread("row", columns / std::max<Index>(width, 1));
  std::vector<double> got(static_cast<std::size_t>(columns));
  for (Index i = 0; i < exact.y.rows(); ++i) {
    const std::int64_t first = rows[static_cast<std::size_t>(i)] * columns;
    got_[stage].values(first, got);
    for (Index j = 0; j < columns; ++j) {
      keep_allowance(stage, first + j, exact.d(i, j));
      const std::int64_t bad_before = score.report().bad;
      score.add(i * columns + j, got[static_cast<std::size_t>(j)], exact.y(i, j), exact.d(i, j));
      spread.add(rows[static_cast<std::size_t>(i)], j / width, score.report().bad > bad_before);
    }
  }
  StageReport& report = score.report();
  report.note = spread.words();
  report.weak_bound = weak(stage, exact);
  if (score.worst() >= 0) {
    const Index row = score.worst() / columns, column = score.worst() % columns;
    describe(stage, rows[static_cast<std::size_t>(row)], column, report);
    if (options_.explain || report.bad > 0) {
      report.parts = named_parts(parts(row)[static_cast<std::size_t>(column)]);
    }
  }
  verdict_.stages.push_back(score.finish());
}

/// Evaluates a stage, judges what the backend offers of it, and returns what the next stage is
/// judged on: the tap, or the evaluated values with their allowances.
Bounded Comparison::step(Stage stage, const Rows& rows, const Evaluate& evaluate) {
  const bool tap = is_tap(stage);
  Bounded exact = evaluate(iota(std::ssize(rows)), {arithmetic_, false, !tap});
  if (offered(stage)) {
    judge(stage, rows, exact, [&](Index row) {
      const std::int64_t which[] = {row};
      return evaluate(which, {arithmetic_, true, false}).parts;
    });
  }
  return tap ? decode_tap(got_[stage], rows) : exact;
}

Bounded Comparison::follow(const Path& path, const Rows& rows) {
  const Projection projection = make_projection(c_, path.projection, arithmetic_);
  Bounded value = input_rows(c_, rows);
  const auto next = [&](Stage stage, const auto& formula) {
    value =
        step(stage, rows, [&](std::span<const std::int64_t> which, const BoundOptions& options) {
          if (which.size() == rows.size()) return formula(value, which, options);
          return formula(rows_of(value, which), which, options);
        });
  };
  next(path.projected, [&](const Bounded& x, auto, const BoundOptions& options) {
    return project_rows(c_, path.projection, projection, x, options);
  });
  if (!path.has_heads) return value;
  if (config_.use_qk_norm) {
    next(path.normed, [&](const Bounded& x, auto, const BoundOptions& options) {
      return normalize_rows(c_, path.normed, x, options);
    });
  }
  next(path.rotated,
       [&](const Bounded& x, std::span<const std::int64_t> which, const BoundOptions& options) {
         Rows of_batch;
         for (const std::int64_t i : which) of_batch.push_back(rows[static_cast<std::size_t>(i)]);
         return rotate_rows(c_, x, of_batch, options);
       });
  return value;
}

void Comparison::judge_table() {
  const Stage stage = Stage::kFreqsCis;
  if (!offered(stage)) return;
  const RopeTableBound table(config_, arithmetic_);
  Rows positions = iota(c_.freqs_cis.dim(0));
  if (!options_.rows.all) {
    const Rows all = reference::row_positions(c_);
    positions.clear();
    for (const std::int64_t row : rows_) positions.push_back(all[static_cast<std::size_t>(row)]);
  }
  StageScore score(stage);
  std::vector<double> got(static_cast<std::size_t>(config_.rotary_dim()));
  for (const std::int64_t p : positions) {
    got_[stage].values(p * std::ssize(got), got);
    for (std::int64_t i = 0; i < std::ssize(got); ++i) {
      keep_allowance(stage, p * std::ssize(got) + i, table.bound(p, i / 2));
      score.add(p * std::ssize(got) + i, got[static_cast<std::size_t>(i)], table.entry(p, i),
                table.bound(p, i / 2));
    }
  }
  StageReport& report = score.report();
  if (score.worst() >= 0) {
    const std::int64_t position = score.worst() / std::ssize(got);
    const std::int64_t channel = score.worst() % std::ssize(got);
    report.worst_index = {position, channel};
    report.worst_where = "position " + std::to_string(position) + ", " +
                         (channel % 2 == 0 ? "cos" : "sin") + " of pair " +
                         std::to_string(channel / 2);
    report.parts = {{"angle in float32", report.bound}};
  }
  verdict_.stages.push_back(score.finish());
}

/// Tokens cached before the call: every value must come back as it was.
void Comparison::judge_prior(Stage stage, const Tensor& got, StageScore& score) {
  const std::int64_t heads = config_.num_key_value_heads, channels = head_width(stage);
  const std::int64_t width = heads * channels;
  std::vector<double> before(static_cast<std::size_t>(width)), after(before);
  const bool scaled = config_.kv_cache.scale_granularity != ScaleGranularity::kNone;
  const double product = scaled ? scaling_roundoff(arithmetic_) : 0.0;
  std::int64_t key = 0;
  for (std::int64_t b = 0; b < c_.batch(); key += c_.key_count(b), ++b) {
    for (std::int64_t p = 0; p < c_.cached(b); ++p) {
      for (std::int64_t h = 0; h < heads; ++h) {
        read_cached(c_.cache, stage == Stage::kCacheK, b, p, h,
                    std::span(before).subspan(static_cast<std::size_t>(h * channels),
                                              static_cast<std::size_t>(channels)));
      }
      got.values((key + p) * width, after);
      for (std::int64_t i = 0; allowances_ != nullptr && i < width; ++i) {
        keep_allowance(stage, (key + p) * width + i,
                       product * std::abs(before[static_cast<std::size_t>(i)]));
      }
      if (before == after) {
        score.add_equal(width);
        continue;
      }
      for (std::int64_t i = 0; i < width; ++i) {
        const double want = before[static_cast<std::size_t>(i)];
        score.add((key + p) * width + i, after[static_cast<std::size_t>(i)], want,
                  product * std::abs(want));
      }
    }
  }
}

/// Counts the codes of row i that differ. A row that made its own scale may have another scale and
/// the same codes: the largest magnitude tells the scale.
void Comparison::count_codes(StageScore& score, const std::vector<double>& got,
                             const CodedRows& coded, Index i) const {
  const bool own_scale = config_.kv_cache.scale_granularity == ScaleGranularity::kTokenHead;
  const Index width = coded.x.y.cols() / config_.num_key_value_heads;
  for (Index first = 0; first < coded.x.y.cols(); first += width) {
    const auto want = coded.x.y.row(i).segment(first, width);
    const Eigen::Map<const Eigen::RowVectorXd> have(&got[static_cast<std::size_t>(first)], width);
    const double top = have.cwiseAbs().maxCoeff();
    const double factor = own_scale && top > 0.0 ? want.cwiseAbs().maxCoeff() / top : 1.0;
    for (Index j = 0; j < width; ++j) {
      score.add_code(have[j] * factor, want[j], coded.values(i, first + j),
                     coded.flips(i, first + j));
    }
  }
}

/// `exact` holds what the cache must hold of the new rows `rows`.
void Comparison::judge_cache(Stage stage, const Rows& rows, const CodedRows& coded) {
  const Bounded& exact = coded.x;
  const Tensor& got = got_[stage];
  // Not from `exact`, which may have no row.
  const std::int64_t width = config_.num_key_value_heads * head_width(stage);
  StageScore score(stage);
  judge_prior(stage, got, score);
  Rows first_key{0};
  for (std::int64_t b = 0; b < c_.batch(); ++b)
    first_key.push_back(first_key.back() + c_.key_count(b));
  std::vector<double> values(static_cast<std::size_t>(width));
  for (Index i = 0; i < exact.y.rows(); ++i) {
    const std::int64_t row = rows[static_cast<std::size_t>(i)], b = sequence_of(c_, row);
    const std::int64_t key =
        first_key[static_cast<std::size_t>(b)] + c_.cached(b) + row - c_.row_begin(b);
    got.values(key * width, values);
    for (Index j = 0; j < width; ++j) {
      const double value = values[static_cast<std::size_t>(j)];
      const double allowed = exact.exact() ? 0.0 : exact.d(i, j);
      keep_allowance(stage, key * width + j, allowed);
      score.add(key * width + j, value, exact.y(i, j), allowed);
    }
    if (coded.flips.size() != 0) count_codes(score, values, coded, i);
  }
  StageReport& report = score.report();
  if (score.worst() >= 0) {
    const std::int64_t key = score.worst() / width, column = score.worst() % width;
    const auto after = std::upper_bound(first_key.begin(), first_key.end() - 1, key);
    const std::int64_t b = after - first_key.begin() - 1;
    const std::int64_t position = key - first_key[static_cast<std::size_t>(b)];
    const std::int64_t head = column / head_width(stage), channel = column % head_width(stage);
    report.worst_index = {key, head, channel};
    report.worst_where = "sequence " + std::to_string(b) + ", position " +
                         std::to_string(position) + ", head " + std::to_string(head) +
                         ", channel " + std::to_string(channel);
    if (report.bad > 0 && position < c_.cached(b)) report.note = "a token cached before the call";
    if (report.bound > 0.0) report.parts = {{"propagation and rounding", report.bound}};
  }
  verdict_.stages.push_back(score.finish());
}

/// The cache after the call: judged, and as attention reads it. `value` is the path's last stage at
/// the new rows `rows`.
CacheRows Comparison::fill_cache(Stage stage, const Path& path, const Rows& rows,
                                 const Bounded& value) {
  const bool tap = is_tap(stage);
  Rows stored = rows;
  std::optional<Bounded> all;
  if (is_tap(path.rotated) && tap) {  // copying is cheap to judge on every row
    stored = iota(c_.tokens());
    all = decode_tap(got_[path.rotated], stored);
  }
  CodedRows exact = cache_rows(c_, stage, all ? *all : value, {arithmetic_, false, true});
  if (offered(stage)) judge_cache(stage, stored, exact);
  if (tap) return CacheRows::tapped(c_, got_[stage], head_width(stage));
  return CacheRows::paged(c_, stage, std::move(exact.x));
}

/// The pool, where the backend returned it. A violation is the cache stage's, whatever it offered
/// of that.
void Comparison::guard_cache() {
  if (!got_.cache) return;
  for (const Stage stage : {Stage::kCacheK, Stage::kCacheV}) {
    const bool keys = stage == Stage::kCacheK;
    const std::string violation =
        cache_violation(c_, *got_.cache, keys, offered(stage) ? &got_[stage] : nullptr);
    if (violation.empty()) continue;
    auto report = std::find_if(verdict_.stages.begin(), verdict_.stages.end(),
                               [&](const StageReport& r) { return r.stage == stage; });
    if (report == verdict_.stages.end()) {
      verdict_.stages.emplace_back().stage = stage;
      report = verdict_.stages.end() - 1;
    }
    ++report->bad;
    report->worst_ratio = kInfinity;
    report->worst_where = violation;
  }
}

AttentionInputs Comparison::attention_inputs() {
  if (config_.starts_at_attention()) {  // no new rows: all of the cache must come back as it was
    for (const auto& [stage, width] : {std::pair{Stage::kCacheK, config_.k_width()},
                                       std::pair{Stage::kCacheV, config_.v_width()}}) {
      if (offered(stage)) judge_cache(stage, {}, {{RowMatrix(0, width), {}, {}, {}}, {}, {}});
    }
    return {c_, rows_, decode_tap(c_.q, rows_), CacheRows::paged(c_, Stage::kCacheK, {}),
            CacheRows::paged(c_, Stage::kCacheV, {})};
  }
  const bool attends = config_.entry_point == EntryPoint::kForward &&
                       offers({Stage::kLse, Stage::kAttnOut, Stage::kOut});
  // Attention reads keys of every row: those that are not taps must all be evaluated.
  const Rows all = iota(c_.tokens());
  const Rows& key_rows = attends && !is_tap(Stage::kCacheK) ? all : rows_;
  const Rows& value_rows = attends && !is_tap(Stage::kCacheV) ? all : rows_;
  Bounded q;
  if (config_.entry_point == EntryPoint::kForward &&
      (attends || offers({Stage::kQProj, Stage::kQNorm, Stage::kQRope}))) {
    q = follow(kQueryPath, rows_);
  }
  CacheRows keys = fill_cache(Stage::kCacheK, kKeyPath, key_rows, follow(kKeyPath, key_rows));
  CacheRows values =
      fill_cache(Stage::kCacheV, kValuePath, value_rows, follow(kValuePath, value_rows));
  return {c_, rows_, std::move(q), std::move(keys), std::move(values)};
}

void Comparison::judge_attention(const AttentionInputs& inputs) {
  const bool tap = is_tap(Stage::kAttnOut);
  const bool projects =
      config_.entry_point == EntryPoint::kForward && offered(Stage::kOut) && !rows_.empty();
  Projection projection;
  if (projects) projection = make_projection(c_, reference::Projection::kO, arithmetic_);
  AttentionStages stages;
  if (offers({Stage::kLse, Stage::kAttnOut}) || (projects && !tap)) {
    const std::vector<std::int64_t> which = iota(std::ssize(rows_));
    stages = attend_rows(inputs, which, {arithmetic_, false, projects && !tap}, options_.threads,
                         projects && !tap ? projection.weight : RowMatrix());
    const auto parts = [&](Bounded AttentionStages::*stage) {
      return [&, stage](Index row) {
        const std::int64_t one[] = {row};
        return (attend_rows(inputs, one, {arithmetic_, true, projects && !tap}, 1).*stage).parts;
      };
    };
    if (offered(Stage::kLse)) judge(Stage::kLse, rows_, stages.lse, parts(&AttentionStages::lse));
    if (offered(Stage::kAttnOut)) {
      judge(Stage::kAttnOut, rows_, stages.out, parts(&AttentionStages::out));
    }
  }
  if (!projects) return;
  const Bounded attended = tap ? decode_tap(got_[Stage::kAttnOut], rows_) : std::move(stages.out);
  // As a Bounded, of which the rows are taken like those of what is projected.
  const Bounded joint{
      std::move(stages.projected.variance), std::move(stages.projected.linear), {}, {}};
  step(Stage::kOut, rows_, [&](std::span<const std::int64_t> which, const BoundOptions& options) {
    Bounded some = rows_of(joint, which);
    return project_rows(c_, reference::Projection::kO, projection, rows_of(attended, which),
                        options, {std::move(some.y), std::move(some.d)});
  });
}

void Comparison::finish() {
  for (const Stage stage : all_stages()) {
    if (got_.is_given(stage)) verdict_.given.push_back(stage);
  }
  std::erase_if(verdict_.stages,
                [&](const StageReport& report) { return got_.is_given(report.stage); });
  std::stable_sort(verdict_.stages.begin(), verdict_.stages.end(),
                   [](const StageReport& a, const StageReport& b) { return a.stage < b.stage; });
  for (const StageReport& report : verdict_.stages) {
    if (report.bad == 0) continue;
    verdict_.status = Status::kFailed;
    verdict_.first_bad = report.stage;
    verdict_.detail = std::string(name_of(report.stage)) + ": " + std::to_string(report.bad) +
                      " of " + std::to_string(report.elements) +
                      " elements beyond their bound, worst at " + report.worst_where;
    return;
  }
  if (verdict_.stages.empty()) {
    verdict_.status = Status::kFailed;
    verdict_.detail = "the backend offered no stage of this case";
  }
}

/// Says what is wrong with lse where that is a common mistake.
void Comparison::name_lse_mistake() {
  if (verdict_.first_bad != Stage::kLse || allowances_ != nullptr) return;
  const std::string mistake = lse_mistake(c_, got_, arithmetic_);
  if (mistake.empty()) return;
  verdict_.detail += "; looks like: " + mistake;
  for (StageReport& report : verdict_.stages) {
    if (report.stage != Stage::kLse) continue;
    report.note.append(report.note.empty() ? "" : "; ").append("looks like: ").append(mistake);
  }
}

Verdict Comparison::run() {
  if (const std::string reason = reference::unsupported_reason(config_); !reason.empty()) {
    verdict_.status = Status::kUnsupported;
    verdict_.detail = reason;
    return verdict_;
  }
  if (!accept_shapes()) return verdict_;
  rows_ = select_rows(c_, options_.rows, arithmetic_.block);
  verdict_.rows_checked = std::ssize(rows_);
  verdict_.rows_total = c_.tokens();

  judge_table();
  const AttentionInputs inputs = attention_inputs();
  const bool materializes = config_.entry_point == EntryPoint::kMaterializeKvFromHidden;
  if (!materializes) judge_attention(inputs);
  guard_cache();
  finish();
  name_lse_mistake();
  if (verdict_.status != Status::kPassed || !options_.check_trust || c_.tokens() == 0) {
    return verdict_;
  }
  if (!materializes && inputs.q.y.size() == 0) return verdict_;  // attention was not offered
  const std::string reason = materializes
                                 ? cache_mistrust(c_, arithmetic_)
                                 : attention_mistrust(inputs, arithmetic_, options_.threads);
  if (!reason.empty()) {
    verdict_.status = Status::kMistrusted;
    verdict_.detail = reason;
  }
  return verdict_;
}

}  // namespace

std::string_view name_of(Status status) {
  switch (status) {
    case Status::kPassed:
      return "passed";
    case Status::kFailed:
      return "failed";
    case Status::kUnsupported:
      return "unsupported";
    case Status::kSkipped:
      return "skipped";
    case Status::kMistrusted:
      return "mistrusted";
    case Status::kCrashed:
      return "crashed";
    case Status::kTimedOut:
      return "timed out";
  }
  return "";
}

double Verdict::worst_ratio() const {
  double worst = 0.0;
  for (const StageReport& report : stages) worst = std::max(worst, report.worst_ratio);
  return worst;
}

Verdict compare(const Case& c, const Trace& got, const Arithmetic& arithmetic,
                const CompareOptions& options) {
  return Comparison(c, got, arithmetic, options).run();
}

StageAllowances allowances(const Case& c, const Trace& answer, const Arithmetic& arithmetic,
                           int threads) {
  CompareOptions options;
  options.taps = false;
  options.threads = threads;
  options.check_trust = false;
  Comparison comparison(c, answer, arithmetic, options);
  StageAllowances result;
  comparison.keep_allowances(result);
  const Verdict verdict = comparison.run();
  if (verdict.status == Status::kUnsupported) {
    throw Error(ErrorKind::kUnsupported, verdict.detail);
  }
  return result;
}

}  // namespace attn::harness
