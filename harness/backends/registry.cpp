#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "harness/backends/backend.h"
#include "harness/backends/cpu/cpu_backend.h"
#include "harness/backends/cuda_backend.h"
#include "harness/backends/damaged.h"
#include "harness/backends/plugin.h"
#include "harness/backends/plugin_library.h"
#include "harness/backends/python_backend.h"
#include "harness/backends/reference_backend.h"
#include "harness/backends/worker.h"
#include "harness/faults/faulty_library.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

struct Option {
  std::string name;
  std::string value;
};

[[noreturn]] void refuse(const std::string& message) {
  throw Error(ErrorKind::kUsage, message, "backend");
}

/// "block=32,threads=3" as pairs.
std::vector<Option> parse_options(const std::string& spec, std::string_view words) {
  std::vector<Option> options;
  while (true) {
    const std::size_t comma = words.find(',');
    const std::string_view word = words.substr(0, comma);
    const std::size_t equals = word.find('=');
    if (equals == std::string_view::npos) {
      refuse("backend \"" + spec + "\": option \"" + std::string(word) +
             "\" has no value; write NAME=VALUE, separated by commas");
    }
    options.push_back({std::string(word.substr(0, equals)), std::string(word.substr(equals + 1))});
    if (comma == std::string_view::npos) return options;
    words.remove_prefix(comma + 1);
  }
}

int positive_int(const std::string& spec, const Option& option) {
  int value = 0;
  const char* const end = option.value.data() + option.value.size();
  const auto [stop, failure] = std::from_chars(option.value.data(), end, value);
  if (failure != std::errc() || stop != end || value < 1) {
    refuse("backend \"" + spec + "\": " + option.name + "=" + option.value +
           " is not a whole number from 1 to " + std::to_string(std::numeric_limits<int>::max()));
  }
  return value;
}

std::unique_ptr<Backend> make_cpu(const std::string& spec, const std::vector<Option>& options) {
  cpu::CpuOptions result;
  for (const Option& option : options) {
    if (option.name == "block") {
      result.block = positive_int(spec, option);
    } else if (option.name == "threads") {
      result.threads = positive_int(spec, option);
    } else {
      refuse("backend \"" + spec + "\": cpu has no option \"" + option.name + "\"" +
             hint(option.name, {"block", "threads"}));
    }
  }
  return cpu::make_cpu_backend(result);
}

CudaOptions cuda_options(const std::string& spec, const std::vector<Option>& options) {
  CudaOptions result;
  const std::vector<std::pair<Option, bool*>> words{
      {{"fused", "0"}, &result.fused},
      {{"attention", "plain"}, &result.plain_attention},
      {{"prefill", "hopper"}, &result.hopper_prefill},
      {{"prefill", "fp8"}, &result.fp8_prefill},
      {{"prefill", "tiled"}, &result.tiled_prefill},
      {{"projection", "hopper"}, &result.hopper_projection},
      {{"projection", "hopper-always"}, &result.hopper_projection_always},
      {{"projection", "separate"}, &result.separate_projection},
      {{"gemv", "0"}, &result.no_gemv},
      {{"gemv", "1"}, &result.gemv},
      {{"gemv", "ahead"}, &result.gemv_ahead},
      {{"gemm", "own"}, &result.cublas},
      {{"fp8", "own"}, &result.fp8_own},
      {{"fp8", "cublaslt"}, &result.fp8_cublas},
  };
  constexpr std::array<std::string_view, 3> kWays{"general", "lean", "lean-mail"};
  constexpr std::array<std::string_view, 3> kCodedWays{"stream", "few", "cluster"};
  for (const Option& option : options) {
    if (option.name == "splits") {
      result.splits = positive_int(spec, option);
      continue;
    }
    if (option.name == "decode" && std::ranges::find(kWays, option.value) != kWays.end()) {
      result.decode = option.value;
      continue;
    }
    if (option.name == "coded" && std::ranges::find(kCodedWays, option.value) != kCodedWays.end()) {
      if (!result.coded.empty() && result.coded != option.value) {
        refuse("backend \"" + spec + "\": coded is " + result.coded + " or " + option.value +
               ", not both; leave one out");
      }
      result.coded = option.value;
      continue;
    }
    const auto word = std::ranges::find_if(words, [&](const auto& w) {
      return w.first.name == option.name && w.first.value == option.value;
    });
    if (word == words.end()) {
      refuse("backend \"" + spec + "\": cuda has no option \"" + option.name + "=" + option.value +
             "\"; known: fused=0, attention=plain, prefill=hopper, prefill=fp8, prefill=tiled, "
             "projection=hopper, projection=hopper-always, projection=separate, gemv=0, "
             "gemv=1, gemv=ahead, gemm=own, fp8=own, fp8=cublaslt, coded=stream, coded=few, "
             "coded=cluster, decode=general, decode=lean, decode=lean-mail, "
             "splits=N");
    }
    *word->second = option.name != "fused" && option.name != "gemm";
  }
  if (result.fp8_own && result.fp8_cublas) {
    refuse("backend \"" + spec + "\": fp8 is own or cublaslt, not both; leave one out");
  }
  return result;
}

/// What stands behind the colon of a spec, if there is one.
std::vector<Option> options_of(const std::string& spec) {
  const std::size_t colon = spec.find(':');
  if (colon == std::string::npos) return {};
  return parse_options(spec, std::string_view(spec).substr(colon + 1));
}

}  // namespace

CudaOptions cuda_options_of(std::string_view spec) {
  return cuda_options(std::string(spec), options_of(std::string(spec)));
}

std::vector<BackendInfo> list_backends() {
  return {
      {"exact", "the reference in float64: only the roundings that are part of the function", "",
       ""},
      {"faithful", "the reference with the rounding points of a layer that runs in config.dtype",
       "", ""},
      {"cpu", "an independent float32 implementation: blocked online softmax, threads",
       "block=N threads=N", ""},
      {"cuda", "the layers as CUDA kernels, on the first device",
       "fused=0 attention=plain prefill=hopper|fp8|tiled projection=hopper|separate "
       "gemv=0|1|ahead gemm=own fp8=own|cublaslt coded=stream|few|cluster "
       "decode=general|lean|lean-mail splits=N",
       cuda_unavailable_reason()},
  };
}

std::unique_ptr<Backend> make_backend(std::string_view spec_view) {
  const std::string spec(spec_view);
  // An interpreter is never in this process.
  if (is_python_spec(spec)) return make_isolated_backend(spec, Isolation());
  if (is_plugin_spec(spec)) return make_plugin_backend(spec);
  const std::size_t colon = spec.find(':');
  const std::string name = spec.substr(0, colon);
  // Not in the list: they are no implementations, but planted mistakes for tests and examples.
  const std::string_view rest =
      colon == std::string::npos ? "" : std::string_view(spec).substr(colon + 1);
  if (name == "damaged") return make_damaged_backend(rest);
  if (name == "faulty_cuda") return FaultyLibrary::cuda().make(rest);
  if (name == "faulty") return FaultyLibrary::instance().make(rest);
  // Not from list_backends(), which asks the device: that takes a while and may be of no use here.
  const std::vector<std::string> names{"exact", "faithful", "cpu", "cuda"};
  if (std::ranges::find(names, name) == names.end()) {
    refuse("there is no backend \"" + name + "\"" + hint(name, names));
  }
  const std::vector<Option> options = options_of(spec);
  if (name == "cpu") return make_cpu(spec, options);
  if (name == "cuda") return make_cuda_backend(cuda_options(spec, options));
  if (!options.empty()) {
    refuse("backend \"" + spec + "\": " + name + " takes no options; write \"" + name + "\"");
  }
  return make_reference_backend(name == "exact" ? reference::Mode::kExact
                                                : reference::Mode::kFaithful);
}

}  // namespace attn::harness
