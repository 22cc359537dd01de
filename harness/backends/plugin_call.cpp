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

Shape dense_strides(const Shape& shape) {
  Shape strides(shape.size(), 1);
  for (std::size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * shape[i];
  return strides;
}

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

PluginCall::Operand& PluginCall::add(const std::string& name, ElementType type, Shape shape) {
  Operand& operand = list_.emplace_back();
  const std::size_t width = element_size(type);
  const std::size_t bytes = static_cast<std::size_t>(num_elements(shape)) * width;
  operand.memory =
      std::make_unique<GuardedMemory>(name, bytes, width, std::max(layout_.alignment, width), end_);
  operand.type = type;
  operand.strides = dense_strides(shape);
  operand.shape = std::move(shape);
  operand.tensor = {operand.memory->data(),
                    kHostMemory,
                    0,
                    static_cast<std::int32_t>(operand.shape.size()),
                    to_dlpack(type),
                    operand.shape.data(),
                    operand.strides.data(),
                    0};
  return operand;
}

/// Null for an absent tensor.
PluginCall::Operand* PluginCall::copy(const std::string& name, const Tensor& tensor,
                                      bool is_input) {
  if (tensor.empty()) return nullptr;
  Operand& operand = add(name, tensor.type(), tensor.shape());
  std::ranges::copy(tensor.bytes(), operand.memory->data());
  operand.original = &tensor;
  operand.is_input = is_input;
  return &operand;
}

const attn_tensor* PluginCall::input(const std::string& name, const Tensor& tensor) {
  const Operand* const operand = copy(name, tensor, true);
  return operand == nullptr ? nullptr : &operand->tensor;
}

/// The case's layer of [num_pages, num_layers, page_size, ...] as [num_pages, page_size, ...].
const attn_tensor* PluginCall::pool(const std::string& name, const Tensor& tensor, bool is_input) {
  Operand* const operand = copy(name, tensor, is_input);
  if (operand == nullptr) return nullptr;
  operand->tensor.byte_offset =
      static_cast<std::uint64_t>(operands_.cache.layer * operand->strides[1]) *
      element_size(tensor.type());
  operand->shape.erase(operand->shape.begin() + 1);
  operand->strides.erase(operand->strides.begin() + 1);
  operand->tensor.ndim -= 1;
  return &operand->tensor;
}

PluginCall::PluginCall(const attn_config& config, const PluginOperands& operands,
                       const TensorLayout& layout, GuardedEnd end)
    : operands_(operands), layout_(layout), end_(end) {
  const Case& c = *operands.c;
  const KvCache& cache = operands.cache;
  const bool reads_keys = !contains(operands.task.writes, Stage::kCacheK);
  const bool reads_values = !contains(operands.task.writes, Stage::kCacheV);
  call_.struct_size = sizeof(call_);
  call_.config = &config;
  call_.batch = c.batch();
  call_.tokens = c.tokens();
  call_.k_cache = pool("k_cache", cache.k, reads_keys);
  call_.v_cache = pool("v_cache", cache.v, reads_values);
  call_.k_scale = is_scale_pool(cache.k_scale) ? pool("k_scale", cache.k_scale, reads_keys)
                                               : input("k_scale", cache.k_scale);
  call_.v_scale = is_scale_pool(cache.v_scale) ? pool("v_scale", cache.v_scale, reads_values)
                                               : input("v_scale", cache.v_scale);
  call_.page_table = input("page_table", cache.page_table);
  call_.row_offsets = input("row_offsets", c.input_row_offsets);
  call_.key_lengths = input("key_lengths", operands.key_lengths);
  if (c.has_sinks()) call_.sinks = input("sinks", c.weights.at("sinks"));
  call_.mask = input("mask", c.mask);
  add_stages();
  add_layer();
}

/// Stages that are given and stages that are to be written.
void PluginCall::add_stages() {
  const Case& c = *operands_.c;
  for (const Stage stage : all_stages()) {
    const auto index = static_cast<std::size_t>(stage);
    // The queries of attention have a name of their own in attn_call.
    const bool is_q = stage == Stage::kQRope && operands_.task.first_step == ATTN_FROM_ATTENTION;
    const std::string name(is_q ? "q" : name_of(stage));
    if (Operand* const given = copy(name, operands_.given[index], true)) {
      stages_[index] = &given->tensor;
    }
    const bool in_cache = stage == Stage::kCacheK || stage == Stage::kCacheV;
    if (in_cache || !contains(operands_.task.writes, stage)) continue;
    Operand& output = add(name, type_of(stage, layout_.types), plugin_shape(c, stage));
    if (stage == Stage::kLse && layout_.lse_heads_first) {
      output.strides = {1, std::max<std::int64_t>(c.tokens(), 1)};
      output.tensor.strides = output.strides.data();
    }
    stages_[index] = &output.tensor;
  }
  const auto tensor_of = [&](Stage stage) { return stages_[static_cast<std::size_t>(stage)]; };
  call_.stages = stages_.data();
  call_.attn_out = tensor_of(Stage::kAttnOut);
  call_.lse = tensor_of(Stage::kLse);
  call_.q = c.config.starts_at_attention() ? input("q", c.q) : tensor_of(Stage::kQRope);
}

/// What a layer has beside attention.
void PluginCall::add_layer() {
  const Case& c = *operands_.c;
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

std::string PluginCall::violation() const {
  for (const Operand& operand : list_) {
    if (std::string text = operand.memory->overrun(); !text.empty()) return text;
    if (!operand.is_input) continue;
    const std::span<const std::byte> now = std::as_const(*operand.memory).bytes();
    const auto [changed, old] = std::ranges::mismatch(now, operand.original->bytes());
    if (changed == now.end()) continue;
    const auto width = static_cast<std::ptrdiff_t>(element_size(operand.type));
    const std::int64_t element = (changed - now.begin()) / width;
    std::uint64_t code = 0;
    std::memcpy(&code, now.data() + element * width, static_cast<std::size_t>(width));
    return "changed its input " + operand.memory->name() + ", element " + std::to_string(element) +
           " of " + std::to_string(operand.original->size()) + ": " +
           format_short(operand.original->value(element)) + " became " +
           format_short(decode(operand.type, code));
  }
  return workspace_ == nullptr ? "" : workspace_->overrun();
}

Tensor PluginCall::stage(Stage stage) const {
  const attn_tensor* const tensor = stages_[static_cast<std::size_t>(stage)];
  const auto operand =
      std::ranges::find_if(list_, [&](const Operand& o) { return &o.tensor == tensor; });
  Tensor dense(operand->type, stage_shape(*operands_.c, stage));
  const std::byte* const from = operand->memory->data();
  const std::size_t width = element_size(operand->type);
  const Shape strides = dense_strides(operand->shape);
  for (std::int64_t i = 0; i < dense.size(); ++i) {
    std::int64_t at = 0, rest = i;
    for (std::size_t axis = 0; axis < strides.size(); ++axis) {
      at += rest / strides[axis] * operand->strides[axis];
      rest %= strides[axis];
    }
    std::memcpy(dense.data() + i * std::ptrdiff_t(width), from + at * std::ptrdiff_t(width), width);
  }
  return dense;
}

/// What became of a copy of `original`.
Tensor PluginCall::read_back(const Tensor& original) const {
  Tensor after = original;
  const auto operand =
      std::ranges::find_if(list_, [&](const Operand& o) { return o.original == &original; });
  if (operand != list_.end()) {
    std::ranges::copy(std::as_const(*operand->memory).bytes(), after.data());
  }
  return after;
}

KvCache PluginCall::cache() const {
  KvCache after = operands_.cache;
  after.k = read_back(operands_.cache.k);
  after.v = read_back(operands_.cache.v);
  after.k_scale = read_back(operands_.cache.k_scale);
  after.v_scale = read_back(operands_.cache.v_scale);
  return after;
}

}  // namespace attn::harness
