#include "harness/backends/python_backend.h"

#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "reference/core/error.h"

namespace attn::harness {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "py:";

[[noreturn]] void refuse(const std::string& message) {
  throw Error(ErrorKind::kUsage, message, "--backend");
}

/// Folders that may be the package: build trees, wheels (the program lies in a folder of the
/// package), installations.
std::vector<fs::path> places() {
  if (const char* const named = std::getenv("ATTN_COMPARE_PYTHON"); named != nullptr) {
    return {named};
  }
  std::error_code error;
  const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  return {folder / "../python/attn_compare", folder / "..",
          folder / "../share/attn_compare/python/attn_compare"};
}

class SharedBackend final : public Backend {
 public:
  explicit SharedBackend(const Backend& backend) : backend_(backend) {}

  std::string name() const override { return backend_.name(); }
  std::string unsupported_reason(const AttentionConfig& config) const override {
    return backend_.unsupported_reason(config);
  }
  Arithmetic arithmetic(const AttentionConfig& config) const override {
    return backend_.arithmetic(config);
  }
  Trace run(const Case& c, std::span<const Stage> wanted) const override {
    return backend_.run(c, wanted);
  }
  std::optional<Trace> run_as(ExecMode mode, const Case& c, const Case* other,
                              std::span<const Stage> wanted) const override {
    return backend_.run_as(mode, c, other, wanted);
  }

 private:
  const Backend& backend_;
};

}  // namespace

std::unique_ptr<Backend> share_backend(const Backend& backend) {
  return std::make_unique<SharedBackend>(backend);
}

bool is_python_spec(const std::string& spec) { return spec.starts_with(kPrefix); }

PythonSpec split_python_spec(const std::string& spec) {
  const std::string rest = spec.substr(kPrefix.size());
  const std::size_t colon = rest.find(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == rest.size()) {
    refuse("backend \"" + spec + "\": write py:FILE:NAME, a Python file and a backend in it");
  }
  PythonSpec parts{rest.substr(0, colon), rest.substr(colon + 1), ""};
  if (const std::size_t second = parts.name.find(':'); second != std::string::npos) {
    parts.options = parts.name.substr(second + 1);
    parts.name.resize(second);
  }
  std::error_code error;
  if (!fs::is_regular_file(parts.file, error)) {
    refuse("backend \"" + spec + "\": there is no file " + parts.file);
  }
  return parts;
}

std::vector<std::string> python_worker_command() {
  for (const fs::path& folder : places()) {
    const fs::path worker = folder / "worker.py";
    std::error_code error;
    if (!fs::is_regular_file(worker, error)) continue;
    const char* const python = std::getenv("ATTN_PYTHON");
    return {python == nullptr ? "python3" : python, fs::canonical(worker, error).string()};
  }
  refuse(
      "py: backends need the Python package attn_compare, which is not beside this program; set "
      "ATTN_COMPARE_PYTHON to its folder");
}

}  // namespace attn::harness
