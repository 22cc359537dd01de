#include "harness/backends/damaged.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <utility>
#include <vector>

#include "reference/core/error.h"

namespace attn::harness {
namespace {

/// A stage as rows of heads of channels. The cache stages are laid out the same way, [K, Hkv, D].
struct Layout {
  std::int64_t rows = 0;
  std::int64_t heads = 1;
  std::int64_t channels = 1;

  std::int64_t row_width() const { return heads * channels; }
};

Layout layout_of(const AttentionConfig& config, Stage stage, const Tensor& tensor) {
  Layout layout;
  layout.rows = tensor.shape().empty() ? 1 : tensor.dim(0);
  switch (stage) {
    case Stage::kQProj:
    case Stage::kQNorm:
    case Stage::kQRope:
    case Stage::kLse:
    case Stage::kAttnOut:
      layout.heads = config.num_attention_heads;
      break;
    case Stage::kKProj:
    case Stage::kVProj:
    case Stage::kKNorm:
    case Stage::kKRope:
    case Stage::kCacheK:
    case Stage::kCacheV:
      layout.heads = config.num_key_value_heads;
      break;
    case Stage::kFreqsCis:
    case Stage::kOut:
      break;  // no head axis
  }
  const std::int64_t per_row = layout.rows == 0 ? 0 : tensor.size() / layout.rows;
  layout.channels = layout.heads == 0 ? 0 : per_row / layout.heads;
  return layout;
}

void copy_codes(const Tensor& from, std::int64_t from_first, Tensor& to, std::int64_t to_first,
                std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to.set_code(to_first + i, from.code(from_first + i));
}

void scale(Tensor& tensor, double factor) {
  for (std::int64_t i = 0; i < tensor.size(); ++i) tensor.set_value(i, tensor.value(i) * factor);
}

void shift_row(Tensor& tensor, const Layout& layout, std::int64_t row) {
  if (layout.rows < 2) return;
  if (row < 0) row = layout.rows / 2;
  row = std::min(row, layout.rows - 1);
  const std::int64_t source = row == 0 ? 1 : row - 1;
  const Tensor before = tensor;
  copy_codes(before, source * layout.row_width(), tensor, row * layout.row_width(),
             layout.row_width());
}

void swap_heads(Tensor& tensor, const Layout& layout, std::int64_t head) {
  const Tensor before = tensor;
  for (std::int64_t row = 0; row < layout.rows; ++row) {
    const std::int64_t first = row * layout.row_width() + head * layout.channels;
    copy_codes(before, first, tensor, first + layout.channels, layout.channels);
    copy_codes(before, first + layout.channels, tensor, first, layout.channels);
  }
}

/// Tries each pair of neighbours until one changes the stage: equal heads do not.
void swap_first_different_heads(Tensor& tensor, const Layout& layout) {
  const Tensor before = tensor;
  for (std::int64_t head = 0; head + 1 < layout.heads; ++head) {
    swap_heads(tensor, layout, head);
    if (!(tensor == before)) return;
  }
}

class DamagedBackend final : public Backend {
 public:
  DamagedBackend(std::unique_ptr<Backend> inner, const Damage& damage)
      : inner_(std::move(inner)), damage_(damage) {}

  std::string name() const override { return "damaged " + inner_->name(); }
  std::string unsupported_reason(const AttentionConfig& config) const override {
    return inner_->unsupported_reason(config);
  }
  Arithmetic arithmetic(const AttentionConfig& config) const override {
    return inner_->arithmetic(config);
  }
  Trace run(const Case& c, std::span<const Stage> wanted) const override {
    Trace trace = inner_->run(c, wanted);
    apply_damage(c, damage_, trace);
    return trace;
  }

 private:
  std::unique_ptr<Backend> inner_;
  Damage damage_;
};

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> words;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(separator, begin), text.size());
    words.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

template <typename Number>
Number parse_number(const std::string& key, const std::string& text) {
  Number value{};
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc() || end != text.data() + text.size()) {
    throw Error(ErrorKind::kUsage, "damaged: " + key + "=" + text + " is not a number", key);
  }
  return value;
}

/// True when `word` is an option of ours, which it sets.
bool parse_option(const std::string& word, Damage& damage) {
  const std::size_t equals = word.find('=');
  const std::string key = word.substr(0, equals);
  const std::string value = equals == std::string::npos ? "" : word.substr(equals + 1);
  if (key == "stage") {
    damage.stage = parse_stage(value);
  } else if (key == "factor") {
    damage.kind = Damage::Kind::kScale;
    damage.factor = parse_number<double>(key, value);
  } else if (key == "row_shift") {
    damage.kind = Damage::Kind::kRowShift;
    if (!value.empty()) damage.row = parse_number<std::int64_t>(key, value);
  } else if (key == "batch_ulp") {
    damage.kind = Damage::Kind::kBatchUlp;
  } else if (key == "swap_heads") {
    damage.kind = Damage::Kind::kSwapHeads;
    if (!value.empty()) damage.head = parse_number<std::int64_t>(key, value);
  } else {
    return false;
  }
  return true;
}

}  // namespace

bool apply_damage(const Case& c, const Damage& damage, Trace& trace) {
  Tensor& tensor = trace[damage.stage];
  if (tensor.empty()) return false;
  const Tensor before = tensor;
  const Layout layout = layout_of(c.config, damage.stage, tensor);
  switch (damage.kind) {
    case Damage::Kind::kScale:
      scale(tensor, damage.factor);
      break;
    case Damage::Kind::kRowShift:
      shift_row(tensor, layout, damage.row);
      break;
    case Damage::Kind::kSwapHeads:
      if (damage.head < 0) {
        swap_first_different_heads(tensor, layout);
      } else if (damage.head + 1 < layout.heads) {
        swap_heads(tensor, layout, damage.head);
      }
      break;
    case Damage::Kind::kBatchUlp:
      if (c.batch() > 1 && tensor.size() > 0) tensor.set_code(0, tensor.code(0) ^ 1U);
      break;
  }
  return !(tensor == before);
}

std::unique_ptr<Backend> make_damaged_backend(std::unique_ptr<Backend> inner,
                                              const Damage& damage) {
  return std::make_unique<DamagedBackend>(std::move(inner), damage);
}

std::unique_ptr<Backend> make_damaged_backend(std::string_view options) {
  Damage damage;
  std::string inner;
  for (const std::string& word : split(options, ',')) {
    if (parse_option(word, damage)) continue;
    if (!inner.empty()) inner += ',';
    inner += word;
  }
  if (inner.empty()) {
    throw Error(ErrorKind::kUsage,
                "damaged: which backend? e.g. damaged:cpu,stage=attn_out,factor=1.0005");
  }
  return make_damaged_backend(make_backend(inner), damage);
}

}  // namespace attn::harness
