#include "harness/cli/backend_source.h"

#include <string_view>

#include "harness/backends/plugin_library.h"
#include "harness/backends/worker.h"
#include "harness/report/format.h"
#include "reference/core/error.h"

namespace attn::cli {
namespace {

/// A planted mistake in a plug-in's output runs the plug-in.
bool holds_plugin(std::string spec) {
  constexpr std::string_view kDamaged = "damaged:";
  if (spec.starts_with(kDamaged)) spec.erase(0, kDamaged.size());
  return harness::is_plugin_spec(spec);
}

}  // namespace

std::unique_ptr<harness::Backend> open_backend(const std::string& spec,
                                               const BackendOptions& options) {
  if (options.isolate && options.no_isolate) {
    throw Error(ErrorKind::kUsage, "--isolate and --no-isolate exclude each other; leave one out",
                "--isolate");
  }
  const bool isolated = holds_plugin(spec) ? !options.no_isolate : options.isolate;
  if (!isolated) return harness::make_backend(spec);
  harness::Isolation isolation;
  isolation.timeout_seconds = options.timeout_seconds;
  constexpr double kGibibyte = 1 << 30;
  isolation.memory_bytes = static_cast<std::uint64_t>(options.memory_gib * kGibibyte);
  return harness::make_isolated_backend(spec, isolation);
}

std::string repro_words(const BackendOptions& options) {
  const BackendOptions standard;
  std::string words;
  if (options.isolate) words += " --isolate";
  if (options.no_isolate) words += " --no-isolate";
  if (options.timeout_seconds != standard.timeout_seconds) {
    words += " --timeout " + harness::format_short(options.timeout_seconds);
  }
  if (options.memory_gib != standard.memory_gib) {
    words += " --memory-limit " + harness::format_short(options.memory_gib);
  }
  return words;
}

}  // namespace attn::cli
