#include "harness/backends/cpu/device_layer.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "harness/backends/cpu/activations.h"
#include "harness/backends/cpu/cache_rows.h"
#include "harness/backends/cpu/clip.h"
#include "harness/backends/cpu/fault_switch.h"
#include "harness/backends/cpu/projection.h"
#include "harness/backends/cpu/rope.h"

namespace attn::harness::cpu {
namespace {

float mean_square(const float* x, std::int64_t count) {
  float sum = 0.0f;
  for (std::int64_t i = 0; i < count; ++i) sum += x[i] * x[i];
  return sum / static_cast<float>(count);
}

/// y = x / sqrt(mean(x^2) + eps) * gamma over one head.
void normalise_head(const float* x, float square, const std::vector<float>& gamma, float eps,
                    float* y) {
  [[maybe_unused]] constexpr float kLeastNormalHalf = 0x1p-14f;
  if (ATTN_FAULT(norm_square_flushed, square > 0.0f && square < kLeastNormalHalf)) square = 0.0f;
  if (ATTN_FAULT(norm_eps_ignored)) eps = 0.0f;
  float inverse = 1.0f / std::sqrt(square + eps);
  if (ATTN_FAULT(norm_eps_outside_root)) inverse = 1.0f / (std::sqrt(square) + eps);
  for (std::size_t d = 0; d < gamma.size(); ++d) {
    const float weight = gamma[d] + (ATTN_FAULT(norm_weight_plus_one) ? 1.0f : 0.0f);
    y[d] = x[d] * inverse * (ATTN_FAULT(norm_weight_ignored) ? 1.0f : weight);
  }
}

/// What happens to q or k between its projection and its use: norm, then rotation.
struct HeadPath {
  Stage projected, normalised, rotated;
  std::string gamma;
  std::int64_t heads;
};

class DeviceRun {
 public:
  DeviceRun(const DeviceLayer& device, const AttendOptions& options)
      : whole_(device.whole),
        local_(device.local),
        config_(device.local.config),
        heads_(device.heads),
        options_(options) {
    trace_.cache = local_.cache;
  }

  Trace run();

 private:
  float* new_stage(Stage stage);
  const float* floats(Stage stage) const { return trace_[stage].as<float>(); }
  Range columns(const Range& heads) const;
  void project_input(const Rows& x, Matrix matrix, const Range& heads, Stage stage);
  void project_inputs();
  std::int64_t rope_position(std::int64_t b, std::int64_t i) const;
  void prepare_heads(const HeadPath& path);
  void store_keys_and_values();
  void project_output();

  const Case& whole_;
  const Case& local_;
  const AttentionConfig& config_;  // the device's
  const DeviceHeads& heads_;
  const AttendOptions& options_;
  Trace trace_;
};

float* DeviceRun::new_stage(Stage stage) {
  trace_[stage] = Tensor(ElementType::kFloat32, stage_shape(local_, stage));
  return trace_[stage].as<float>();
}

/// The channels of some heads (those of a layer's values are as many as those of its keys).
Range DeviceRun::columns(const Range& heads) const {
  return {heads.first * config_.head_dim, heads.count * config_.head_dim};
}

void DeviceRun::project_input(const Rows& x, Matrix matrix, const Range& heads, Stage stage) {
  const std::unique_ptr<WeightRows> weight = open_weight(whole_, matrix);
  Projection p;
  p.weight = weight.get();
  p.weight_width = config_.hidden_size;
  p.rows = columns(heads);
  if (config_.has_bias) p.bias = &whole_.weights.at(name_of(matrix) + ".bias");
  p.activation_clip = config_.clip_activations;
  float* const y = new_stage(stage);
  if (ATTN_FAULT(clip_activations_of_q_only, matrix != Matrix::kQ)) p.activation_clip.reset();
  if (ATTN_FAULT(bias_of_q_only, matrix != Matrix::kQ)) p.bias = nullptr;
  if (!quantises_activations(config_)) return project(x, p, options_.threads, y);
  Rows codes = x;
  quantise_activations(whole_, matrix, codes);
  project(codes, p, options_.threads, y);
}

void DeviceRun::project_inputs() {
  Rows x(local_.tokens(), config_.hidden_size);
  unpack_rows(local_.x, 0, x);
  ATTN_SCRATCH(scratch_hidden_tail, x.row(0) + x.width, x.stride - x.width);
  if (config_.entry_point == EntryPoint::kForward) {
    project_input(x, Matrix::kQ, heads_.q_heads, Stage::kQProj);
  }
  project_input(x, Matrix::kK, heads_.kv_heads, Stage::kKProj);
  project_input(x, Matrix::kV, heads_.kv_heads, Stage::kVProj);
}

/// Row of the rope table for row i of sequence b.
std::int64_t DeviceRun::rope_position(std::int64_t b, std::int64_t i) const {
  const std::int64_t position =
      ATTN_KEPT(rope_offset_kept, b, local_.cached(b), local_.cached(b)) + i;
  if (ATTN_FAULT(rope_offset_reset, local_.cached(b) > 0)) return i;
  if (ATTN_FAULT(rope_offset_of_first, local_.cached(0) < local_.cached(b)))
    return local_.cached(0) + i;
  if (ATTN_FAULT(rope_offset_after_empty_row, b > 0 && local_.row_count(b - 1) == 0 &&
                                                  local_.cached(b - 1) < local_.cached(b))) {
    return local_.cached(b - 1) + i;
  }
  if (ATTN_FAULT(rope_position_in_bfloat16, position > 256)) return position / 2 * 2;
  return position;
}

void DeviceRun::prepare_heads(const HeadPath& path) {
  const std::int64_t d = config_.head_dim;
  const std::int64_t width = path.heads * d;
  const float* const source = floats(path.projected);
  std::vector<float> gamma;
  float* normalised = nullptr;
  if (config_.use_qk_norm) {
    gamma = unpack_vector(
        whole_.weights.at(ATTN_FAULT(norm_weight_of_q) ? "q_norm.weight" : path.gamma));
    normalised = new_stage(path.normalised);
  }
  float* const rotated = new_stage(path.rotated);
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  for (std::int64_t b = 0; b < local_.batch(); ++b) {
    for (std::int64_t i = 0; i < local_.row_count(b); ++i) {
      const std::int64_t row = (local_.row_begin(b) + i) * width;
      const float* const angles =
          local_.freqs_cis.as<float>() + rope_position(b, i) * config_.rotary_dim();
      for (std::int64_t at = row; at < row + width; at += d) {
        const float* head = source + at;
        if (normalised != nullptr) {
          float square = mean_square(head, d);
          if (ATTN_FAULT(norm_across_heads, path.heads > 1))
            square = mean_square(source + row, width);
          normalise_head(head, square, gamma, eps, normalised + at);
          if (ATTN_FAULT(clip_after_norm, config_.clip_activations.has_value())) {
            clip(normalised + at, d, *config_.clip_activations);
          }
          if (!ATTN_FAULT(norm_result_unused)) head = normalised + at;
        }
        rotate_head(config_.rope, config_.rotary_dim(), d, angles, head, rotated + at);
      }
    }
  }
}

void DeviceRun::store_keys_and_values() {
  const std::int64_t heads = config_.num_key_value_heads;
  const float* k = floats(ATTN_FAULT(keys_stored_before_rope) ? Stage::kKProj : Stage::kKRope);
  const float* v = floats(Stage::kVProj);
  for (std::int64_t b = 0; b < local_.batch(); ++b) {
    for (std::int64_t i = 0; i < local_.row_count(b); ++i) {
      const std::int64_t position = local_.cached(b) + i;
      if (ATTN_FAULT(last_row_not_stored,
                     i > 0 && i + 1 == local_.row_count(b) && local_.cached(b) > 0))
        continue;
      for (std::int64_t h = 0; h < heads; ++h) {
        store_head(k, CachePart::kKeys, b, position, h, *trace_.cache);
        store_head(v, CachePart::kValues, b, position, h, *trace_.cache);
        k += config_.head_dim;
        v += config_.head_dim_v;
      }
    }
  }
}

void DeviceRun::project_output() {
  Rows attended(local_.tokens(), config_.attn_width());
  unpack_rows(trace_[Stage::kAttnOut], 0, attended);
  if (quantises_activations(config_)) quantise_activations(whole_, Matrix::kO, attended);
  const std::unique_ptr<WeightRows> weight = open_weight(whole_, Matrix::kO);
  Projection p;
  p.weight = weight.get();
  p.weight_width = whole_.config.attn_width();
  p.rows = {0, config_.hidden_size};
  p.first_column = columns(ATTN_FAULT(tp_output_columns_of_kv_heads,
                                      heads_.kv_heads.first != heads_.q_heads.first)
                               ? heads_.kv_heads
                               : heads_.q_heads)
                       .first;
  project(attended, p, options_.threads, new_stage(Stage::kOut));
}

Trace DeviceRun::run() {
  std::vector<float> given_q;
  const float* q = nullptr;
  if (config_.starts_at_attention()) {
    given_q = unpack_vector(local_.q);
    q = given_q.data();
  } else {
    project_inputs();
    prepare_heads({Stage::kKProj, Stage::kKNorm, Stage::kKRope, "k_norm.weight",
                   config_.num_key_value_heads});
    store_keys_and_values();
  }
  if (config_.entry_point == EntryPoint::kMaterializeKvFromHidden) return std::move(trace_);
  if (config_.entry_point == EntryPoint::kForward) {
    prepare_heads({Stage::kQProj, Stage::kQNorm, Stage::kQRope, "q_norm.weight",
                   config_.num_attention_heads});
    q = floats(Stage::kQRope);
  }
  float* const lse = new_stage(Stage::kLse);
  attend(local_, *trace_.cache, q, options_, lse, new_stage(Stage::kAttnOut));
  if (config_.entry_point == EntryPoint::kForward) project_output();
  return std::move(trace_);
}

}  // namespace

Trace run_device(const DeviceLayer& device, const AttendOptions& options) {
  return DeviceRun(device, options).run();
}

}  // namespace attn::harness::cpu
