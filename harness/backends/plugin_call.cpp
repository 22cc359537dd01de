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

std::size_t bytes_of(ElementType type, const Shape& shape) {
  return static_cast<std::size_t>(num_elements(shape)) * element_size(type);
}

}  // namespace

PluginCall::Operand& PluginCall::add(const std::string& name, ElementType type, Shape shape,
                                     std::size_t bytes) {
  Operand& operand = operands_.emplace_back();
  const std::size_t alignment = std::max(alignment_, element_size(type));
  operand.memory =
      std::make_unique<GuardedMemory>(name, bytes, element_size(type), alignment, end_);
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

const attn_tensor* PluginCall::input(const std::string& name, const Tensor* tensor) {
  if (tensor == nullptr || tensor->empty()) return nullptr;
  Operand& operand = add(name, tensor->type(), tensor->shape(), tensor->bytes().size());
  std::ranges::copy(tensor->bytes(), operand.memory->data());
  operand.original = tensor;
  return &operand.tensor;
}

/// The case's layer of [num_pages, num_layers, page_size, ...] as [num_pages, page_size, ...].
const attn_tensor* PluginCall::pool(const std::string& name, const Tensor& tensor,
                                    const KvCache& cache) {
  if (tensor.empty() || tensor.shape().size() < 4) return input(name, &tensor);
  input(name, &tensor);
  Operand& operand = operands_.back();
  operand.tensor.byte_offset =
      static_cast<std::uint64_t>(cache.layer * operand.strides[1]) * element_size(tensor.type());
  operand.shape.erase(operand.shape.begin() + 1);
  operand.strides.erase(operand.strides.begin() + 1);
  operand.tensor.ndim -= 1;
  return &operand.tensor;
}

attn_tensor* PluginCall::output(const std::string& name, ElementType type, Shape shape) {
  const std::size_t bytes = bytes_of(type, shape);
  return &add(name, type, std::move(shape), bytes).tensor;
}

PluginCall::PluginCall(const attn_config& config, const AttentionOperands& operands,
                       const OutputLayout& layout, GuardedEnd end)
    : alignment_(layout.alignment), end_(end) {
  const std::int64_t tokens = operands.q->dim(0);
  call_.struct_size = sizeof(call_);
  call_.config = &config;
  call_.batch = operands.key_lengths->size();
  call_.tokens = tokens;
  call_.q = input("q", operands.q);
  call_.k_cache = pool("k_cache", operands.cache->k, *operands.cache);
  call_.v_cache = pool("v_cache", operands.cache->v, *operands.cache);
  call_.k_scale = pool("k_scale", operands.cache->k_scale, *operands.cache);
  call_.v_scale = pool("v_scale", operands.cache->v_scale, *operands.cache);
  call_.page_table = input("page_table", &operands.cache->page_table);
  call_.row_offsets = input("row_offsets", operands.row_offsets);
  call_.key_lengths = input("key_lengths", operands.key_lengths);
  call_.sinks = input("sinks", operands.sinks);
  call_.mask = input("mask", operands.mask);
  if (layout.wants_out) {
    call_.attn_out = output("attn_out", layout.out, {tokens, config.num_heads, config.head_dim_v});
  }
  if (layout.wants_lse) {
    call_.lse = output("lse", layout.lse, {tokens, config.num_heads});
    if (layout.lse_heads_first) {
      operands_.back().strides = {1, std::max<std::int64_t>(tokens, 1)};
      call_.lse->strides = operands_.back().strides.data();
    }
  }
}

void PluginCall::add_workspace(std::size_t bytes) {
  if (bytes == 0) return;
  workspace_ = std::make_unique<GuardedMemory>("workspace", bytes, 1, kWorkspaceAlignment, end_);
  call_.workspace = workspace_->data();
  call_.workspace_bytes = bytes;
}

void PluginCall::make_inputs_read_only() {
  for (Operand& operand : operands_) {
    if (operand.original != nullptr) operand.memory->make_read_only();
  }
}

std::string PluginCall::violation() const {
  for (const Operand& operand : operands_) {
    if (std::string text = operand.memory->overrun(); !text.empty()) return text;
    if (operand.original == nullptr) continue;
    const std::span<const std::byte> now = std::as_const(*operand.memory).bytes();
    const std::span<const std::byte> before = operand.original->bytes();
    const auto [changed, old] = std::ranges::mismatch(now, before);
    if (changed == now.end()) continue;
    const std::size_t width = element_size(operand.type);
    const auto element = static_cast<std::int64_t>((changed - now.begin()) / std::ptrdiff_t(width));
    std::uint64_t code = 0;
    std::memcpy(&code, now.data() + element * std::ptrdiff_t(width), width);
    return "changed its input " + operand.memory->name() + ", element " + std::to_string(element) +
           " of " + std::to_string(operand.original->size()) + ": " +
           format_short(operand.original->value(element)) + " became " +
           format_short(decode(operand.type, code));
  }
  return workspace_ == nullptr ? "" : workspace_->overrun();
}

Tensor PluginCall::gather(const attn_tensor* tensor) const {
  if (tensor == nullptr) return {};
  const auto operand =
      std::ranges::find_if(operands_, [&](const Operand& o) { return &o.tensor == tensor; });
  Tensor dense(operand->type, operand->shape);
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

}  // namespace attn::harness
