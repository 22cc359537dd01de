#include <algorithm>
#include <numeric>

#include "golden/golden_file.h"
#include "golden/raw_file.h"
#include "reference/core/error.h"
#include "reference/core/rules.h"

namespace attn::golden {
namespace {

/// The pool may take this much more than the datasets do: page_size is a number in the config, and
/// a hostile one must not decide how much memory is taken.
constexpr std::uint64_t kPoolExpansion = 64;
constexpr std::uint64_t kPoolSlack = std::uint64_t{256} << 20;

[[noreturn]] void fail(const GoldenFile& file, const std::string& where, const std::string& what) {
  throw Error(ErrorKind::kInput, printable(file.path) + ": " + printable(where) + ": " + what,
              where);
}

/// The dataset, or an absent tensor when it is optional and not there.
Tensor take(const GoldenFile& file, const std::string& path, bool optional = false) {
  const auto found = file.datasets.find(path);
  if (found != file.datasets.end()) return found->second;
  if (!optional) fail(file, path, "is missing");
  return {};
}

/// A [count] uint32 vector as integers.
std::vector<std::int64_t> take_lengths(const GoldenFile& file, const std::string& path,
                                       const Tensor& tensor, std::int64_t count) {
  if (tensor.type() != ElementType::kUInt32 || tensor.shape() != Shape{count}) {
    fail(file, path,
         "is " + std::string(element_name(tensor.type())) + " " + to_string(tensor.shape()) +
             ", must be uint32 " + to_string({count}));
  }
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < count; ++i) {
    out.push_back(static_cast<std::int64_t>(tensor.code(i)));
  }
  return out;
}

/// Shape and type of a dense cache tensor; an absent one is right only when it holds no token.
void check_dense(const GoldenFile& file, const std::string& path, const Tensor& tensor,
                 ElementType type, const Shape& shape) {
  if (tensor.empty()) {
    if (shape[0] != 0) fail(file, path, "is missing");
    return;
  }
  if (tensor.type() != type || tensor.shape() != shape) {
    fail(file, path,
         "is " + std::string(element_name(tensor.type())) + " " + to_string(tensor.shape()) +
             ", must be " + std::string(element_name(type)) + " " + to_string(shape));
  }
}

void check_pool_size(const GoldenFile& file, const AttentionConfig& config,
                     const std::vector<std::int64_t>& capacity, const PagingOptions& options) {
  std::uint64_t held = 0;
  for (const auto& [path, tensor] : file.datasets) held += tensor.bytes().size();
  const auto page = static_cast<std::uint64_t>(config.kv_cache.page_size);
  auto pages = static_cast<std::uint64_t>(options.spare_pages);
  for (const std::int64_t tokens : capacity) {
    pages += static_cast<std::uint64_t>(tokens) / page + 1;
  }
  std::uint64_t bytes = element_size(config.kv_cache.dtype);
  bool overflow = false;
  for (const std::uint64_t factor :
       {pages, page, static_cast<std::uint64_t>(options.num_layers),
        static_cast<std::uint64_t>(config.num_key_value_heads),
        static_cast<std::uint64_t>(config.head_dim + config.head_dim_v)}) {
    overflow |= __builtin_mul_overflow(bytes, factor, &bytes);
  }
  if (overflow || bytes > kPoolExpansion * held + kPoolSlack) {
    fail(file, "config",
         "page_size " + std::to_string(page) +
             " needs a cache pool far larger than "
             "the file; use a smaller page");
  }
}

void lay_out_cache(const GoldenFile& file, const PagingOptions& options, Case& c) {
  const std::int64_t batch = c.batch();
  const std::string lengths_path =
      c.config.starts_at_attention() ? "inputs/kv_lengths" : "inputs/cache_lengths";
  const std::vector<std::int64_t> lengths =
      take_lengths(file, lengths_path, c.cache_lengths, batch);
  std::vector<std::int64_t> capacity;
  for (std::int64_t b = 0; b < batch; ++b) {
    if (c.row_count(b) < 0) fail(file, "inputs/input_row_offsets", "must not decrease");
    capacity.push_back(c.key_count(b));
  }
  const std::int64_t tokens = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  const std::int64_t heads = c.config.num_key_value_heads;
  const Tensor k = take(file, "cache/k", true);
  const Tensor v = take(file, "cache/v", true);
  check_dense(file, "cache/k", k, c.config.kv_cache.dtype, {tokens, heads, c.config.head_dim});
  check_dense(file, "cache/v", v, c.config.kv_cache.dtype, {tokens, heads, c.config.head_dim_v});
  check_pool_size(file, c.config, capacity, options);
  c.cache = make_paged_cache(c.config, k, v, take(file, "cache/k_scale", true),
                             take(file, "cache/v_scale", true), lengths, capacity, options);
}

Case build_case(const GoldenFile& file, const PagingOptions& options) {
  Case c;
  c.id = file.case_id;
  c.config = file.config();
  for (const TensorSpec& spec : expected_weights(c.config)) {
    Tensor tensor = take(file, "weights/" + spec.name, spec.optional);
    if (!tensor.empty()) c.weights[spec.name] = std::move(tensor);
  }
  c.input_row_offsets = take(file, "inputs/input_row_offsets");
  if (c.input_row_offsets.shape().size() != 1 || c.input_row_offsets.size() < 1) {
    fail(file, "inputs/input_row_offsets", "must have shape [batch + 1]");
  }
  take_lengths(file, "inputs/input_row_offsets", c.input_row_offsets, c.input_row_offsets.size());
  if (c.config.starts_at_attention()) {
    c.q = take(file, "inputs/q");
    c.cache_lengths = take(file, "inputs/kv_lengths");
  } else {
    c.x = take(file, "inputs/x");
    c.cache_lengths = take(file, "inputs/cache_lengths");
    c.freqs_cis = take(file, "inputs/freqs_cis");
  }
  const std::string rows_path = c.config.starts_at_attention() ? "inputs/q" : "inputs/x";
  const Shape& rows = file.datasets.at(rows_path).shape();
  const std::int64_t last = c.row_begin(c.batch());
  if (rows.empty() || last > rows[0]) {
    fail(file, "inputs/input_row_offsets",
         "ends at " + std::to_string(last) + ", " + rows_path + " has shape " + to_string(rows));
  }
  if (c.config.mask.variant == MaskVariant::kTensor) c.mask = take(file, "inputs/mask");
  lay_out_cache(file, options, c);
  validate(c);
  return c;
}

}  // namespace

Case to_case(const GoldenFile& file, const PagingOptions& options) {
  try {
    return build_case(file, options);
  } catch (const Error& error) {
    const std::string prefix = printable(file.path) + ": ";
    const std::string message = error.what();
    if (message.starts_with(prefix)) throw;
    throw Error(error.kind(), prefix + message, error.field(), error.rule());
  }
}

Trace expected(const GoldenFile& file, const Case& c) {
  const std::vector<Stage> known = stages_of(c.config);
  Trace out;
  for (const Stage stage : all_stages()) {
    const std::string path = "expected/" + std::string(name_of(stage));
    if (!file.has(path)) continue;
    if (std::find(known.begin(), known.end(), stage) == known.end()) {
      fail(file, path, "this config has no such stage");
    }
    Tensor tensor = take(file, path);
    const Shape shape = stage_shape(c, stage);
    if (tensor.type() != ElementType::kFloat64 || tensor.shape() != shape) {
      fail(file, path,
           "is " + std::string(element_name(tensor.type())) + " " + to_string(tensor.shape()) +
               ", must be float64 " + to_string(shape));
    }
    out[stage] = std::move(tensor);
  }
  return out;
}

}  // namespace attn::golden
