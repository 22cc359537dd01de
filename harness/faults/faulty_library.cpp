#include "harness/faults/faulty_library.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "harness/faults/library/faulty_entry.h"
#include "harness/faults/memory_run.h"
#include "reference/core/error.h"

namespace attn::harness {
namespace {

namespace fs = std::filesystem;

/// Where a library may be: named by the environment, beside the program (build trees), or where an
/// installation has it.
std::vector<fs::path> places(const char* variable, const char* name) {
  if (const char* const named = std::getenv(variable); named != nullptr) return {named};
  std::error_code error;
  const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  return {folder / name, folder / ATTN_LIBEXEC_FROM_BIN / name};
}

const FaultyEntry* load(const fs::path& path, std::string& reasons) {
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const reason = dlerror();
    reasons +=
        "; " + std::string(reason == nullptr ? path.string() + ": cannot be loaded" : reason);
    return nullptr;
  }
  using EntryFunction = const FaultyEntry* (*)();
  const auto function = reinterpret_cast<EntryFunction>(dlsym(library, "attn_faulty_entry"));
  const FaultyEntry* const entry = function == nullptr ? nullptr : function();
  if (entry == nullptr || !std::ranges::equal(entry->layout, FaultyEntry::kLayout)) {
    reasons += "; " + path.string() + ": is of another build";
    return nullptr;
  }
  return entry;
}

}  // namespace

FaultyLibrary::FaultyLibrary(const char* variable, const char* file, const char* target) {
  std::string reasons;
  for (const fs::path& path : places(variable, file)) {
    entry_ = load(path, reasons);
    if (entry_ != nullptr) return;
  }
  throw Error(ErrorKind::kUsage, "the library of planted bugs was not found" + reasons +
                                     "; build the target " + target + ", or set " + variable +
                                     " to its file");
}

std::string faulty_memory_plugin() {
  std::string tried;
  for (const fs::path& path : places("ATTN_FAULTY_MEMORY", "attn_faulty_memory.so")) {
    std::error_code error;
    if (fs::exists(path, error)) return path.string();
    tried += (tried.empty() ? "" : ", ") + path.string();
  }
  throw Error(ErrorKind::kUsage,
              "the plug-in of planted bugs of memory was not found: " + tried +
                  "; build the target attn_faulty_memory, or set ATTN_FAULTY_MEMORY to its file");
}

FaultyLibrary& FaultyLibrary::instance() {
  static FaultyLibrary library("ATTN_FAULTY_LIBRARY", "libattn_faulty.so", "attn_faulty");
  return library;
}

FaultyLibrary& FaultyLibrary::cuda() {
  static FaultyLibrary library("ATTN_FAULTY_CUDA_LIBRARY", "libattn_faulty_cuda.so",
                               "attn_faulty_cuda");
  return library;
}

std::unique_ptr<Backend> FaultyLibrary::make(std::string_view id, std::int64_t block) const {
  std::unique_ptr<Backend> backend = entry_->make(id, block);
  if (backend == nullptr) {
    std::vector<std::string> known{"none"};
    for (const std::string_view name : ids()) known.emplace_back(name);
    const std::string nearest = nearest_match(id, known);
    throw Error(ErrorKind::kUsage,
                "there is no fault \"" + std::string(id) + "\"" +
                    (nearest.empty() ? "; attn-compare list faults names them"
                                     : "; did you mean \"" + nearest + "\"?"),
                "fault");
  }
  return backend;
}

std::int64_t FaultyLibrary::reached(std::string_view id) const { return entry_->reached(id); }

std::int64_t FaultyLibrary::reached_by_last_run() const { return entry_->reached_by_last_run(); }

std::span<const std::string_view> FaultyLibrary::ids() const { return entry_->ids(); }

}  // namespace attn::harness
