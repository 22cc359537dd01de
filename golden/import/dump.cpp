#include "golden/import/dump.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "golden/import/byte_file.h"
#include "golden/import/layer_weights.h"
#include "golden/import/tensor_file.h"
#include "reference/core/config_json_reader_internal.h"
#include "reference/core/paging.h"
#include "reference/core/rules.h"

namespace attn::golden {
namespace {

using Json = nlohmann::json;

std::int64_t sum(const std::vector<std::int64_t>& values) {
  return std::accumulate(values.begin(), values.end(), std::int64_t{0});
}

Tensor uint32_tensor(const std::vector<std::int64_t>& values) {
  Tensor t(ElementType::kUInt32, {static_cast<std::int64_t>(values.size())});
  for (std::size_t i = 0; i < values.size(); ++i) {
    t.as<std::uint32_t>()[i] = static_cast<std::uint32_t>(values[i]);
  }
  return t;
}

/// Where a dumped tensor keeps element (sequence b, row i, head h, 0).
struct Axes {
  DumpLayout layout;
  std::int64_t batch = 1;  ///< of the batched layouts
  std::int64_t rows = 0;   ///< all rows, or those of one sequence
  std::int64_t heads = 0;
  std::int64_t dim = 0;

  std::int64_t at(std::int64_t b, std::int64_t start, std::int64_t i, std::int64_t h) const {
    switch (layout) {
      case DumpLayout::kThd:
        return ((start + i) * heads + h) * dim;
      case DumpLayout::kBhsd:
        return ((b * heads + h) * rows + i) * dim;
      case DumpLayout::kBshd:
        return ((b * rows + i) * heads + h) * dim;
    }
    return 0;
  }
};

class DumpReader {
 public:
  explicit DumpReader(const DumpRequest& request)
      : request_(request), file_(open_tensor_file(request.file)) {}

  ImportedDump read() {
    const Tensor q = read_role("q");
    const Tensor k = read_role("k");
    const Tensor v = read_role("v");
    const Axes q_axes = axes_of("q", q.shape());
    const Axes k_axes = axes_of("k", k.shape());
    const Axes v_axes = axes_of("v", v.shape());
    check_together(k, v, q_axes, k_axes, v_axes);
    set_lengths(q_axes, k_axes);
    Case& c = dump_.c;
    c.config = make_config(q, k, q_axes, k_axes, v_axes);
    c.q = gather(q, q_axes, query_counts_);
    c.input_row_offsets = offsets(query_counts_);
    c.cache_lengths = uint32_tensor(key_counts_);
    try {
      fill_case(c, q_axes, gather(k, k_axes, key_counts_), gather(v, v_axes, key_counts_));
    } catch (const Error& error) {
      // A rule that the tensors break: the file is at fault, not the command line.
      if (error.kind() != ErrorKind::kConfig) throw;
      refuse_file(request_.file, "", error.what());
    }
    if (has("out")) dump_.given[Stage::kAttnOut] = read_out(v_axes.dim);
    if (has("lse")) dump_.given[Stage::kLse] = read_lse();
    return std::move(dump_);
  }

 private:
  bool has(const std::string& role) const { return request_.names.count(role) != 0; }
  const std::string& name(const std::string& role) const { return request_.names.at(role); }
  [[noreturn]] void fail(const std::string& role, const std::string& what) const {
    refuse_file(request_.file, name(role), what);
  }
  Tensor read_role(const std::string& role) const { return file_->read(name(role)); }

  Axes axes_of(const std::string& role, const Shape& s) const {
    const bool batched = request_.layout != DumpLayout::kThd;
    if (s.size() != (batched ? 4U : 3U)) {
      fail(role, std::string("has shape ") + to_string(s) +
                     (batched ? ", this layout needs 4 axes; try --layout thd"
                              : ", layout thd is [tokens, heads, dim]; try --layout bhsd or bshd"));
    }
    if (!batched) return {request_.layout, 1, s[0], s[1], s[2]};
    const bool heads_first = request_.layout == DumpLayout::kBhsd;
    return {request_.layout, s[0], heads_first ? s[2] : s[1], heads_first ? s[1] : s[2], s[3]};
  }

  void check_together(const Tensor& k, const Tensor& v, const Axes& q_axes, const Axes& k_axes,
                      const Axes& v_axes) const {
    if (k.type() != v.type()) fail("v", "has another type than k; dump both in one");
    if (k_axes.dim != q_axes.dim) {
      fail("k", "has " + std::to_string(k_axes.dim) + " channels a head, q has " +
                    std::to_string(q_axes.dim) + "; is the layout right?");
    }
    const bool same = k_axes.rows == v_axes.rows && k_axes.heads == v_axes.heads &&
                      k_axes.batch == v_axes.batch && k_axes.batch == q_axes.batch;
    if (!same) fail("v", "differs from q or k in its batch, heads or keys; is the layout right?");
  }

  std::vector<std::int64_t> read_integers(const std::string& role) const {
    const Tensor t = read_role(role);
    if (is_float(t.type()) || t.shape().size() != 1) fail(role, "must be a list of integers");
    std::vector<std::int64_t> values;
    for (const double value : t.values()) {
      if (value < 0 || value > 0x1p31) fail(role, "has a value outside of 0 .. 2^31");
      values.push_back(static_cast<std::int64_t>(value));
    }
    return values;
  }

  void fill_case(Case& c, const Axes& q_axes, const Tensor& k, const Tensor& v) {
    if (has("mask")) c.mask = read_mask(q_axes);
    if (has("sinks")) c.weights["sinks"] = read_sinks();
    c.cache = make_paged_cache(c.config, k, v, read_scale("k_scale"), read_scale("v_scale"),
                               key_counts_, key_counts_, PagingOptions{});
    validate(c);
  }

  /// The lengths that the dump says: cumulative ones, plain ones, or all rows.
  std::vector<std::int64_t> read_lengths(const std::string& cumulative, const std::string& plain,
                                         const Axes& axes) const {
    if (has(plain)) return read_integers(plain);
    if (!has(cumulative)) {
      return std::vector<std::int64_t>(static_cast<std::size_t>(axes.batch), axes.rows);
    }
    const std::vector<std::int64_t> ends = read_integers(cumulative);
    if (ends.empty() || ends.front() != 0) fail(cumulative, "must begin with 0");
    std::vector<std::int64_t> lengths;
    for (std::size_t i = 1; i < ends.size(); ++i) lengths.push_back(ends[i] - ends[i - 1]);
    return lengths;
  }

  void set_lengths(const Axes& q_axes, const Axes& k_axes) {
    if (request_.lengths.empty()) {
      query_counts_ = read_lengths("cu_seqlens_q", "q_lengths", q_axes);
      key_counts_ = read_lengths("cu_seqlens_k", "kv_lengths", k_axes);
    }
    for (const auto& [queries, keys] : request_.lengths) {
      query_counts_.push_back(queries);
      key_counts_.push_back(keys);
    }
    check_lengths("q", query_counts_, q_axes);
    check_lengths("k", key_counts_, k_axes);
    if (query_counts_.size() != key_counts_.size()) {
      fail("k", std::to_string(key_counts_.size()) + " sequences of keys, " +
                    std::to_string(query_counts_.size()) + " of queries; give the lengths of both");
    }
  }

  void check_lengths(const std::string& role, const std::vector<std::int64_t>& lengths,
                     const Axes& axes) const {
    const bool batched = axes.layout != DumpLayout::kThd;
    const bool positive = std::ranges::all_of(lengths, [](std::int64_t n) { return n >= 0; });
    const bool fits =
        batched ? static_cast<std::int64_t>(lengths.size()) == axes.batch &&
                      std::ranges::all_of(lengths, [&](std::int64_t n) { return n <= axes.rows; })
                : sum(lengths) == axes.rows;
    if (!positive || !fits) {
      fail(role, "the lengths of its " + std::to_string(lengths.size()) +
                     " sequences do not fit its shape; they must " +
                     (batched ? "be as many as the batch and at most its rows"
                              : "add up to its rows, " + std::to_string(axes.rows)));
    }
  }

  AttentionConfig make_config(const Tensor& q, const Tensor& k, const Axes& q_axes,
                              const Axes& k_axes, const Axes& v_axes) {
    Json json = {{"variant", "attention"},
                 {"entry_point", "attention"},
                 {"num_attention_heads", q_axes.heads},
                 {"num_key_value_heads", k_axes.heads},
                 {"head_dim", q_axes.dim},
                 {"head_dim_v", v_axes.dim},
                 {"dtype", element_name(q.type())}};
    try {
      parse_config(json.dump());
    } catch (const Error& error) {
      // Shapes and types that no config has: the file is at fault, not the command line.
      refuse_file(request_.file, "",
                  std::string(error.what()) + "; is " + name("q") + " the right tensor and the " +
                      "layout right?");
    }
    Json given = Json::object();
    if (!request_.config_json.empty()) given = parse_json(request_.config_json);
    ObjectReader in(given, "");
    for (const char* key : {"mask", "scale", "logit_softcap"}) {
      if (const Json* value = in.find(key)) json[key] = *value;
    }
    Json cache = {{"page_size", 128}};
    if (const Json* value = in.find("kv_cache")) cache.update(*value);
    in.finish();
    cache["dtype"] = element_name(k.type());
    if (has("k_scale") && !cache.contains("scale_granularity")) {
      const std::size_t axes = file_->entry(name("k_scale")).shape.size();
      cache["scale_granularity"] = axes == 0 ? "tensor" : axes == 1 ? "head" : "token_head";
    }
    json["kv_cache"] = cache;
    if (has("mask")) {
      if (json.contains("mask")) refuse("mask", "is given twice, as a tensor and in --config");
      json["mask"] = {{"variant", "tensor"}};
    } else if (!json.contains("mask")) {
      dump_.notes.emplace_back(
          "mask: causal, aligned at the last key; --config '{\"mask\": "
          "{\"variant\": ...}}' says otherwise");
      json["mask"] = {{"variant", "causal"}};
    }
    return parse_config(json.dump());
  }

  static Tensor offsets(const std::vector<std::int64_t>& lengths) {
    std::vector<std::int64_t> ends = {0};
    for (const std::int64_t length : lengths) ends.push_back(ends.back() + length);
    return uint32_tensor(ends);
  }

  /// The rows of all sequences back to back, [tokens, heads, dim]; padding behind them is left out.
  static Tensor gather(const Tensor& t, const Axes& axes,
                       const std::vector<std::int64_t>& lengths) {
    Tensor out(t.type(), {sum(lengths), axes.heads, axes.dim});
    const std::size_t size = element_size(t.type());
    const std::size_t bytes = static_cast<std::size_t>(axes.dim) * size;
    std::byte* to = out.data();
    std::int64_t start = 0;
    for (std::size_t b = 0; b < lengths.size(); ++b) {
      for (std::int64_t i = 0; i < lengths[b]; ++i) {
        for (std::int64_t h = 0; h < axes.heads; ++h, to += bytes) {
          const std::int64_t from = axes.at(static_cast<std::int64_t>(b), start, i, h);
          if (bytes != 0) {
            std::memcpy(to, t.data() + static_cast<std::size_t>(from) * size, bytes);
          }
        }
      }
      start += lengths[b];
    }
    return out;
  }

  /// out as dumped, [tokens, heads * dim]; heads and channels may be one axis.
  Tensor read_out(std::int64_t dim) const {
    Tensor t = read_role("out");
    const AttentionConfig& config = dump_.c.config;
    const std::int64_t heads = config.num_attention_heads;
    Shape shape = t.shape();
    const std::size_t axes = request_.layout == DumpLayout::kThd ? 3 : 4;
    if (shape.size() + 1 == axes && request_.layout != DumpLayout::kBhsd &&
        shape.back() == heads * dim) {
      shape.back() = heads;
      shape.push_back(dim);
      t = reshaped(t, shape);
    }
    const Axes out_axes = axes_of("out", t.shape());
    if (out_axes.heads != heads || out_axes.dim != dim) {
      fail("out", "has shape " + to_string(t.shape()) + ", q and v make " + std::to_string(heads) +
                      " heads of " + std::to_string(dim) + "; is the layout right?");
    }
    check_lengths("out", query_counts_, out_axes);
    const Tensor rows = gather(t, out_axes, query_counts_);
    return reshaped(rows, {dump_.c.tokens(), heads * dim});
  }

  /// lse as dumped, [tokens, heads]. Kernels return it as [batch, heads, rows] or [heads, tokens]
  /// whatever the layout of q is.
  Tensor read_lse() const {
    Tensor t = read_role("lse");
    Shape shape = t.shape();
    while (shape.size() > 2 && shape.back() == 1) shape.pop_back();
    const std::int64_t heads = dump_.c.config.num_attention_heads;
    const bool batched = request_.layout != DumpLayout::kThd;
    Axes axes{request_.layout, 1, dump_.c.tokens(), heads, 1};
    bool fits = false;
    if (batched) {
      const Axes q_axes = axes_of("q", file_->entry(name("q")).shape);
      axes.batch = q_axes.batch;
      axes.rows = q_axes.rows;
      const bool heads_first = shape == Shape{axes.batch, heads, axes.rows};
      axes.layout = heads_first ? DumpLayout::kBhsd : DumpLayout::kBshd;
      fits = heads_first || shape == Shape{axes.batch, axes.rows, heads};
    } else if (shape == Shape{axes.rows, heads}) {
      fits = true;
    } else {
      axes.layout = DumpLayout::kBhsd;  // one batch of [heads, tokens]
      fits = shape == Shape{heads, axes.rows};
    }
    if (!fits)
      fail("lse", "has shape " + to_string(t.shape()) +
                      ", which fits neither [.., heads, "
                      "rows] nor [.., rows, heads]");
    const std::vector<std::int64_t> rows =
        batched ? query_counts_ : std::vector<std::int64_t>{dump_.c.tokens()};
    return reshaped(gather(t, axes, rows), {dump_.c.tokens(), heads});
  }

  /// [tokens, longest] float32: added to the scores; of a boolean mask true is 0 and false -inf.
  /// The dumped one is [rows, keys] for every sequence, [tokens, longest], or
  /// [batch or 1, 1, rows, keys].
  Tensor read_mask(const Axes& q_axes) const {
    const Tensor t = read_role("mask");
    const Shape& s = t.shape();
    const bool additive = is_float(t.type());
    const std::int64_t longest = key_counts_.empty() ? 0 : *std::ranges::max_element(key_counts_);
    const bool batched = q_axes.layout != DumpLayout::kThd;
    const bool by_sequence = s.size() == 4 && s[0] == q_axes.batch && s[1] == 1;
    const bool shared = s.size() == 2 || (s.size() == 4 && s[0] == 1 && s[1] == 1);
    const std::int64_t rows = s.size() < 2 ? 0 : s[s.size() - 2];
    const std::int64_t columns = s.empty() ? 0 : s.back();
    if (!(shared || by_sequence) || rows != q_axes.rows || columns < longest) {
      fail("mask", "has shape " + to_string(s) +
                       "; it must be [rows, keys] or [batch or 1, 1, "
                       "rows, keys], the same for all heads, at least " +
                       std::to_string(longest) + " keys wide");
    }
    Tensor out(ElementType::kFloat32, {sum(query_counts_), longest});
    std::int64_t to = 0;
    std::int64_t start = 0;
    for (std::size_t b = 0; b < query_counts_.size(); ++b) {
      const std::int64_t base = by_sequence ? static_cast<std::int64_t>(b) * rows : 0;
      for (std::int64_t i = 0; i < query_counts_[b]; ++i) {
        const std::int64_t row = base + (batched ? i : start + i);
        for (std::int64_t key = 0; key < longest; ++key, ++to) {
          const double value = t.value(row * columns + key);
          const double hidden = -std::numeric_limits<double>::infinity();
          out.set_value(to, additive ? value : value != 0.0 ? 0.0 : hidden);
        }
      }
      start += query_counts_[b];
    }
    return out;
  }

  Tensor read_sinks() const {
    const AttentionConfig& config = dump_.c.config;
    TensorSpec spec{"sinks", {config.num_attention_heads}, {config.dtype, ElementType::kFloat32}};
    return fit(reshaped(read_role("sinks"), {file_size("sinks")}), spec, request_.file,
               name("sinks"));
  }
  std::int64_t file_size(const std::string& role) const {
    return num_elements(file_->entry(name(role)).shape);
  }

  Tensor read_scale(const std::string& role) const {
    if (!has(role)) return {};
    const Tensor t = read_role(role);
    return fit(t, {role, t.shape(), {ElementType::kFloat32}}, request_.file, name(role));
  }

  const DumpRequest& request_;
  std::unique_ptr<TensorFile> file_;
  ImportedDump dump_;
  std::vector<std::int64_t> query_counts_;
  std::vector<std::int64_t> key_counts_;
};

}  // namespace

const std::vector<std::string>& dump_roles() {
  static const std::vector<std::string> kRoles = {
      "q",       "k",       "v",         "out",        "lse",          "mask",        "sinks",
      "k_scale", "v_scale", "q_lengths", "kv_lengths", "cu_seqlens_q", "cu_seqlens_k"};
  return kRoles;
}

ImportedDump import_dump(const DumpRequest& request) { return DumpReader(request).read(); }

}  // namespace attn::golden
