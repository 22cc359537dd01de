#include "harness/cli/backend_source.h"

#include <filesystem>
#include <sstream>
#include <string_view>

#include "harness/backends/plugin_library.h"
#include "harness/backends/python_backend.h"
#include "harness/backends/worker.h"
#include "harness/report/format.h"
#include "reference/core/error.h"

namespace attn::cli {
namespace {

/// A planted mistake in a plug-in's output runs the plug-in.
std::string inner_spec(const std::string& spec) {
  constexpr std::string_view kDamaged = "damaged:";
  if (!spec.starts_with(kDamaged)) return spec;
  std::istringstream words(spec.substr(kDamaged.size()));
  std::string word;
  while (std::getline(words, word, ',') && !harness::is_plugin_spec(word) &&
         !harness::is_python_spec(word)) {
  }
  return word;
}

}  // namespace

std::unique_ptr<harness::Backend> open_backend(const std::string& spec,
                                               const BackendOptions& options) {
  if (options.isolate && options.no_isolate) {
    throw Error(ErrorKind::kUsage, "--isolate and --no-isolate exclude each other; leave one out",
                "--isolate");
  }
  if (harness::is_python_spec(spec) && options.no_isolate) {
    throw Error(ErrorKind::kUsage,
                "--no-isolate: a py: backend runs in the interpreter's process; leave it out",
                "--no-isolate");
  }
  const bool isolated = harness::is_plugin_spec(inner_spec(spec))
                            ? !options.no_isolate
                            : options.isolate || harness::is_python_spec(spec);
  if (!isolated) return harness::make_backend(spec);
  harness::Isolation isolation;
  isolation.timeout_seconds = options.timeout_seconds;
  constexpr double kGibibyte = 1 << 30;
  isolation.memory_bytes = static_cast<std::uint64_t>(options.memory_gib * kGibibyte);
  return harness::make_isolated_backend(spec, isolation);
}

std::string file_stamp(const std::string& path) {
  std::error_code error;
  const std::filesystem::path file(path);
  const auto size = std::filesystem::file_size(file, error);
  if (error) return "absent";
  const auto time = std::filesystem::last_write_time(file, error).time_since_epoch().count();
  return std::to_string(size) + " " + std::to_string(time);
}

std::string plugin_path(const std::string& spec) {
  const std::string inner = inner_spec(spec);
  if (harness::is_python_spec(inner)) return harness::split_python_spec(inner).file;
  return harness::is_plugin_spec(inner) ? harness::split_plugin_spec(inner).path : "";
}

std::string plugin_stamp(const std::string& spec) {
  const std::string path = plugin_path(spec);
  return path.empty() ? "" : file_stamp(path);
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
