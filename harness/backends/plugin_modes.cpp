#include "harness/backends/plugin_modes.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "harness/backends/backend_failure.h"
#include "harness/backends/guarded_memory.h"
#include "harness/backends/padding.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

std::size_t bytes_of_row(const Tensor& t) {
  return t.dim(0) == 0 ? 0 : t.bytes().size() / static_cast<std::size_t>(t.dim(0));
}

/// [rows, ...] with more rows, which hold poison.
Tensor with_rows(const Tensor& t, std::int64_t rows) {
  if (t.empty() || t.dim(0) == rows) return t;
  Shape shape = t.shape();
  shape[0] = rows;
  Tensor more(t.type(), std::move(shape));
  std::ranges::fill(std::span(more.data(), more.bytes().size()), kPoison);
  std::ranges::copy(t.bytes(), more.data());
  return more;
}

Tensor first_rows(const Tensor& t, std::int64_t rows) {
  Shape shape = t.shape();
  shape[0] = rows;
  Tensor fewer(t.type(), std::move(shape));
  std::ranges::copy(t.bytes().first(fewer.bytes().size()), fewer.data());
  return fewer;
}

/// [rows, columns] with room for more of both, which hold poison.
Tensor with_columns(const Tensor& t, std::int64_t rows, std::int64_t columns) {
  if (t.empty()) return t;
  Tensor more(t.type(), {rows, columns});
  std::ranges::fill(std::span(more.data(), more.bytes().size()), kPoison);
  const std::size_t from = bytes_of_row(t), to = bytes_of_row(more);
  for (std::int64_t r = 0; r < t.dim(0); ++r) {
    std::memcpy(more.data() + static_cast<std::size_t>(r) * to,
                t.data() + static_cast<std::size_t>(r) * from, from);
  }
  return more;
}

/// A page that no sequence has keeps its meaning, one past the last, in a pool of `pages`.
Tensor page_table_of(const KvCache& cache, const Capacity& room) {
  Tensor table(ElementType::kUInt32, {room.batch, room.table_columns});
  const Tensor& old = cache.page_table;
  for (std::int64_t i = 0; i < table.size(); ++i) {
    const std::int64_t b = i / room.table_columns, column = i % room.table_columns;
    const bool is_old = b < old.dim(0) && column < old.dim(1);
    const auto page =
        is_old ? static_cast<std::int64_t>(old.code(b * old.dim(1) + column)) : cache.num_pages();
    table.set_code(i, static_cast<std::uint64_t>(page < cache.num_pages() ? page : room.pages));
  }
  return table;
}

void give_room(KvCache& cache, const Capacity& room) {
  cache.page_table = page_table_of(cache, room);
  for (Tensor* t : {&cache.k, &cache.v}) *t = with_rows(*t, room.pages);
  for (Tensor* t : {&cache.k_scale, &cache.v_scale}) {
    if (t->shape().size() >= 4) *t = with_rows(*t, room.pages);  // of single tokens
  }
}

/// Rows and keys of each sequence, the more of two cases, in tensors that plan() sees.
void plan_for_longer(const Case& c, const Case& other, RoomyOperands& planned) {
  std::uint64_t offset = 0;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    const std::int64_t rows = std::max(c.row_count(b), other.row_count(b));
    const std::int64_t cached = std::max(c.cached(b), other.cached(b));
    const std::int64_t keys = c.config.starts_at_attention() ? cached : cached + rows;
    offset += static_cast<std::uint64_t>(rows);
    planned.c.input_row_offsets.set_code(b + 1, offset);
    planned.c.cache_lengths.set_code(b, static_cast<std::uint64_t>(cached));
    planned.operands.key_lengths.set_code(b, static_cast<std::uint64_t>(keys));
  }
}

/// Room for each sequence's longer one of two cases.
Capacity room_for_both(const Case& c, const Case& other) {
  Capacity room = larger(capacity_of(c), capacity_of(other));
  std::int64_t tokens = 0, longest = 0;
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    const std::int64_t rows = std::max(c.row_count(b), other.row_count(b));
    const std::int64_t cached = std::max(c.cached(b), other.cached(b));
    tokens += rows;
    longest = std::max(longest, c.config.starts_at_attention() ? cached : cached + rows);
  }
  room.tokens = tokens;
  const std::int64_t page = std::max<std::int64_t>(1, c.config.kv_cache.page_size);
  room.table_columns = std::max(room.table_columns, (longest + page - 1) / page);
  if (room.mask_columns > 0) room.mask_columns = std::max(room.mask_columns, longest);
  if (room.positions > 0) room.positions = std::max(room.positions, longest);
  return room;
}

PaddingRows declared_rows(std::int32_t padding_rows) {
  switch (padding_rows) {
    case ATTN_PADDING_ZERO:
      return PaddingRows::kZero;
    case ATTN_PADDING_UNTOUCHED:
      return PaddingRows::kUntouched;
    case ATTN_PADDING_FINITE:
      return PaddingRows::kFinite;
    default:
      throw BackendFailure(Status::kFailed, "query() declares padding_rows " +
                                                std::to_string(padding_rows) +
                                                "; use one of ATTN_PADDING_...");
  }
}

/// Pages past those of `original`, which no page table names, must be as they were.
void remove_pages(const char* name, const Tensor& original, Tensor& t) {
  if (t.empty() || t.dim(0) == original.dim(0)) return;
  const auto rest = t.bytes().subspan(original.bytes().size());
  if (std::ranges::any_of(rest, [](std::byte b) { return b != kPoison; })) {
    throw BackendFailure(Status::kFailed, std::string("wrote into pages of ") + name +
                                              " that no entry of the page table names");
  }
  t = first_rows(t, original.dim(0));
}

}  // namespace

std::string mode_not_declared(ExecMode mode, std::uint32_t modes) {
  const std::string name = "mode " + std::string(name_of(mode)) + ": ";
  if (mode == ExecMode::kPadded) {
    return (modes & ATTN_MODE_PADDED) != 0 ? ""
                                           : name +
                                                 "the plug-in does not declare ATTN_MODE_PADDED "
                                                 "(a Python function: @backend(padding=...))";
  }
  if ((modes & ATTN_MODE_REPLAY) == 0) {
    return name +
           "the plug-in does not declare ATTN_MODE_REPLAY (a Python function: @backend(graph=...))";
  }
  if ((modes & ATTN_MODE_PADDED) == 0) {
    throw BackendFailure(Status::kFailed,
                         "query() declares ATTN_MODE_REPLAY without ATTN_MODE_PADDED");
  }
  return "";
}

std::unique_ptr<RoomyOperands> make_roomy(const PluginOperands& operands, const Capacity& room) {
  const Case& c = *operands.c;
  auto roomy = std::make_unique<RoomyOperands>(RoomyOperands{c, operands});
  Case& r = roomy->c;
  r.x = with_rows(c.x, room.tokens);
  r.q = with_rows(c.q, room.tokens);
  r.mask = with_columns(c.mask, room.tokens, room.mask_columns);
  r.freqs_cis = with_rows(c.freqs_cis, room.positions);
  r.input_row_offsets = Tensor(ElementType::kUInt32, {room.batch + 1});
  r.cache_lengths = Tensor(ElementType::kUInt32, {room.batch});
  PluginOperands& o = roomy->operands;
  o.c = &r;
  o.tokens = room.tokens;
  o.key_lengths = Tensor(ElementType::kUInt32, {room.batch});
  for (std::int64_t b = 0; b <= room.batch; ++b) {
    r.input_row_offsets.set_code(b,
                                 static_cast<std::uint64_t>(c.row_begin(std::min(b, c.batch()))));
    if (b >= c.batch()) continue;
    r.cache_lengths.set_code(b, c.cache_lengths.code(b));
    o.key_lengths.set_code(b, operands.key_lengths.code(b));
  }
  for (Tensor& given : o.given) given = with_rows(given, room.tokens);
  give_room(o.cache, room);
  return roomy;
}

ModeCalls make_mode_calls(ExecMode mode, const Case& c, const Case* other, const Task& task) {
  ModeCalls calls;
  switch (mode) {
    case ExecMode::kGraph: {
      const PluginOperands operands = make_operands(c, task);
      calls.judged = make_roomy(operands, capacity_of(c));
      calls.before = make_roomy(operands, capacity_of(c));
      break;
    }
    case ExecMode::kGraphReplay: {
      Case judged = c, captured = *other;
      captured.weights = c.weights;
      // Equal heads at stride 0 in one case need not be equal in the other.
      judged.layout.broadcast = false;
      captured.layout = judged.layout;
      const Capacity room = room_for_both(c, *other);
      const PluginOperands of_captured = make_operands(captured, task);
      calls.judged = make_roomy(make_operands(judged, task), room);
      calls.before = make_roomy(of_captured, room);
      calls.planned = make_roomy(of_captured, room);
      plan_for_longer(c, *other, *calls.planned);
      break;
    }
    default: {
      Capacity room = capacity_of(c);
      room.batch = padded_batch(c.batch());
      room.tokens += room.batch - c.batch();  // as if each had asked for a row
      calls.judged = make_roomy(make_operands(c, task), room);
      break;
    }
  }
  return calls;
}

void remove_room(const Case& c, std::int32_t padding_rows, Trace& trace) {
  const PaddingRows declared = declared_rows(padding_rows);
  const std::int64_t rows = c.tokens();
  for (const Stage stage : all_stages()) {
    Tensor& t = trace[stage];
    if (t.empty() || stage == Stage::kCacheK || stage == Stage::kCacheV) continue;
    if (stage == Stage::kFreqsCis) {
      t = first_rows(t, c.freqs_cis.dim(0));
      continue;
    }
    const bool is_result = stage == Stage::kLse || stage == Stage::kAttnOut || stage == Stage::kOut;
    const std::int64_t width = num_elements(t.shape()) / std::max<std::int64_t>(1, t.dim(0));
    if (is_result && t.dim(0) > rows) {
      const std::size_t live = bytes_of_row(t) * static_cast<std::size_t>(rows);
      const std::string mistake =
          padding_mistake(declared, t.type(), rows, width, t.bytes().subspan(live), kPoison);
      if (!mistake.empty()) {
        throw BackendFailure(Status::kFailed, std::string(name_of(stage)) + ": " + mistake);
      }
    }
    t = first_rows(t, rows);
  }
  if (!trace.cache) return;
  KvCache& after = *trace.cache;
  remove_pages("k_cache", c.cache.k, after.k);
  remove_pages("v_cache", c.cache.v, after.v);
  if (after.k_scale.shape().size() >= 4) {
    remove_pages("k_scale", c.cache.k_scale, after.k_scale);
    remove_pages("v_scale", c.cache.v_scale, after.v_scale);
  }
  after.page_table = c.cache.page_table;
}

}  // namespace attn::harness
