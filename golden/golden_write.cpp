#include <filesystem>

#include "golden/atomic_write.h"
#include "golden/digest.h"
#include "golden/golden_file.h"
#include "golden/provenance.h"
#include "golden/raw_file.h"
#include "reference/core/error.h"

namespace attn::golden {
namespace {

/// Which part of one cached token's data a dense row takes: `row_elements` elements from flat index
/// `first(b, p)` of the pool.
template <typename FirstIndex>
Tensor gather_tokens(const Case& c, const Tensor& pool, Shape row_shape, FirstIndex first) {
  std::int64_t tokens = 0;
  for (std::int64_t b = 0; b < c.batch(); ++b) tokens += c.cached(b);
  const std::int64_t row_elements = num_elements(row_shape);
  row_shape.insert(row_shape.begin(), tokens);
  Tensor dense(pool.type(), row_shape);
  const auto bytes = static_cast<std::size_t>(row_elements) * element_size(pool.type());
  std::byte* out = dense.data();
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t p = 0; p < c.cached(b); ++p, out += bytes) {
      const auto from = static_cast<std::size_t>(first(b, p)) * element_size(pool.type());
      std::copy_n(pool.data() + from, bytes, out);
    }
  }
  return dense;
}

/// Scales of the cached tokens: one per token and kv head, or whatever is not kept in pages as it
/// is.
Tensor gather_scales(const Case& c, const Tensor& scale) {
  if (c.config.kv_cache.scale_granularity != ScaleGranularity::kTokenHead) return scale;
  const std::int64_t width = c.config.k_width();
  return gather_tokens(c, scale, {c.config.num_key_value_heads},
                       [&](std::int64_t b, std::int64_t p) {
                         return c.cache.k_index(b, p) / width * c.config.num_key_value_heads;
                       });
}

void add_cache(const Case& c, std::map<std::string, Tensor>& datasets) {
  const std::int64_t heads = c.config.num_key_value_heads;
  datasets["cache/k"] =
      gather_tokens(c, c.cache.k, {heads, c.config.head_dim},
                    [&](std::int64_t b, std::int64_t p) { return c.cache.k_index(b, p); });
  datasets["cache/v"] =
      gather_tokens(c, c.cache.v, {heads, c.config.head_dim_v},
                    [&](std::int64_t b, std::int64_t p) { return c.cache.v_index(b, p); });
  if (!c.cache.k_scale.empty()) datasets["cache/k_scale"] = gather_scales(c, c.cache.k_scale);
  if (!c.cache.v_scale.empty()) datasets["cache/v_scale"] = gather_scales(c, c.cache.v_scale);
}

RawFile to_raw(const GoldenFile& file, const std::string& path) {
  const bool sealed = file.seal == Seal::kSealed;
  RawFile raw;
  raw.case_id = file.case_id.empty() ? std::filesystem::path(path).stem().string() : file.case_id;
  raw.config = file.config_json;
  raw.provenance = file.provenance_json;
  if (sealed) raw.content_sha256 = content_sha256(file);
  for (const auto& [name, tensor] : file.datasets) {
    raw.datasets[name] = {tensor, sealed ? dataset_sha256(tensor) : "", ""};
  }
  return raw;
}

void verify(const RawFile& wanted, const GoldenFile& file, const std::string& temporary) {
  const GoldenFile got = read(temporary);
  if (got.datasets != file.datasets || got.config_json != wanted.config ||
      got.provenance_json != wanted.provenance || got.case_id != wanted.case_id ||
      got.content_sha256 != wanted.content_sha256) {
    throw Error(ErrorKind::kInternal,
                printable(temporary) + ": reads back different from what was written");
  }
}

}  // namespace

GoldenFile make(const Case& c, const Trace& expected, const WriteOptions& options) {
  GoldenFile file;
  file.case_id = c.id;
  file.config_json = to_json(c.config);
  file.provenance_json = make_provenance(options, c.repro);
  file.seal = Seal::kSealed;
  auto& out = file.datasets;
  for (const auto& [name, tensor] : c.weights) out["weights/" + name] = tensor;
  const std::string lengths = c.config.starts_at_attention() ? "kv_lengths" : "cache_lengths";
  out["inputs/" + lengths] = c.cache_lengths;
  out["inputs/input_row_offsets"] = c.input_row_offsets;
  if (!c.x.empty()) out["inputs/x"] = c.x;
  if (!c.q.empty()) out["inputs/q"] = c.q;
  if (!c.freqs_cis.empty()) out["inputs/freqs_cis"] = c.freqs_cis;
  if (!c.mask.empty()) out["inputs/mask"] = c.mask;
  add_cache(c, out);
  for (const Stage stage : all_stages()) {
    if (!expected.has(stage)) continue;
    const Tensor& tensor = expected[stage];
    out["expected/" + std::string(name_of(stage))] =
        Tensor::from_values(ElementType::kFloat64, tensor.shape(), tensor.values());
  }
  file.content_sha256 = content_sha256(file);
  return file;
}

void write(const GoldenFile& file, const std::string& path, bool force) {
  const RawFile raw = to_raw(file, path);
  write_atomically(
      path, force, [&](const std::string& temporary) { format_hdf5(raw, temporary); },
      [&](const std::string& temporary) { verify(raw, file, temporary); });
}

}  // namespace attn::golden
