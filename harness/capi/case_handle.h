#pragma once

#include <map>
#include <string>
#include <vector>

#include "harness/backends/attn_plugin.h"
#include "reference/core/case.h"
#include "reference/core/tensor.h"
#include "reference/core/trace.h"

namespace attn::harness {

/// Views of tensors by name, in the C interface's form. The tensors must stay where they are.
class TensorViews {
 public:
  TensorViews() = default;
  TensorViews(const TensorViews&) = delete;
  TensorViews& operator=(const TensorViews&) = delete;

  /// Absent tensors are left out.
  void add(const std::string& name, const Tensor& tensor);
  /// Null when there is none of that name.
  const attn_tensor* find(const std::string& name) const;
  std::vector<std::string> names() const;

 private:
  struct View {
    Shape shape;
    Shape strides;
    attn_tensor tensor{};
  };
  std::map<std::string, View> views_;
};

/// A dense tensor of the C interface, copied. Throws Error(kInput) for one that is not dense, is
/// not on the host, or has a type that cases do not have.
Tensor copy_of(const attn_tensor& tensor, const std::string& name);

}  // namespace attn::harness

struct attn_case {
  explicit attn_case(attn::Case made);
  attn::Case c;
  attn::harness::TensorViews views;
};

struct attn_trace {
  explicit attn_trace(attn::Trace made);
  attn::Trace trace;
  attn::harness::TensorViews views;
};
