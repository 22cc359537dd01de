#include "harness/backends/plugin.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <list>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "harness/backends/backend_failure.h"
#include "harness/backends/caller_state.h"
#include "harness/backends/execution.h"
#include "harness/backends/layout_taker.h"
#include "harness/backends/plugin_call.h"
#include "harness/backends/plugin_config.h"
#include "harness/backends/plugin_library.h"
#include "harness/backends/plugin_modes.h"
#include "harness/backends/plugin_operands.h"
#include "harness/backends/plugin_outputs.h"
#include "reference/core/error.h"
#include "reference/reference.h"

namespace attn::harness {
namespace {

static_assert(ATTN_NUM_STAGES == static_cast<int>(kNumStages));
static_assert(ATTN_STAGE_K_ROPE == static_cast<int>(Stage::kKRope));
static_assert(ATTN_STAGE_ATTN_OUT == static_cast<int>(Stage::kAttnOut));

/// The buffer for a plug-in's message, which it may have left without an end.
class Message {
 public:
  char* data() { return text_.data(); }
  /// One line.
  std::string text(const std::string& otherwise) const {
    std::string line(text_.data(), strnlen(text_.data(), text_.size()));
    std::ranges::replace_if(
        line, [](unsigned char c) { return c < ' '; }, ' ');
    return line.empty() ? otherwise : line;
  }

 private:
  std::array<char, ATTN_MESSAGE_SIZE> text_{};
};

/// What a plug-in answers to query().
struct Answer {
  std::string unsupported;  ///< "" when it runs the config
  attn_capability capability{};
};

/// Operands of the calls on one plan: what it is made for, what is called before the judged call
/// (null: nothing), and that.
struct Calls {
  const PluginOperands& planned;
  const PluginOperands* before;
  const PluginOperands& judged;
};

class PluginBackend final : public Backend, public LayoutTaker {
 public:
  explicit PluginBackend(const PluginSpec& spec) : library_(spec.path) { create(spec.options); }
  PluginBackend(const std::string& name, const attn_plugin* plugin, const std::string& options)
      : library_(name, plugin) {
    create(options);
  }
  ~PluginBackend() override;

  std::string name() const override { return library_.api().name; }
  std::string unsupported_reason(const AttentionConfig& config) const override;
  Arithmetic arithmetic(const AttentionConfig& config) const override;
  Trace run(const Case& c, std::span<const Stage> wanted) const override;
  std::optional<Trace> run_as(ExecMode mode, const Case& c, const Case* other,
                              std::span<const Stage> wanted) const override;
  MemoryLayout taken(const AttentionConfig& config, const MemoryLayout& wanted) const override {
    return reduced_layout(wanted, query(config, false).capability.layouts);
  }

 private:
  void create(const std::string& options);
  Answer query(const AttentionConfig& config, bool has_sinks) const;
  Answer answer_for(const Case& c) const;
  Trace run_twice(const Case& c, const Calls& calls, const attn_capability& capability) const;
  Trace attempt(const Calls& calls, const attn_capability& capability, GuardedEnd end) const;
  void run_once(const PluginCall& call, void* plan) const;
  void check(int status, const Message& message, const char* function) const;

  PluginLibrary library_;
  mutable std::mutex mutex_;  // calls into the plug-in never overlap
  void* self_ = nullptr;
};

void PluginBackend::create(const std::string& options) {
  const attn_plugin& api = library_.api();
  if (api.create == nullptr) {
    if (options.empty()) return;
    throw Error(ErrorKind::kUsage,
                library_.path() + ": takes no options; leave out \":" + options + "\"",
                "--backend");
  }
  Message message;
  const CallerState keep;
  if (api.create(options.c_str(), &self_, message.data()) == ATTN_OK) return;
  throw Error(ErrorKind::kUsage,
              library_.path() + ": create() refused: " + message.text("no reason"), "--backend");
}

PluginBackend::~PluginBackend() {
  const CallerState keep;
  if (library_.api().destroy != nullptr) library_.api().destroy(self_);
}

Answer PluginBackend::query(const AttentionConfig& config, bool has_sinks) const {
  const std::string json = to_json(config);
  const attn_config plugin_config = to_plugin_config(config, has_sinks, json);
  // Room for the structure as the plug-in knows it, which may be larger than ours.
  const std::size_t size =
      std::max<std::size_t>(library_.sizes().capability, sizeof(attn_capability));
  std::vector<std::uint64_t> room(size / sizeof(std::uint64_t) + 1);
  auto* const capability = reinterpret_cast<attn_capability*>(room.data());
  capability->struct_size = sizeof(attn_capability);
  Message message;
  const std::scoped_lock lock(mutex_);
  const CallerState keep;
  const int status = library_.api().query(self_, &plugin_config, capability, message.data());
  Answer answer;
  if (status != ATTN_OK) answer.unsupported = message.text("the plug-in gives no reason");
  std::memcpy(&answer.capability, capability, sizeof(attn_capability));
  return answer;
}

std::string PluginBackend::unsupported_reason(const AttentionConfig& config) const {
  try {
    const Answer answer = query(config, false);
    if (!answer.unsupported.empty()) return answer.unsupported;
    const Task task = task_of(config, answer.capability);
    std::string reason = nothing_to_do(config, task);
    if (reason.empty() && task.given != 0) reason = reference::unsupported_reason(config);
    return reason;
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kUnsupported) return error.what();
    throw;
  }
}

Arithmetic PluginBackend::arithmetic(const AttentionConfig& config) const {
  return to_arithmetic(config, query(config, false).capability);
}

TensorLayout layout_of(const Case& c, const attn_capability& capability) {
  TensorLayout layout;
  layout.types = to_arithmetic(c.config, capability);
  layout.memory = taken_layout(c.layout, capability.layouts);
  layout.lse_heads_first = capability.lse_layout == ATTN_LSE_HEADS_TOKENS;
  constexpr std::uint64_t kLargestAlignment = 4096;
  const std::uint64_t alignment = capability.tensor_alignment;
  if (alignment > kLargestAlignment || (alignment != 0 && !std::has_single_bit(alignment))) {
    throw BackendFailure(Status::kFailed, "query() declares tensor_alignment " +
                                              std::to_string(alignment) +
                                              "; use a power of two up to 4096, or 0");
  }
  layout.alignment = alignment;
  return layout;
}

void PluginBackend::check(int status, const Message& message, const char* function) const {
  if (status == ATTN_OK) return;
  const std::string text = message.text("no reason given");
  if (status == ATTN_UNSUPPORTED) throw Error(ErrorKind::kUnsupported, text);
  throw BackendFailure(Status::kFailed, std::string(function) + " reported an error: " + text);
}

/// Destroys a plan whatever happens.
class Plan {
 public:
  Plan(const attn_plugin& api, void* self) : api_(api), self_(self) {}
  ~Plan() {
    if (made && api_.destroy_plan != nullptr) api_.destroy_plan(self_, plan);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  bool made = false;
  void* plan = nullptr;

 private:
  const attn_plugin& api_;
  void* self_;
};

void PluginBackend::run_once(const PluginCall& call, void* plan) const {
  Message message;
  check(library_.api().run(self_, plan, &call.call(), message.data()), message, "run()");
  if (const std::string violation = call.violation(); !violation.empty()) {
    throw BackendFailure(Status::kFailed, violation);
  }
}

/// The calls, and everything that the last one wrote taken out.
Trace PluginBackend::attempt(const Calls& calls, const attn_capability& capability,
                             GuardedEnd end) const {
  const Case& c = *calls.judged.c;
  const std::string json = to_json(c.config);
  const attn_config config = to_plugin_config(c.config, c.has_sinks(), json);
  const TensorLayout layout = layout_of(c, capability);
  PluginCall call(config, calls.planned, layout, end);
  std::list<PluginCall> later;  // hold what `call` takes
  const auto take = [&](const PluginOperands& operands) {
    call.take(later.emplace_back(config, operands, layout, end));
  };
  const bool is_alone = &calls.planned == &calls.judged && calls.before == nullptr;
  const attn_plugin& api = library_.api();
  {
    const std::scoped_lock lock(mutex_);
    const CallerState keep;
    Plan plan(api, self_);
    if (end == GuardedEnd::kFirst && is_alone) call.make_inputs_read_only();
    if (api.plan != nullptr) {
      Message message;
      std::size_t workspace = 0;
      check(api.plan(self_, &call.call(), &plan.plan, &workspace, message.data()), message,
            "plan()");
      plan.made = true;
      call.add_workspace(workspace);
    }
    if (calls.before != nullptr) {
      take(*calls.before);
      run_once(call, plan.plan);
    }
    if (!is_alone) take(calls.judged);
    if (end == GuardedEnd::kFirst && !is_alone) call.make_inputs_read_only();
    run_once(call, plan.plan);
  }
  Trace trace;
  const StageMask writes = calls.judged.task.writes;
  if (calls.judged.task.writes_cache()) trace.cache = call.cache();
  for (const Stage stage : all_stages()) {
    if (!contains(writes, stage)) continue;
    trace[stage] = stage == Stage::kCacheK   ? logical_keys(c, *trace.cache)
                   : stage == Stage::kCacheV ? logical_values(c, *trace.cache)
                                             : call.stage(stage);
  }
  return trace;
}

/// What the plug-in was fed with is judged no more, but what follows is judged on it.
void add_given(const PluginOperands& operands, Trace& trace) {
  const Case& c = *operands.c;
  for (const Stage stage : all_stages()) {
    if (!contains(operands.task.given, stage)) continue;
    if (stage == Stage::kCacheK) {
      trace[stage] = logical_keys(c, operands.cache);
    } else if (stage == Stage::kCacheV) {
      trace[stage] = logical_values(c, operands.cache);
    } else {
      const Tensor& given = operands.given[static_cast<std::size_t>(stage)];
      trace[stage] = Tensor(given.type(), stage_shape(c, stage));
      std::ranges::copy(given.bytes().first(trace[stage].bytes().size()), trace[stage].data());
    }
    trace.give(stage);
  }
}

Answer PluginBackend::answer_for(const Case& c) const {
  Answer answer = query(c.config, c.has_sinks());
  if (!answer.unsupported.empty()) throw Error(ErrorKind::kUnsupported, answer.unsupported);
  return answer;
}

/// The calls at either end of the tensors' memory.
Trace PluginBackend::run_twice(const Case& c, const Calls& calls,
                               const attn_capability& capability) const {
  Trace trace = attempt(calls, capability, GuardedEnd::kLast);
  const Trace again = attempt(calls, capability, GuardedEnd::kFirst);
  if ((capability.claims & ATTN_CLAIM_DETERMINISTIC) != 0) {
    if (const std::string stage = first_difference(trace, again); !stage.empty()) {
      throw BackendFailure(Status::kFailed,
                           stage + " differs between two equal calls; declared: deterministic");
    }
  }
  add_given(calls.judged, trace);
  if (calls.judged.c != &c) remove_room(c, capability.padding_rows, trace);
  settle_outputs(c, capability, trace);
  // The copy that the plug-in had was held against it.
  if (c.config.starts_at_attention()) trace.cache = c.cache;
  return trace;
}

Trace PluginBackend::run(const Case& c, std::span<const Stage> /*wanted*/) const {
  const Answer answer = answer_for(c);
  const PluginOperands operands = make_operands(c, task_of(c.config, answer.capability));
  return run_twice(c, {operands, nullptr, operands}, answer.capability);
}

std::optional<Trace> PluginBackend::run_as(ExecMode mode, const Case& c, const Case* other,
                                           std::span<const Stage> /*wanted*/) const {
  if (!needs_device(mode)) return std::nullopt;
  const Answer answer = answer_for(c);
  if (const std::string reason = mode_not_declared(mode, answer.capability.modes);
      !reason.empty()) {
    throw Error(ErrorKind::kUnsupported, reason);
  }
  const ModeCalls calls = make_mode_calls(mode, c, other, task_of(c.config, answer.capability));
  const PluginOperands& judged = calls.judged->operands;
  return run_twice(c,
                   {calls.planned ? calls.planned->operands : judged,
                    calls.before ? &calls.before->operands : nullptr, judged},
                   answer.capability);
}

}  // namespace

std::unique_ptr<Backend> make_plugin_backend(const std::string& spec) {
  return std::make_unique<PluginBackend>(split_plugin_spec(spec));
}

std::unique_ptr<Backend> make_plugin_backend(const std::string& name, const attn_plugin* plugin,
                                             const std::string& options) {
  return std::make_unique<PluginBackend>(name, plugin, options);
}

}  // namespace attn::harness
