#pragma once

#include <list>
#include <memory>
#include <string>
#include <vector>

#include "harness/backends/attn_plugin.h"
#include "harness/backends/guarded_memory.h"
#include "reference/core/case.h"

namespace attn::harness {

/// What an attention kernel is given: the case's own tensors, or those that the reference made.
struct AttentionOperands {
  const Tensor* q = nullptr;            ///< [tokens, Hq, D]
  const KvCache* cache = nullptr;       ///< with every key that attention reads
  const Tensor* key_lengths = nullptr;  ///< [batch]
  const Tensor* row_offsets = nullptr;  ///< [batch + 1]
  const Tensor* sinks = nullptr;        ///< null without
  const Tensor* mask = nullptr;         ///< null without
};

/// The types and layout of what the plug-in writes, as it declared them.
struct OutputLayout {
  ElementType out = ElementType::kFloat32;
  ElementType lse = ElementType::kFloat32;
  bool lse_heads_first = false;
  bool wants_lse = true;
  bool wants_out = true;
  std::size_t alignment = 0;  ///< of every tensor; 0: that of its element
};

/// One attn_call with every tensor in guarded memory of its own. Inputs are copies.
class PluginCall {
 public:
  PluginCall(const attn_config& config, const AttentionOperands& operands,
             const OutputLayout& layout, GuardedEnd end);

  const attn_call& call() const { return call_; }
  void add_workspace(std::size_t bytes);
  /// A write to an input faults from now on.
  void make_inputs_read_only();

  /// What the run did to memory that was not its to write: one line, "" when nothing.
  std::string violation() const;

  /// Outputs, dense, in the declared type: [tokens, Hq, Dv] and [tokens, Hq]; absent when not
  /// wanted.
  Tensor attn_out() const { return gather(call_.attn_out); }
  Tensor lse() const { return gather(call_.lse); }

 private:
  struct Operand {
    std::unique_ptr<GuardedMemory> memory;
    const Tensor* original = nullptr;  ///< of an input
    ElementType type = ElementType::kFloat32;
    std::vector<std::int64_t> shape;
    std::vector<std::int64_t> strides;
    attn_tensor tensor{};
  };

  Operand& add(const std::string& name, ElementType type, Shape shape, std::size_t bytes);
  const attn_tensor* input(const std::string& name, const Tensor* tensor);
  const attn_tensor* pool(const std::string& name, const Tensor& tensor, const KvCache& cache);
  attn_tensor* output(const std::string& name, ElementType type, Shape shape);
  Tensor gather(const attn_tensor* tensor) const;

  std::size_t alignment_;
  GuardedEnd end_;
  std::list<Operand> operands_;  // addresses stay
  std::unique_ptr<GuardedMemory> workspace_;
  attn_call call_{};
};

}  // namespace attn::harness
