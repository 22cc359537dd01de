#include "reference/core/case.h"

#include <limits>

#include "reference/core/error.h"

namespace attn {

namespace {

/// Element i of an unsigned 32-bit index tensor.
std::int64_t index_at(const Tensor& tensor, std::int64_t i) {
  if (tensor.type() != ElementType::kUInt32 || i < 0 || i >= tensor.size()) {
    throw Error(ErrorKind::kInternal, "element " + std::to_string(i) + " of an index tensor of " +
                                          std::string(element_name(tensor.type())) + " " +
                                          to_string(tensor.shape()) + " does not exist");
  }
  return tensor.as<std::uint32_t>()[i];
}

}  // namespace

std::int64_t KvCache::page_of(std::int64_t b, std::int64_t p) const {
  const std::int64_t column = p / page_size;
  if (b < 0 || p < 0 || b >= page_table.dim(0) || column >= page_table.dim(1)) {
    throw Error(ErrorKind::kInput,
                "position " + std::to_string(p) + " of sequence " + std::to_string(b) +
                    " is outside of the page table of shape " + to_string(page_table.shape()) +
                    "; give the sequence more pages",
                "page_table");
  }
  const std::int64_t page = index_at(page_table, b * page_table.dim(1) + column);
  if (page >= num_pages()) {
    throw Error(ErrorKind::kInput,
                "page_table[" + std::to_string(b) + ", " + std::to_string(column) + "] is " +
                    std::to_string(page) + "; position " + std::to_string(p) +
                    " needs a page below num_pages = " + std::to_string(num_pages()),
                "page_table");
  }
  return page;
}

std::int64_t KvCache::slot(std::int64_t b, std::int64_t p) const {
  return (page_of(b, p) * num_layers + layer) * page_size + p % page_size;
}

std::int64_t KvCache::k_index(std::int64_t b, std::int64_t p) const {
  return slot(b, p) * k.dim(3) * k.dim(4);
}

std::int64_t KvCache::v_index(std::int64_t b, std::int64_t p) const {
  return slot(b, p) * v.dim(3) * v.dim(4);
}

std::int64_t KvCache::scale_index(const Tensor& scale, std::int64_t slot, std::int64_t head) const {
  const bool per_token = scale.shape().size() == 4;
  const bool per_head = scale.shape().size() == 1;
  return per_token ? slot * scale.dim(3) + head : per_head ? head : 0;
}

std::int64_t Case::row_begin(std::int64_t b) const { return index_at(input_row_offsets, b); }

std::int64_t Case::tokens() const { return row_begin(batch()); }

std::int64_t Case::row_count(std::int64_t b) const { return row_begin(b + 1) - row_begin(b); }

std::int64_t Case::cached(std::int64_t b) const { return index_at(cache_lengths, b); }

std::int64_t Case::key_count(std::int64_t b) const {
  return config.starts_at_attention() ? cached(b) : cached(b) + row_count(b);
}

std::int64_t Case::total_keys() const {
  std::int64_t total = 0;
  for (std::int64_t b = 0; b < batch(); ++b) total += key_count(b);
  return total;
}

std::int64_t Case::query_position(std::int64_t b, std::int64_t i) const {
  return config.mask.align == MaskAlign::kTopLeft ? i : key_count(b) - row_count(b) + i;
}

}  // namespace attn
