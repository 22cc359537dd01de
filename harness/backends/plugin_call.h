#pragma once

#include <array>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "harness/backends/attn_plugin.h"
#include "harness/backends/guarded_memory.h"
#include "harness/backends/placement.h"
#include "harness/backends/plugin_operands.h"
#include "harness/compare/arithmetic.h"

namespace attn::harness {

/// How a plug-in gets its tensors: what it declared, and the case's layout as far as it takes it.
struct TensorLayout {
  Arithmetic types;
  bool lse_heads_first = false;
  std::size_t alignment = 0;  ///< of every tensor; 0: that of its element
  MemoryLayout memory;
};

/// One attn_call with every tensor in guarded memory of its own, but for K and V pools that share
/// an allocation. Inputs are copies.
class PluginCall {
 public:
  /// `config` and `operands` must outlive the call.
  PluginCall(const attn_config& config, const PluginOperands& operands, const TensorLayout& layout,
             GuardedEnd end);

  const attn_call& call() const { return call_; }
  void add_workspace(std::size_t bytes);
  /// A write to an input faults from now on.
  void make_inputs_read_only();
  /// What `next`, a call of tensors that lie alike, has in them: its inputs, and outputs that
  /// nobody wrote. Addresses stay. `next` must outlive this call.
  void take(const PluginCall& next);

  /// What the run did to memory that was not its to write: one line, "" when nothing.
  std::string violation() const;

  /// A stage that was written: dense, in the stage's shape with all rows of the call, and the
  /// declared type.
  Tensor stage(Stage stage) const;
  /// The cache after the call.
  KvCache cache() const;

 private:
  struct Operand {
    std::string name;
    std::shared_ptr<GuardedMemory> memory;
    const Tensor* original = nullptr;  ///< what it began as
    bool is_input = false;             ///< must not change
    ElementType type = ElementType::kFloat32;
    Placement placement;
    Shape shape;  ///< as the plug-in sees it: a pool's layer
    Shape strides;
    attn_tensor tensor{};
  };

  std::shared_ptr<GuardedMemory> allocate(const std::string& name, ElementType type,
                                          std::span<const Placement> placements);
  Operand& add(const std::string& name, ElementType type, Placement placement,
               std::shared_ptr<GuardedMemory> memory = nullptr);
  Operand& fill(Operand& operand, const Tensor& tensor, bool is_input);
  const attn_tensor* input(const std::string& name, const Tensor& tensor);
  const attn_tensor* input(const std::string& name, const Tensor& tensor, Placement placement);
  MemoryLayout aligned(ElementType type) const;
  Placement place_stage(Stage stage, const Shape& shape, ElementType type) const;
  void add_pools();
  const attn_tensor* add_layer_of(const std::string& name, const Tensor& pool, Placement placement,
                                  bool is_input, std::shared_ptr<GuardedMemory> memory);
  void add_page_table();
  void add_stages();
  void add_layer();
  std::string changed_input(const Operand& operand) const;
  std::string written_gap(const GuardedMemory& memory) const;
  Tensor gather(const Operand& operand, Shape shape) const;
  Tensor read_back(const Tensor& original) const;

  const PluginOperands* operands_;
  const TensorLayout& layout_;
  GuardedEnd end_;
  std::list<Operand> list_;  // addresses stay
  std::int64_t dead_pages_ = 0;
  Tensor page_table_;  ///< with the dead pages counted
  std::unique_ptr<GuardedMemory> workspace_;
  std::array<attn_tensor*, kNumStages> stages_{};
  std::vector<attn_weight> weights_;
  attn_call call_{};
};

}  // namespace attn::harness
