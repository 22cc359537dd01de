#include "harness/backends/plugin_call.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "harness/backends/plugin_config.h"
#include "harness/report/format.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

constexpr std::size_t kWorkspaceAlignment = 256;
constexpr std::int32_t kHostMemory = 1;  // kDLCPU

/// An allocation of at least this many bytes that is mostly gaps has memory only where something
/// lies.
constexpr std::int64_t kSparseFrom = std::int64_t{1} << 30;

/// Type in which a plug-in writes a stage.
ElementType type_of(Stage stage, const Arithmetic& declared) {
  switch (stage) {
    case Stage::kFreqsCis:
      return ElementType::kFloat32;
    case Stage::kLse:
      return declared.lse;
    case Stage::kAttnOut:
    case Stage::kOut:
      return declared.out;
    default:
      return declared.store;
  }
}

/// Whether a scale belongs to single tokens, and so to what a new token writes.
bool is_scale_pool(const Tensor& scale) { return scale.shape().size() >= 4; }

}  // namespace

/// Memory that holds all the placements, which have one extent.
std::shared_ptr<GuardedMemory> PluginCall::allocate(const std::string& name, ElementType type,
                                                    std::span<const Placement> placements) {
  const std::size_t width = element_size(type);
  const std::int64_t extent = placements.front().extent;
  const std::size_t bytes = static_cast<std::size_t>(extent) * width;
  std::int64_t elements = 0;
  for (const Placement& placement : placements) elements += num_elements(placement.shape);
  std::vector<ByteRange> used;
  if (static_cast<std::int64_t>(bytes) >= kSparseFrom && extent / 2 > elements) {
    for (const Placement& placement : placements) {
      for (const Run& run : runs_of(placement)) {
        const std::size_t begin = static_cast<std::size_t>(run.at) * width;
        used.push_back({begin, begin + static_cast<std::size_t>(run.count) * width});
      }
    }
    std::ranges::sort(used, {}, &ByteRange::begin);
  }
  return std::make_shared<GuardedMemory>(name, bytes, width, std::max(layout_.alignment, width),
                                         end_, used);
}

PluginCall::Operand& PluginCall::add(const std::string& name, ElementType type, Placement placement,
                                     std::shared_ptr<GuardedMemory> memory) {
  Operand& operand = list_.emplace_back();
  operand.name = name;
  operand.memory = memory != nullptr ? std::move(memory) : allocate(name, type, {&placement, 1});
  operand.type = type;
  operand.shape = placement.shape;
  operand.strides = placement.strides;
  operand.placement = std::move(placement);
  operand.tensor = {operand.memory->data(),
                    kHostMemory,
                    0,
                    static_cast<std::int32_t>(operand.shape.size()),
                    to_dlpack(type),
                    operand.shape.data(),
                    operand.strides.data(),
                    static_cast<std::uint64_t>(operand.placement.offset) * element_size(type)};
  return operand;
}

PluginCall::Operand& PluginCall::fill(Operand& operand, const Tensor& tensor, bool is_input) {
  const std::size_t width = element_size(operand.type);
  for (const Run& run : runs_of(operand.placement)) {
    std::memcpy(operand.memory->data() + static_cast<std::size_t>(run.at) * width,
                tensor.data() + static_cast<std::size_t>(run.first) * width,
                static_cast<std::size_t>(run.count) * width);
  }
  operand.original = &tensor;
  operand.is_input = is_input;
  return operand;
}

/// Null for an absent tensor.
const attn_tensor* PluginCall::input(const std::string& name, const Tensor& tensor) {
  return tensor.empty() ? nullptr : input(name, tensor, dense_placement(tensor.shape()));
}

const attn_tensor* PluginCall::input(const std::string& name, const Tensor& tensor,
                                     Placement placement) {
  return &fill(add(name, tensor.type(), std::move(placement)), tensor, true).tensor;
}

/// The layout with gaps and offsets that keep a declared alignment.
MemoryLayout PluginCall::aligned(ElementType type) const {
  MemoryLayout layout = layout_.memory;
  const auto unit =
      std::max<std::int64_t>(1, static_cast<std::int64_t>(layout_.alignment / element_size(type)));
  for (std::int64_t* n : {&layout.gap, &layout.offset}) *n = (*n + unit - 1) / unit * unit;
  return layout;
}

/// The case's layer of [num_pages, num_layers, page_size, ...] as [num_pages, page_size, ...], the
/// dead pages before it counted.
const attn_tensor* PluginCall::add_layer_of(const std::string& name, const Tensor& pool,
                                            Placement placement, bool is_input,
                                            std::shared_ptr<GuardedMemory> memory) {
  Operand& operand =
      fill(add(name, pool.type(), std::move(placement), std::move(memory)), pool, is_input);
  const std::int64_t first = operands_->cache.layer * operand.strides[1] +
                             operand.placement.offset - dead_pages_ * operand.strides[0];
  operand.tensor.byte_offset = static_cast<std::uint64_t>(first) * element_size(pool.type());
  operand.shape[0] += dead_pages_;
  operand.shape.erase(operand.shape.begin() + 1);
  operand.strides.erase(operand.strides.begin() + 1);
  operand.tensor.ndim -= 1;
  return &operand.tensor;
}

void PluginCall::add_pools() {
  const KvCache& cache = operands_->cache;
  if (cache.k.empty()) return;
  const bool reads_keys = !contains(operands_->task.writes, Stage::kCacheK);
  const bool reads_values = !contains(operands_->task.writes, Stage::kCacheV);
  const bool may_repeat = layout_.memory.broadcast && reads_keys && reads_values;
  constexpr std::size_t kHeads = 3;
  const auto is_equal = [&](const Tensor& t) { return may_repeat && is_equal_along(t, kHeads); };
  const PoolShape shape{cache.num_pages(), cache.num_layers, cache.page_size,
                        cache.k.dim(3),    cache.k.dim(4),   cache.v.dim(4)};
  const PoolPlacement pools =
      place_pools(aligned(cache.k.type()), shape, is_equal(cache.k), is_equal(cache.v));
  dead_pages_ = pools.dead_pages;
  std::shared_ptr<GuardedMemory> shared;
  if (pools.shared) shared = allocate("kv_cache", cache.k.type(), std::array{pools.k, pools.v});
  call_.k_cache = add_layer_of("k_cache", cache.k, pools.k, reads_keys, shared);
  call_.v_cache = add_layer_of("v_cache", cache.v, pools.v, reads_values, shared);
  const auto add_scale = [&](const std::string& name, const Tensor& scale, bool is_input) {
    if (is_scale_pool(scale)) {
      const Placement placement =
          place_scales(aligned(scale.type()), shape, dead_pages_, is_equal(scale));
      return add_layer_of(name, scale, placement, is_input, nullptr);
    }
    if (scale.empty()) return input(name, scale);
    Placement placement = dense_placement(scale.shape());
    if (may_repeat && !scale.shape().empty() && is_equal_along(scale, 0)) {
      placement.strides = {0};
      placement.extent = 1;
    }
    return input(name, scale, placement);
  };
  call_.k_scale = add_scale("k_scale", cache.k_scale, reads_keys);
  call_.v_scale = add_scale("v_scale", cache.v_scale, reads_values);
}

void PluginCall::add_page_table() {
  if (operands_->cache.page_table.empty()) return;
  page_table_ = operands_->cache.page_table;
  for (std::int64_t i = 0; i < page_table_.size(); ++i) {
    page_table_.set_code(i, page_table_.code(i) + static_cast<std::uint64_t>(dead_pages_));
  }
  call_.page_table = input("page_table", page_table_,
                           place_table(aligned(page_table_.type()), page_table_.shape(), false));
}

PluginCall::PluginCall(const attn_config& config, const PluginOperands& operands,
                       const TensorLayout& layout, GuardedEnd end)
    : operands_(&operands), layout_(layout), end_(end) {
  const Case& c = *operands.c;
  call_.struct_size = sizeof(call_);
  call_.config = &config;
  call_.batch = c.batch();
  call_.tokens = operands.tokens;
  add_pools();
  add_page_table();
  call_.row_offsets = input("row_offsets", c.input_row_offsets);
  call_.key_lengths = input("key_lengths", operands.key_lengths);
  if (c.has_sinks()) call_.sinks = input("sinks", c.weights.at("sinks"));
  if (!c.mask.empty()) {
    const bool repeats = layout.memory.broadcast && is_equal_along(c.mask, 0);
    call_.mask =
        input("mask", c.mask, place_table(aligned(c.mask.type()), c.mask.shape(), repeats));
  }
  add_stages();
  add_layer();
}

/// Queries, keys and values as parts of one row, outputs as declared.
Placement PluginCall::place_stage(Stage stage, const Shape& shape, ElementType type) const {
  const MemoryLayout layout = aligned(type);
  if (shape.size() < 2) return dense_placement(shape);
  if (stage == Stage::kLse) {
    MemoryLayout of_lse = layout;
    of_lse.channel_stride = 1;
    of_lse.row_stride = 0;
    const bool heads_first = layout_.lse_heads_first != (layout.out == OutputOrder::kTransposed);
    const Shape with_heads = {shape[0], shape[1], 1};
    Placement placement = place_rows(of_lse, with_heads, heads_first, {});
    placement.shape.pop_back();
    placement.strides.pop_back();
    return placement;
  }
  if (stage == Stage::kAttnOut && !contains(operands_->task.given, stage)) {
    return place_rows(layout, shape, layout.out == OutputOrder::kTransposed, {});
  }
  const bool is_q = stage == Stage::kQProj || stage == Stage::kQNorm || stage == Stage::kQRope;
  const bool is_k = stage == Stage::kKProj || stage == Stage::kKNorm || stage == Stage::kKRope;
  const bool is_v = stage == Stage::kVProj;
  if (!is_q && !is_k && !is_v) return dense_placement(shape);
  RowPart part;
  if (layout.q == QueryOrder::kFusedQkv) {
    const AttentionConfig& config = operands_->c->config;
    const std::int64_t q = config.q_width(), k = config.k_width(), v = config.v_width();
    part = is_q ? RowPart{0, k + v} : is_k ? RowPart{q, v} : RowPart{q + k, 0};
  }
  return place_rows(layout, shape, layout.q == QueryOrder::kTransposed, part);
}

/// Stages that are given and stages that are to be written.
void PluginCall::add_stages() {
  const Case& c = *operands_->c;
  for (const Stage stage : all_stages()) {
    const auto index = static_cast<std::size_t>(stage);
    // The queries of attention have a name of their own in attn_call.
    const bool is_q = stage == Stage::kQRope && operands_->task.first_step == ATTN_FROM_ATTENTION;
    const std::string name(is_q ? "q" : name_of(stage));
    if (const Tensor& given = operands_->given[index]; !given.empty()) {
      Operand& operand = add(name, given.type(), place_stage(stage, given.shape(), given.type()));
      stages_[index] = &fill(operand, given, true).tensor;
    }
    const bool in_cache = stage == Stage::kCacheK || stage == Stage::kCacheV;
    if (in_cache || !contains(operands_->task.writes, stage)) continue;
    const ElementType type = type_of(stage, layout_.types);
    stages_[index] =
        &add(name, type, place_stage(stage, plugin_shape(c, stage, operands_->tokens), type))
             .tensor;
  }
  const auto tensor_of = [&](Stage stage) { return stages_[static_cast<std::size_t>(stage)]; };
  call_.stages = stages_.data();
  call_.attn_out = tensor_of(Stage::kAttnOut);
  call_.lse = tensor_of(Stage::kLse);
  call_.q = c.config.starts_at_attention()
                ? input("q", c.q, place_stage(Stage::kQRope, c.q.shape(), c.q.type()))
                : tensor_of(Stage::kQRope);
}

/// What a layer has beside attention.
void PluginCall::add_layer() {
  const Case& c = *operands_->c;
  call_.x = input("x", c.x);
  call_.freqs_cis = input("freqs_cis", c.freqs_cis);
  call_.cached_lengths = input("cached_lengths", c.cache_lengths);
  for (const auto& [name, weight] : c.weights) {
    if (name != "sinks") weights_.push_back({name.c_str(), input(name, weight)});
  }
  call_.weights = weights_.data();
  call_.num_weights = std::ssize(weights_);
}

void PluginCall::add_workspace(std::size_t bytes) {
  if (bytes == 0) return;
  workspace_ = std::make_unique<GuardedMemory>("workspace", bytes, 1, kWorkspaceAlignment, end_);
  call_.workspace = workspace_->data();
  call_.workspace_bytes = bytes;
}

void PluginCall::make_inputs_read_only() {
  for (Operand& operand : list_) {
    if (operand.is_input) operand.memory->make_read_only();
  }
}

void PluginCall::take(const PluginCall& next) {
  const auto lie_alike = [](const Operand& a, const Operand& b) {
    return a.name == b.name && a.strides == b.strides && a.shape == b.shape &&
           a.memory->bytes().size() == b.memory->bytes().size();
  };
  if (!std::ranges::equal(list_, next.list_, lie_alike)) {
    throw Error(ErrorKind::kInternal, "plug-in: the cases of one plan lie differently");
  }
  auto from = next.list_.begin();
  for (Operand& operand : list_) {
    for (const ByteRange& range : from->memory->accessible()) {
      std::memcpy(operand.memory->data() + range.begin, from->memory->data() + range.begin,
                  range.end - range.begin);
    }
    operand.original = from->original;
    ++from;
  }
  operands_ = next.operands_;
}

/// The first element that is not what it was.
std::string PluginCall::changed_input(const Operand& operand) const {
  const auto width = element_size(operand.type);
  for (const Run& run : runs_of(operand.placement)) {
    const auto bytes = static_cast<std::size_t>(run.count) * width;
    const std::span now(operand.memory->data() + static_cast<std::size_t>(run.at) * width, bytes);
    const std::span old(operand.original->data() + static_cast<std::size_t>(run.first) * width,
                        bytes);
    if (std::memcmp(now.data(), old.data(), bytes) == 0) continue;
    const auto at =
        static_cast<std::size_t>(std::ranges::mismatch(now, old).in1 - now.begin()) / width;
    std::uint64_t code = 0;
    std::memcpy(&code, &now[at * width], width);
    const std::int64_t element = run.first + static_cast<std::int64_t>(at);
    return "changed its input " + operand.name + ", element " + std::to_string(element) + " of " +
           std::to_string(operand.original->size()) + ": " +
           format_short(operand.original->value(element)) + " became " +
           format_short(decode(operand.type, code));
  }
  return "";
}

/// What was written between the elements that an allocation holds.
std::string PluginCall::written_gap(const GuardedMemory& memory) const {
  std::vector<const Operand*> holders;
  for (const Operand& operand : list_) {
    if (operand.memory.get() == &memory) holders.push_back(&operand);
  }
  if (holders.front()->placement.is_dense()) return "";
  const std::size_t width = element_size(holders.front()->type);
  for (const ByteRange& range : memory.accessible()) {
    const auto part = memory.bytes().subspan(range.begin, range.end - range.begin);
    std::vector<std::byte> rest(part.begin(), part.end());
    for (const Operand* const operand : holders) {
      for (const Run& run : runs_of(operand->placement)) {
        const std::size_t begin = std::max(static_cast<std::size_t>(run.at) * width, range.begin);
        const std::size_t end =
            std::min(static_cast<std::size_t>(run.at + run.count) * width, range.end);
        if (begin < end) std::memset(&rest[begin - range.begin], 0xff, end - begin);
      }
    }
    const auto damaged = std::ranges::find_if(rest, [](std::byte b) { return b != kPoison; });
    if (damaged == rest.end()) continue;
    const std::size_t byte = range.begin + static_cast<std::size_t>(damaged - rest.begin());
    return "wrote between the elements of " + memory.name() + ": element " +
           std::to_string(byte / width) + " of its allocation, byte " + std::to_string(byte);
  }
  return "";
}

std::string PluginCall::violation() const {
  for (const Operand& operand : list_) {
    if (std::string text = operand.memory->overrun(); !text.empty()) return text;
    if (operand.is_input) {
      if (std::string text = changed_input(operand); !text.empty()) return text;
    }
    if (std::string text = written_gap(*operand.memory); !text.empty()) return text;
  }
  return workspace_ == nullptr ? "" : workspace_->overrun();
}

/// The operand's elements in the order of a dense tensor.
Tensor PluginCall::gather(const Operand& operand, Shape shape) const {
  Tensor dense(operand.type, std::move(shape));
  const std::size_t width = element_size(operand.type);
  for (const Run& run : runs_of(operand.placement)) {
    std::memcpy(dense.data() + static_cast<std::size_t>(run.first) * width,
                operand.memory->data() + static_cast<std::size_t>(run.at) * width,
                static_cast<std::size_t>(run.count) * width);
  }
  return dense;
}

Tensor PluginCall::stage(Stage stage) const {
  const attn_tensor* const tensor = stages_[static_cast<std::size_t>(stage)];
  const auto operand =
      std::ranges::find_if(list_, [&](const Operand& o) { return &o.tensor == tensor; });
  Shape shape = stage_shape(*operands_->c, stage);
  if (stage != Stage::kFreqsCis) shape[0] = operands_->tokens;
  return gather(*operand, std::move(shape));
}

/// What became of a copy of `original`.
Tensor PluginCall::read_back(const Tensor& original) const {
  const auto operand =
      std::ranges::find_if(list_, [&](const Operand& o) { return o.original == &original; });
  return operand == list_.end() ? original : gather(*operand, original.shape());
}

KvCache PluginCall::cache() const {
  KvCache after = operands_->cache;
  after.k = read_back(operands_->cache.k);
  after.v = read_back(operands_->cache.v);
  after.k_scale = read_back(operands_->cache.k_scale);
  after.v_scale = read_back(operands_->cache.v_scale);
  return after;
}

}  // namespace attn::harness
