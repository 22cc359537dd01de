#include "harness/bench/context.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>
#include <sstream>

#include "golden/build_info.h"
#include "harness/generate/case_spec.h"
#if ATTN_WITH_CUDA
#include "gpu/device/device.h"
#endif

namespace attn::bench {
namespace {

/// One field of nvidia-smi, of the first device; "" where there is none.
std::string smi(const std::string& field) {
  const std::string command =
      "nvidia-smi --query-gpu=" + field + " --format=csv,noheader 2>/dev/null";
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(::popen(command.c_str(), "r"),
                                                             &::pclose);
  std::array<char, 256> line{};
  if (pipe == nullptr || std::fgets(line.data(), line.size(), pipe.get()) == nullptr) return "";
  std::string text = line.data();
  text.erase(text.find_last_not_of(" \n") + 1);
  return text;
}

void add(const std::string& key, const std::string& value) {
  if (!value.empty()) benchmark::AddCustomContext(key, value);
}

std::string mask_text(const MaskConfig& mask) {
  if (mask.variant == MaskVariant::kNull) return "full";
  if (mask.variant == MaskVariant::kSlidingWindowCausal && mask.window_size) {
    return "window " + std::to_string(*mask.window_size);
  }
  return std::string(name_of(mask.variant));
}

}  // namespace

void add_run_context(const std::string& program, bool on_device) {
  add("program", program);
  const golden::BuildInfo& build = golden::build_info();
  add("cpu", golden::cpu_model());
  add("compiler", build.compiler);
  add("build_type", build.build_type);
  add("commit", build.git_commit + (build.git_dirty ? "-dirty" : ""));
  if (!on_device) return;
#if ATTN_WITH_CUDA
  const gpu::DeviceInfo device = gpu::device_info();
  add("gpu", device.name);
  add("gpu_count", "1");
  add("cuda",
      std::to_string(device.runtime / 1000) + "." + std::to_string(device.runtime % 1000 / 10));
#endif
  add("driver", smi("driver_version"));
  const std::string clock = smi("clocks.max.sm");
  if (!clock.empty()) add("clocks", "SM at most " + clock);
}

std::string shape_parameters(const Shape& shape) {
  const harness::CaseSpec spec = harness::parse_case_spec(shape.spec);
  const AttentionConfig& config = spec.config;
  const bool is_attention = config.starts_at_attention();
  const auto new_tokens = [&](const harness::RowSpec& row) {
    return is_attention ? row.first : row.second;
  };
  const auto keys = [&](const harness::RowSpec& row) {
    return is_attention ? row.second : row.first + row.second;
  };
  std::ostringstream text;
  text << R"({"kind": ")" << shape.group << R"(", "batch": )" << spec.rows.size()
       << R"(, "heads": )" << config.num_attention_heads << R"(, "kv_heads": )"
       << config.num_key_value_heads << R"(, "head_dim": )" << config.head_dim << R"(, "dtype": ")"
       << element_name(config.dtype) << R"(", "mask": ")" << mask_text(config.mask)
       << R"(", "page_size": )" << config.kv_cache.page_size;
  const bool is_even = std::ranges::all_of(spec.rows, [&](const harness::RowSpec& row) {
    return new_tokens(row) == new_tokens(spec.rows[0]) && keys(row) == keys(spec.rows[0]);
  });
  if (is_even && !spec.rows.empty()) {
    text << R"(, "q_len": )" << new_tokens(spec.rows[0]) << R"(, "kv_len": )" << keys(spec.rows[0]);
  }
  if (config.kv_cache.dtype != config.dtype) {
    text << R"(, "kv_dtype": ")" << element_name(config.kv_cache.dtype) << "\"";
  }
  if (!is_attention) text << R"(, "hidden_size": )" << config.hidden_size;
  if (config.quant) text << R"(, "weights": ")" << name_of(config.quant->q_proj) << "\"";
  text << "}";
  return text.str();
}

void add_shape_context(const Shape& shape) {
  benchmark::AddCustomContext("parameters " + shape.name, shape_parameters(shape));
}

}  // namespace attn::bench
