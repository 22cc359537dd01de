#pragma once

#include <array>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "harness/backends/attn_plugin.h"
#include "harness/backends/guarded_memory.h"
#include "harness/backends/plugin_operands.h"
#include "harness/compare/arithmetic.h"

namespace attn::harness {

/// How a plug-in wants its tensors, as it declared.
struct TensorLayout {
  Arithmetic types;
  bool lse_heads_first = false;
  std::size_t alignment = 0;  ///< of every tensor; 0: that of its element
};

/// One attn_call with every tensor in guarded memory of its own. Inputs are copies.
class PluginCall {
 public:
  /// `config` and `operands` must outlive the call.
  PluginCall(const attn_config& config, const PluginOperands& operands, const TensorLayout& layout,
             GuardedEnd end);

  const attn_call& call() const { return call_; }
  void add_workspace(std::size_t bytes);
  /// A write to an input faults from now on.
  void make_inputs_read_only();

  /// What the run did to memory that was not its to write: one line, "" when nothing.
  std::string violation() const;

  /// A stage that was written: dense, in the stage's shape and the declared type.
  Tensor stage(Stage stage) const;
  /// The cache after the call.
  KvCache cache() const;

 private:
  struct Operand {
    std::unique_ptr<GuardedMemory> memory;
    const Tensor* original = nullptr;  ///< what it began as
    bool is_input = false;             ///< must not change
    ElementType type = ElementType::kFloat32;
    Shape shape;
    Shape strides;
    attn_tensor tensor{};
  };

  Operand& add(const std::string& name, ElementType type, Shape shape);
  Operand* copy(const std::string& name, const Tensor& tensor, bool is_input);
  const attn_tensor* input(const std::string& name, const Tensor& tensor);
  const attn_tensor* pool(const std::string& name, const Tensor& tensor, bool is_input);
  void add_stages();
  void add_layer();
  Tensor read_back(const Tensor& original) const;

  const PluginOperands& operands_;
  const TensorLayout& layout_;
  GuardedEnd end_;
  std::list<Operand> list_;  // addresses stay
  std::unique_ptr<GuardedMemory> workspace_;
  std::array<attn_tensor*, kNumStages> stages_{};
  std::vector<attn_weight> weights_;
  attn_call call_{};
};

}  // namespace attn::harness
