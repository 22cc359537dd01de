#include "harness/backends/capacity.h"

#include <algorithm>

namespace attn::harness {

Capacity capacity_of(const Case& c) {
  Capacity room;
  room.batch = c.batch();
  room.tokens = c.tokens();
  room.table_columns = c.cache.page_table.dim(1);
  room.mask_columns = c.mask.empty() ? 0 : c.mask.dim(1);
  room.positions = c.freqs_cis.empty() ? 0 : c.freqs_cis.dim(0);
  room.pages = c.cache.num_pages();
  return room;
}

Capacity larger(const Capacity& a, const Capacity& b) {
  Capacity room;
  room.batch = std::max(a.batch, b.batch);
  room.tokens = std::max(a.tokens, b.tokens);
  room.table_columns = std::max(a.table_columns, b.table_columns);
  room.mask_columns = std::max(a.mask_columns, b.mask_columns);
  room.positions = std::max(a.positions, b.positions);
  room.pages = std::max(a.pages, b.pages);
  return room;
}

std::int64_t padded_batch(std::int64_t batch) {
  std::int64_t bucket = 4;
  while (bucket <= batch) bucket *= 2;
  return bucket;
}

}  // namespace attn::harness
