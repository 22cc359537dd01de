#include "harness/backends/plugin.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <numbers>
#include <utility>
#include <vector>

#include "harness/backends/backend_failure.h"
#include "harness/backends/plugin_call.h"
#include "harness/backends/plugin_config.h"
#include "harness/backends/plugin_library.h"
#include "reference/core/error.h"
#include "reference/reference.h"
#include "reference/stages/mask.h"

namespace attn::harness {
namespace {

constexpr std::uint32_t bit(Stage stage) { return 1U << static_cast<unsigned>(stage); }
static_assert(ATTN_STAGE_LSE == static_cast<int>(Stage::kLse));
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

/// What an attention kernel reads; owns what the reference had to make.
struct Fed {
  Tensor q;
  Tensor key_lengths;
  Trace trace;  ///< the stages given to the kernel
  AttentionOperands operands;
};

class PluginBackend final : public Backend {
 public:
  explicit PluginBackend(const PluginSpec& spec);
  ~PluginBackend() override;

  std::string name() const override { return library_.api().name; }
  std::string unsupported_reason(const AttentionConfig& config) const override;
  Arithmetic arithmetic(const AttentionConfig& config) const override;
  Trace run(const Case& c, std::span<const Stage> wanted) const override;

 private:
  Answer query(const AttentionConfig& config, bool has_sinks) const;
  OutputLayout layout_of(const AttentionConfig& config, const attn_capability& capability) const;
  Trace attempt(const Case& c, const Fed& fed, const attn_capability& capability,
                GuardedEnd end) const;
  void check(int status, const Message& message, const char* function) const;

  PluginLibrary library_;
  mutable std::mutex mutex_;  // calls into the plug-in never overlap
  void* self_ = nullptr;
};

PluginBackend::PluginBackend(const PluginSpec& spec) : library_(spec.path) {
  const attn_plugin& api = library_.api();
  if (api.create == nullptr) {
    if (spec.options.empty()) return;
    throw Error(ErrorKind::kUsage,
                spec.path + ": takes no options; leave out \":" + spec.options + "\"", "--backend");
  }
  Message message;
  if (api.create(spec.options.c_str(), &self_, message.data()) == ATTN_OK) return;
  throw Error(ErrorKind::kUsage, spec.path + ": create() refused: " + message.text("no reason"),
              "--backend");
}

PluginBackend::~PluginBackend() {
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
  const int status = library_.api().query(self_, &plugin_config, capability, message.data());
  Answer answer;
  if (status != ATTN_OK) answer.unsupported = message.text("the plug-in gives no reason");
  std::memcpy(&answer.capability, capability, sizeof(attn_capability));
  return answer;
}

std::string PluginBackend::unsupported_reason(const AttentionConfig& config) const {
  if (config.entry_point == EntryPoint::kMaterializeKvFromHidden) {
    return "the plug-in starts at attention, which materialize_kv_from_hidden does not reach";
  }
  if (!config.starts_at_attention()) {
    std::string reason = reference::unsupported_reason(config);
    if (!reason.empty()) return reason;
  }
  try {
    return query(config, false).unsupported;
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kUnsupported) return error.what();
    throw;
  }
}

Arithmetic PluginBackend::arithmetic(const AttentionConfig& config) const {
  return to_arithmetic(config, query(config, false).capability);
}

OutputLayout PluginBackend::layout_of(const AttentionConfig& config,
                                      const attn_capability& capability) const {
  const Arithmetic declared = to_arithmetic(config, capability);
  OutputLayout layout;
  layout.out = declared.out;
  layout.lse = declared.lse;
  layout.lse_heads_first = capability.lse_layout == ATTN_LSE_HEADS_TOKENS;
  if (capability.stages != 0) {
    layout.wants_lse = (capability.stages & bit(Stage::kLse)) != 0;
    layout.wants_out = (capability.stages & bit(Stage::kAttnOut)) != 0;
  }
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

/// The queries, keys and lengths that attention reads in this case.
Fed feed(const Case& c) {
  Fed fed;
  fed.operands.row_offsets = &c.input_row_offsets;
  if (c.has_sinks()) fed.operands.sinks = &c.weights.at("sinks");
  if (!c.mask.empty()) fed.operands.mask = &c.mask;
  if (c.config.starts_at_attention()) {
    fed.operands.q = &c.q;
    fed.operands.cache = &c.cache;
    fed.operands.key_lengths = &c.cache_lengths;
    return fed;
  }
  Trace exact = reference::evaluate(c, reference::Mode::kExact);
  const AttentionConfig& config = c.config;
  fed.q =
      Tensor::from_values(config.dtype, {c.tokens(), config.num_attention_heads, config.head_dim},
                          exact[Stage::kQRope].values());
  fed.key_lengths = Tensor(ElementType::kUInt32, {c.batch()});
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    fed.key_lengths.set_code(b, static_cast<std::uint64_t>(c.key_count(b)));
  }
  fed.trace.cache = std::move(exact.cache);
  return fed;
}

/// Rows that see no key, [tokens].
std::vector<bool> empty_rows(const Case& c) {
  std::vector<bool> empty(static_cast<std::size_t>(c.tokens()));
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t i = 0; i < c.row_count(b); ++i) {
      const std::int64_t row = c.row_begin(b) + i;
      const reference::RowMask mask = reference::row_mask(c, b, row);
      std::int64_t key = mask.begin;
      while (key < mask.end && !mask.sees(key)) ++key;
      empty[static_cast<std::size_t>(row)] = key >= mask.end;
    }
  }
  return empty;
}

bool is_poison(const Tensor& tensor, std::int64_t i) {
  const std::size_t width = element_size(tensor.type());
  const auto bytes = tensor.bytes().subspan(static_cast<std::size_t>(i) * width, width);
  return std::ranges::all_of(bytes, [](std::byte b) { return b == kPoison; });
}

/// Holds rows that see nothing against the declaration and puts the exact values in their place.
void settle_empty_row(const Case& c, std::int64_t row, std::int32_t declared, Stage stage,
                      Tensor& tensor) {
  if (declared == ATTN_EMPTY_ROWS_EXACT) return;
  const std::int64_t width = tensor.size() / tensor.dim(0);
  for (std::int64_t i = row * width; i < (row + 1) * width; ++i) {
    const std::string where =
        std::string(name_of(stage)) + " of row " + std::to_string(row) + ", which sees no key, ";
    if (declared == ATTN_EMPTY_ROWS_UNTOUCHED && !is_poison(tensor, i)) {
      throw BackendFailure(Status::kFailed, where + "was written; declared: untouched");
    }
    if (declared == ATTN_EMPTY_ROWS_FINITE && stage == Stage::kAttnOut &&
        !std::isfinite(tensor.value(i))) {
      throw BackendFailure(Status::kFailed, where + "is not finite; declared: finite");
    }
    double exact = 0.0;
    if (stage == Stage::kLse) {
      exact = c.has_sinks() ? c.weights.at("sinks").value(i - row * width)
                            : -std::numeric_limits<double>::infinity();
    }
    tensor.set_value(i, exact);
  }
}

void settle_output(const Case& c, const std::vector<bool>& empty, const attn_capability& capability,
                   Stage stage, Tensor& tensor) {
  if (tensor.empty() || c.tokens() == 0) return;
  const std::int64_t width = tensor.size() / c.tokens();
  std::int64_t unwritten = 0, first = -1;
  for (std::int64_t row = 0; row < c.tokens(); ++row) {
    if (empty[static_cast<std::size_t>(row)]) {
      settle_empty_row(c, row, capability.empty_rows, stage, tensor);
    }
    for (std::int64_t i = row * width; i < (row + 1) * width; ++i) {
      if (!is_poison(tensor, i)) continue;
      if (unwritten++ == 0) first = i;
    }
  }
  if (unwritten == 0) return;
  throw BackendFailure(
      Status::kFailed,
      std::string(name_of(stage)) + ": " + std::to_string(unwritten) + " of " +
          std::to_string(tensor.size()) + " elements were never written, the first in row " +
          std::to_string(first / width) + ", column " + std::to_string(first % width));
}

/// lse in natural logarithms, whatever base it came in.
Tensor to_natural(Tensor lse, std::int32_t base) {
  if (lse.empty() || base != ATTN_LSE_BASE_2) return lse;
  std::vector<double> values = lse.values();
  for (double& value : values) value *= std::numbers::ln2;
  return Tensor::from_values(ElementType::kFloat64, lse.shape(), values);
}

/// [tokens, Hq, Dv] as the stage's [tokens, Hq*Dv].
Tensor flatten_heads(const Tensor& tensor) {
  if (tensor.empty()) return tensor;
  Tensor flat(tensor.type(), {tensor.dim(0), tensor.dim(1) * tensor.dim(2)});
  std::ranges::copy(tensor.bytes(), flat.data());
  return flat;
}

Trace PluginBackend::attempt(const Case& c, const Fed& fed, const attn_capability& capability,
                             GuardedEnd end) const {
  const std::string json = to_json(c.config);
  const attn_config config = to_plugin_config(c.config, c.has_sinks(), json);
  PluginCall call(config, fed.operands, layout_of(c.config, capability), end);
  const attn_plugin& api = library_.api();
  Message message;
  {
    const std::scoped_lock lock(mutex_);
    Plan plan(api, self_);
    if (end == GuardedEnd::kFirst) call.make_inputs_read_only();
    if (api.plan != nullptr) {
      std::size_t workspace = 0;
      check(api.plan(self_, &call.call(), &plan.plan, &workspace, message.data()), message,
            "plan()");
      plan.made = true;
      call.add_workspace(workspace);
    }
    check(api.run(self_, plan.plan, &call.call(), message.data()), message, "run()");
  }
  if (const std::string violation = call.violation(); !violation.empty()) {
    throw BackendFailure(Status::kFailed, violation);
  }
  Trace trace;
  trace[Stage::kLse] = call.lse();
  trace[Stage::kAttnOut] = flatten_heads(call.attn_out());
  return trace;
}

Trace PluginBackend::run(const Case& c, std::span<const Stage> /*wanted*/) const {
  const Answer answer = query(c.config, c.has_sinks());
  if (!answer.unsupported.empty()) throw Error(ErrorKind::kUnsupported, answer.unsupported);
  Fed fed = feed(c);
  if (!c.config.starts_at_attention()) {
    fed.operands.q = &fed.q;
    fed.operands.cache = &*fed.trace.cache;
    fed.operands.key_lengths = &fed.key_lengths;
  }
  Trace trace = attempt(c, fed, answer.capability, GuardedEnd::kLast);
  const Trace again = attempt(c, fed, answer.capability, GuardedEnd::kFirst);
  const std::vector<bool> empty = empty_rows(c);
  for (const Stage stage : {Stage::kLse, Stage::kAttnOut}) {
    if ((answer.capability.claims & ATTN_CLAIM_DETERMINISTIC) != 0 &&
        !(trace[stage] == again[stage])) {
      throw BackendFailure(Status::kFailed, std::string(name_of(stage)) +
                                                " differs between two equal calls; declared: "
                                                "deterministic");
    }
    settle_output(c, empty, answer.capability, stage, trace[stage]);
  }
  trace[Stage::kLse] = to_natural(std::move(trace[Stage::kLse]), answer.capability.lse_base);
  if (c.config.starts_at_attention()) {
    trace.cache = c.cache;  // held against the copy that the plug-in had
    return trace;
  }
  trace[Stage::kQRope] = flatten_heads(fed.q);
  trace[Stage::kCacheK] = logical_keys(c, *fed.trace.cache);
  trace[Stage::kCacheV] = logical_values(c, *fed.trace.cache);
  for (const Stage stage : {Stage::kQRope, Stage::kCacheK, Stage::kCacheV}) trace.give(stage);
  return trace;
}

}  // namespace

std::unique_ptr<Backend> make_plugin_backend(const std::string& spec) {
  return std::make_unique<PluginBackend>(split_plugin_spec(spec));
}

}  // namespace attn::harness
