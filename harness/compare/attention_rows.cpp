#include "harness/compare/attention_rows.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <numeric>
#include <thread>

#include "harness/compare/cached_row.h"
#include "harness/compare/codes.h"
#include "harness/compare/rows.h"

namespace attn::harness {
namespace {

using Eigen::Index;

/// Scores that a block holds at most, unless one row has more.
constexpr std::int64_t kBlockScores = std::int64_t{1} << 16;

/// Part of the work: rows which[first .. end) of one sequence, over one key head.
struct Task {
  std::int64_t sequence, head, first, end;
};

std::vector<Task> make_tasks(const AttentionInputs& inputs, std::span<const std::int64_t> which) {
  const Case& c = inputs.c;
  std::vector<Task> tasks;
  const std::int64_t n = std::ssize(which);
  for (std::int64_t first = 0; first < n;) {
    const std::int64_t row = inputs.rows[static_cast<std::size_t>(which[first])];
    const std::int64_t b = sequence_of(c, row), row_end = c.row_begin(b) + c.row_count(b);
    const std::int64_t scores = std::max<std::int64_t>(1, c.key_count(b) * c.config.group_size());
    const std::int64_t limit = std::clamp<std::int64_t>(kBlockScores / scores, 1, 64);
    std::int64_t end = first + 1;
    while (end < n && end - first < limit &&
           inputs.rows[static_cast<std::size_t>(which[end])] < row_end) {
      ++end;
    }
    for (std::int64_t head = 0; head < c.config.num_key_value_heads; ++head) {
      tasks.push_back({b, head, first, end});
    }
    first = end;
  }
  return tasks;
}

/// Columns of some heads of some rows as [rows * heads, width].
RowMatrix heads_of(const RowMatrix& x, std::span<const std::int64_t> which, Index first_head,
                   Index heads, Index width) {
  if (x.size() == 0) return {};
  RowMatrix out(std::ssize(which) * heads, width);
  for (Index i = 0; i < std::ssize(which); ++i) {
    for (Index h = 0; h < heads; ++h) {
      out.row(i * heads + h) =
          x.row(which[static_cast<std::size_t>(i)]).segment((first_head + h) * width, width);
    }
  }
  return out;
}

AttentionBlock make_block(const AttentionInputs& inputs, std::span<const std::int64_t> which,
                          const Task& task, const Arithmetic& arithmetic) {
  const Case& c = inputs.c;
  const Index group = c.config.group_size(), first_head = task.head * group;
  const auto rows = which.subspan(static_cast<std::size_t>(task.first),
                                  static_cast<std::size_t>(task.end - task.first));
  AttentionBlock block;
  block.q.y = heads_of(inputs.q.y, rows, first_head, group, c.config.head_dim);
  block.q.d = heads_of(inputs.q.d, rows, first_head, group, c.config.head_dim);
  block.q.s = heads_of(inputs.q.s, rows, first_head, group, c.config.head_dim);
  std::int64_t first_key = c.key_count(task.sequence), end_key = 0;
  for (const std::int64_t i : rows) {
    block.masks.push_back(
        reference::row_mask(c, task.sequence, inputs.rows[static_cast<std::size_t>(i)]));
    const reference::RowMask& mask = block.masks.back();
    if (mask.begin >= mask.end) continue;
    first_key = std::min(first_key, mask.begin);
    end_key = std::max(end_key, mask.end);
  }
  block.first_key = std::min(first_key, end_key);
  block.end_key = end_key;
  block.keys = [&inputs, task](std::int64_t first, std::int64_t count) {
    return inputs.keys.load(task.sequence, task.head, first, count);
  };
  block.values = [&inputs, task](std::int64_t first, std::int64_t count) {
    return inputs.values.load(task.sequence, task.head, first, count);
  };
  block.value_dim = c.config.head_dim_v;
  if (c.has_sinks()) {
    const Tensor& sinks = c.weights.at("sinks");
    for (Index h = 0; h < group; ++h) block.sinks.push_back(sinks.value(first_head + h));
  }
  block.scale = c.config.softmax_scale();
  block.softcap = c.config.logit_softcap;
  block.cache_error = cache_scale_error(c.config, arithmetic);
  return block;
}

/// Puts the group's results [rows * group, width] at their rows and columns of the stage.
void scatter(Bounded&& from, const Task& task, Index group, Index all_heads, Bounded& to) {
  const Index width = from.y.cols();
  for (Index r = 0; r < from.y.rows(); ++r) {
    const Index row = task.first + r / group, column = (task.head * group + r % group) * width;
    to.y.row(row).segment(column, width) = from.y.row(r);
    to.d.row(row).segment(column, width) = from.d.row(r);
    to.s.row(row).segment(column, width) = from.s.row(r);
    if (from.parts.empty()) continue;
    std::copy_n(from.parts.begin() + r * width, width,
                to.parts.begin() + row * all_heads * width + column);
  }
}

/// Calls work(0) .. work(count - 1) on up to `threads` threads; the first exception is passed on.
template <typename Work>
void parallel_for(std::int64_t count, int threads, const Work& work) {
  std::atomic<std::int64_t> next{0};
  std::exception_ptr error;
  std::atomic_flag failed = ATOMIC_FLAG_INIT;
  const auto run = [&] {
    for (std::int64_t i = next++; i < count; i = next++) {
      try {
        work(i);
      } catch (...) {
        if (!failed.test_and_set()) error = std::current_exception();
        next = count;
      }
    }
  };
  {
    std::vector<std::jthread> pool;
    for (std::int64_t t = 1; t < std::min<std::int64_t>(threads, count); ++t)
      pool.emplace_back(run);
    run();
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace

CacheRows::CacheRows(const Case& c, const Tensor* logical, bool keys, Bounded fresh,
                     std::int64_t width)
    : c_(&c), logical_(logical), keys_(keys), fresh_(std::move(fresh)), width_(width) {
  std::int64_t first = 0;
  for (std::int64_t b = 0; b < c.batch(); first += c.key_count(b), ++b) first_key_.push_back(first);
}

CacheRows CacheRows::tapped(const Case& c, const Tensor& logical, std::int64_t width) {
  return {c, &logical, false, {}, width};
}

CacheRows CacheRows::paged(const Case& c, Stage stage, Bounded fresh) {
  const bool keys = stage == Stage::kCacheK;
  return {c, nullptr, keys, std::move(fresh), keys ? c.config.head_dim : c.config.head_dim_v};
}

CacheRows CacheRows::without_allowances() const {
  CacheRows out = *this;
  out.fresh_.d.resize(0, 0);
  out.fresh_.s.resize(0, 0);
  return out;
}

Bounded CacheRows::load(std::int64_t b, std::int64_t head, std::int64_t first,
                        std::int64_t count) const {
  const std::int64_t heads = c_->config.num_key_value_heads;
  Bounded out;
  out.y.resize(count, width_);
  const auto row_of = [&](std::int64_t row) {
    return std::span<double>(&out.y(row, 0), static_cast<std::size_t>(width_));
  };
  if (logical_ != nullptr) {
    const std::int64_t key = first_key_[static_cast<std::size_t>(b)] + first;
    for (std::int64_t i = 0; i < count; ++i) {
      logical_->values(((key + i) * heads + head) * width_, row_of(i));
    }
    return out;
  }
  const std::int64_t prior = c_->config.starts_at_attention() ? c_->key_count(b) : c_->cached(b);
  for (std::int64_t i = 0; i < count && first + i < prior; ++i) {
    read_cached(c_->cache, keys_, b, first + i, head, row_of(i));
  }
  const std::int64_t from = std::max<std::int64_t>(0, prior - first);
  if (from >= count) return out;
  const std::int64_t row = c_->row_begin(b) + first + from - prior, fresh = count - from;
  out.y.bottomRows(fresh) = fresh_.y.block(row, head * width_, fresh, width_);
  if (!fresh_.exact()) {
    out.d = out.s = RowMatrix::Zero(count, width_);
    out.d.bottomRows(fresh) = fresh_.d.block(row, head * width_, fresh, width_);
    out.s.bottomRows(fresh) = fresh_.s.block(row, head * width_, fresh, width_);
  }
  return out;
}

AttentionStages attend_rows(const AttentionInputs& inputs, std::span<const std::int64_t> which,
                            const BoundOptions& options, int threads,
                            const RowMatrix& output_weight) {
  const AttentionConfig& config = inputs.c.config;
  const Index n = std::ssize(which), heads = config.num_attention_heads;
  const Index group_width = config.group_size() * config.head_dim_v;
  AttentionStages out{Bounded::zeros(n, heads), Bounded::zeros(n, config.attn_width()), {}};
  if (output_weight.size() != 0) {
    out.projected.variance = out.projected.linear = RowMatrix::Zero(n, output_weight.rows());
  }
  if (options.parts) {
    out.lse.parts.resize(static_cast<std::size_t>(out.lse.y.size()));
    out.out.parts.resize(static_cast<std::size_t>(out.out.y.size()));
  }
  const std::vector<Task> tasks = make_tasks(inputs, which);
  std::mutex mutex;  // what all heads of a row bring adds up
  parallel_for(std::ssize(tasks), threads, [&](std::int64_t i) {
    const Task& task = tasks[static_cast<std::size_t>(i)];
    AttentionBlock block = make_block(inputs, which, task, options.arithmetic);
    if (output_weight.size() != 0) {
      block.output_weight = output_weight.middleCols(task.head * group_width, group_width);
    }
    AttentionBound bound = attend(block, options);
    scatter(std::move(bound.lse), task, config.group_size(), heads, out.lse);
    scatter(std::move(bound.out), task, config.group_size(), heads, out.out);
    if (output_weight.size() == 0) return;
    const std::lock_guard lock(mutex);
    const Index count = task.end - task.first;
    out.projected.variance.middleRows(task.first, count) += bound.projected.variance;
    out.projected.linear.middleRows(task.first, count) += bound.projected.linear;
  });
  return out;
}

Bounded rows_of(const Bounded& x, std::span<const std::int64_t> which) {
  const auto pick = [&](const RowMatrix& m) {
    if (m.size() == 0) return RowMatrix();
    RowMatrix out(std::ssize(which), m.cols());
    for (Index i = 0; i < out.rows(); ++i) out.row(i) = m.row(which[static_cast<std::size_t>(i)]);
    return out;
  };
  return {pick(x.y), pick(x.d), pick(x.s), {}};
}

Bounded decode_tap(const Tensor& tensor, std::span<const std::int64_t> rows) {
  std::int64_t columns =
      tensor.shape().empty() ? 0 : 1;  // a row has them where there is no row too
  for (std::size_t axis = 1; axis < tensor.shape().size(); ++axis) columns *= tensor.shape()[axis];
  Bounded out;
  out.y.resize(std::ssize(rows), columns);
  for (Index i = 0; i < out.y.rows() && columns > 0; ++i) {
    tensor.values(rows[static_cast<std::size_t>(i)] * columns,
                  {&out.y(i, 0), static_cast<std::size_t>(columns)});
  }
  return out;
}

std::vector<std::int64_t> iota(std::int64_t n) {
  std::vector<std::int64_t> out(static_cast<std::size_t>(n));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

}  // namespace attn::harness
