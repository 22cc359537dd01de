#include "harness/capi/case_handle.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "harness/backends/plugin_config.h"
#include "reference/core/error.h"

namespace attn::harness {

void TensorViews::add(const std::string& name, const Tensor& tensor) {
  if (tensor.empty()) return;
  View& view = views_[name];
  view.shape = tensor.shape();
  view.strides = tensor.view().strides;
  attn_tensor& t = view.tensor;
  // The interface has one pointer for what is read and what is written.
  t.data = const_cast<std::byte*>(tensor.data());
  constexpr std::int32_t kHost = 1;
  t.device_type = kHost;
  t.ndim = static_cast<std::int32_t>(view.shape.size());
  t.dtype = to_dlpack(tensor.type());
  t.shape = view.shape.data();
  t.strides = view.strides.data();
}

const attn_tensor* TensorViews::find(const std::string& name) const {
  const auto it = views_.find(name);
  return it == views_.end() ? nullptr : &it->second.tensor;
}

std::vector<std::string> TensorViews::names() const {
  std::vector<std::string> names;
  for (const auto& [name, view] : views_) names.push_back(name);
  return names;
}

Tensor copy_of(const attn_tensor& tensor, const std::string& name) {
  const auto refuse = [&](const std::string& why) {
    throw Error(ErrorKind::kInput, name + ": " + why, name);
  };
  constexpr std::int32_t kHost = 1;
  if (tensor.device_type != kHost) refuse("is not in host memory; copy it there first");
  const ElementType type = from_dlpack(tensor.dtype, ElementType::kFloat32, name);
  const Shape shape(tensor.shape, tensor.shape + tensor.ndim);
  if (std::ranges::any_of(shape, [](std::int64_t n) { return n < 0; })) {
    refuse("has the shape " + to_string(shape));
  }
  Tensor copy(type, shape);
  if (tensor.strides != nullptr) {
    const Shape strides(tensor.strides, tensor.strides + tensor.ndim);
    std::int64_t expected = 1;
    for (std::size_t i = shape.size(); i-- > 0;) {
      if (shape[i] > 1 && strides[i] != expected) refuse("is not dense; copy it to a dense array");
      expected *= shape[i];
    }
  }
  if (!copy.bytes().empty()) {
    std::memcpy(copy.data(), attn_data(&tensor), copy.bytes().size());
  }
  return copy;
}

}  // namespace attn::harness

attn_case::attn_case(attn::Case made) : c(std::move(made)) {
  views.add("x", c.x);
  views.add("q", c.q);
  views.add("input_row_offsets", c.input_row_offsets);
  views.add("cache_lengths", c.cache_lengths);
  views.add("freqs_cis", c.freqs_cis);
  views.add("mask", c.mask);
  views.add("cache.k", c.cache.k);
  views.add("cache.v", c.cache.v);
  views.add("cache.k_scale", c.cache.k_scale);
  views.add("cache.v_scale", c.cache.v_scale);
  views.add("cache.page_table", c.cache.page_table);
  for (const auto& [name, weight] : c.weights) views.add("weights." + name, weight);
}

attn_trace::attn_trace(attn::Trace made) : trace(std::move(made)) {
  for (const attn::Stage stage : attn::all_stages()) {
    views.add(std::string(name_of(stage)), trace[stage]);
  }
}
