#include <algorithm>

#include "reference/core/quant_internal.h"
#include "reference/core/rules_internal.h"

namespace attn {
namespace {

using Result = std::optional<Violation>;

std::string at(const std::string& name, std::int64_t i) {
  return name + "[" + std::to_string(i) + "]";
}

const std::string kOffsets = "inputs/input_row_offsets";

Result offsets_start_at_zero(const Case& c) {
  if (c.input_row_offsets.size() < 1) {
    return violation(kOffsets, "[]", "needs batch + 1 entries; the first is 0");
  }
  if (c.row_begin(0) == 0) return std::nullopt;
  return violation(at(kOffsets, 0), std::to_string(c.row_begin(0)),
                   "offsets start at 0; subtract the first one from all");
}

Result offsets_are_monotone(const Case& c) {
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    if (c.row_count(b) < 0) {
      return violation(at(kOffsets, b + 1), std::to_string(c.row_begin(b + 1)),
                       "offsets never fall, and the one before is " +
                           std::to_string(c.row_begin(b)) + "; sort the sequences");
    }
  }
  return std::nullopt;
}

Result offsets_end_at_tokens(const Case& c) {
  const Tensor& rows = c.config.starts_at_attention() ? c.q : c.x;
  if (c.tokens() == rows.dim(0)) return std::nullopt;
  return violation(at(kOffsets, c.batch()), std::to_string(c.tokens()),
                   "offsets end at the number of tokens, " + std::to_string(rows.dim(0)) +
                       "; count the rows of every sequence");
}

Result positions_are_in_the_table(const Case& c) {
  if (c.config.starts_at_attention()) return std::nullopt;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    if (c.row_count(b) > 0 && c.key_count(b) > c.freqs_cis.dim(0)) {
      return violation(at(lengths_name(c), b), std::to_string(c.cached(b)),
                       "the last of its " + std::to_string(c.row_count(b)) +
                           " new rows has position " + std::to_string(c.key_count(b) - 1) +
                           ", but inputs/freqs_cis has only " + std::to_string(c.freqs_cis.dim(0)) +
                           " rows; make the table longer");
    }
  }
  return std::nullopt;
}

Result mask_covers_all_keys(const Case& c) {
  if (c.config.mask.variant != MaskVariant::kTensor) return std::nullopt;
  std::int64_t longest = 0;
  for (std::int64_t b = 0; b < c.batch(); ++b) longest = std::max(longest, c.key_count(b));
  const Shape wanted{c.tokens(), longest};
  if (c.mask.shape() == wanted) return std::nullopt;
  return violation("inputs/mask", "shape " + to_string(c.mask.shape()),
                   "needs a column for every key of the longest sequence, " + to_string(wanted) +
                       "; store it so");
}

// ---- The paged cache.

Result layer_exists(const Case& c) {
  if (c.cache.layer >= 0 && c.cache.layer < c.cache.num_layers) return std::nullopt;
  return violation("cache.layer", std::to_string(c.cache.layer),
                   "the pool has layers 0 .. " + std::to_string(c.cache.num_layers - 1) +
                       "; choose one of them");
}

Result page_size_is_the_config_s(const Case& c) {
  if (c.cache.page_size == c.config.kv_cache.page_size) return std::nullopt;
  return violation("cache.page_size", std::to_string(c.cache.page_size),
                   "the config's kv_cache.page_size is " +
                       std::to_string(c.config.kv_cache.page_size) + "; use the same");
}

std::int64_t pages_of(const Case& c, std::int64_t tokens) {
  return (tokens + c.cache.page_size - 1) / c.cache.page_size;
}

Result page_table_is_wide_enough(const Case& c) {
  const Tensor& table = c.cache.page_table;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    const std::int64_t pages = pages_of(c, c.key_count(b));
    if (pages > table.dim(1)) {
      return violation("cache/page_table", "shape " + to_string(table.shape()),
                       "the " + std::to_string(c.key_count(b)) + " keys of sequence " +
                           std::to_string(b) + " need " + std::to_string(pages) +
                           " columns; widen it");
    }
  }
  return std::nullopt;
}

std::string page_field(std::int64_t b, std::int64_t j) {
  return "cache/page_table[" + std::to_string(b) + ", " + std::to_string(j) + "]";
}

Result pages_are_in_the_pool(const Case& c) {
  const Tensor& table = c.cache.page_table;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t j = 0; j < pages_of(c, c.key_count(b)); ++j) {
      const std::int64_t page = table.as<std::uint32_t>()[b * table.dim(1) + j];
      if (page >= c.cache.num_pages()) {
        return violation(page_field(b, j), std::to_string(page),
                         "positions of the sequence lie there, so it must be below num_pages = " +
                             std::to_string(c.cache.num_pages()) + "; give it a page");
      }
    }
  }
  return std::nullopt;
}

/// Sequences may share pages that they only read (a common prefix). A page that the call writes has
/// one owner, or rows would overwrite each other.
Result written_pages_are_not_shared(const Case& c) {
  if (c.config.starts_at_attention()) return std::nullopt;
  const Tensor& table = c.cache.page_table;
  const auto page_at = [&](std::int64_t b, std::int64_t j) {
    return static_cast<std::size_t>(table.as<std::uint32_t>()[b * table.dim(1) + j]);
  };
  std::vector<std::int64_t> uses(static_cast<std::size_t>(c.cache.num_pages()), 0);
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t j = 0; j < pages_of(c, c.key_count(b)); ++j) ++uses[page_at(b, j)];
  }
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    if (c.row_count(b) == 0) continue;
    for (std::int64_t j = c.cached(b) / c.cache.page_size; j < pages_of(c, c.key_count(b)); ++j) {
      if (uses[page_at(b, j)] > 1) {
        return violation(page_field(b, j), std::to_string(page_at(b, j)),
                         "new rows are written to this page, and other positions lie there too; "
                         "give the sequence a page of its own");
      }
    }
  }
  return std::nullopt;
}

// ---- GPTQ.

bool is_gptq(const Case& c) {
  return c.config.quant && c.config.quant->q_proj == QuantEncoding::kGptq;
}

const Tensor* find_weight(const Case& c, const std::string& name) {
  const auto it = c.weights.find(name);
  return it == c.weights.end() ? nullptr : &it->second;
}

Result group_indices_are_in_range(const Case& c) {
  if (!is_gptq(c)) return std::nullopt;
  for (const Projection& p : projections_of(c.config)) {
    const Tensor* g_idx = find_weight(c, std::string(p.name) + ".g_idx");
    if (g_idx == nullptr) continue;
    const std::int64_t groups =
        c.config.quant->group_size == -1 ? 1 : p.in / c.config.quant->group_size;
    for (std::int64_t k = 0; k < g_idx->size(); ++k) {
      const std::int64_t group = g_idx->as<std::int32_t>()[k];
      if (group < 0 || group >= groups) {
        return violation(at("weights/" + std::string(p.name) + ".g_idx", k), std::to_string(group),
                         "must be below the number of groups, " + std::to_string(groups) +
                             "; repair the checkpoint");
      }
    }
  }
  return std::nullopt;
}

/// q, k and v see the same input, so its columns are permuted once for the three.
Result group_indices_agree(const Case& c) {
  if (!is_gptq(c)) return std::nullopt;
  const Tensor* k_idx = find_weight(c, "k_proj.g_idx");
  for (const char* name : {"q_proj.g_idx", "v_proj.g_idx"}) {
    const Tensor* other = find_weight(c, name);
    if (other == nullptr || k_idx == nullptr) continue;
    for (std::int64_t k = 0; k < other->size(); ++k) {
      const std::int32_t group = other->as<std::int32_t>()[k];
      const std::int32_t expected = k_idx->as<std::int32_t>()[k];
      if (group != expected) {
        return violation(at(std::string("weights/") + name, k), std::to_string(group),
                         "q, k and v must have the same g_idx, and k_proj's is " +
                             std::to_string(expected) + "; quantise the three together");
      }
    }
  }
  return std::nullopt;
}

Result zero_points_are_symmetric(const Case& c) {
  if (!is_gptq(c)) return std::nullopt;
  const QuantConfig& quant = *c.config.quant;
  const std::uint32_t zero = std::uint32_t{1} << (quant.bits - 1);
  const std::uint32_t stored = quant.checkpoint_v2 ? zero : zero - 1;
  const std::int64_t per_word = 32 / quant.bits;
  for (const Projection& p : projections_of(c.config)) {
    const Tensor* zeros = find_weight(c, std::string(p.name) + ".qzeros");
    if (zeros == nullptr) continue;
    for (std::int64_t g = 0; g < zeros->dim(0); ++g) {
      for (std::int64_t n = 0; n < p.out; ++n) {
        const std::uint32_t word = zeros->as<std::uint32_t>()[g * zeros->dim(1) + n / per_word];
        const std::uint32_t found =
            (word >> (n % per_word * quant.bits)) & ((std::uint32_t{1} << quant.bits) - 1);
        if (found != stored) {
          return violation("weights/" + std::string(p.name) + ".qzeros group " + std::to_string(g) +
                               " row " + std::to_string(n),
                           std::to_string(found),
                           "the stored zero point must be " + std::to_string(stored) +
                               " (symmetric codes); check checkpoint_format, or quantise with sym");
        }
      }
    }
  }
  return std::nullopt;
}

constexpr auto kRules = std::to_array<CaseRule>({
    {"6a", "offsets start at 0", offsets_start_at_zero},
    {"6b", "offsets are monotone", offsets_are_monotone},
    {"6c", "offsets end at the number of tokens", offsets_end_at_tokens},
    {"6d", "positions are in the table", positions_are_in_the_table},
    {"t5", "the mask covers all keys", mask_covers_all_keys},
    {"t6", "the layer exists", layer_exists},
    {"t7", "the cache has the config's page size", page_size_is_the_config_s},
    {"t8", "the page table is wide enough", page_table_is_wide_enough},
    {"t9", "pages are in the pool", pages_are_in_the_pool},
    {"t10", "written pages are not shared", written_pages_are_not_shared},
    {"10d", "g_idx is in range", group_indices_are_in_range},
    {"10e", "q, k and v have the same g_idx", group_indices_agree},
    {"10f", "zero points are symmetric", zero_points_are_symmetric},
});

}  // namespace

std::span<const CaseRule> content_rules() { return kRules; }

}  // namespace attn
