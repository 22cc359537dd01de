#include "harness/backends/plugin_library.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <utility>

#include "reference/core/error.h"

namespace attn::harness {
namespace {

/// The sizes of every minor version of this major one, oldest first. A published row never changes.
constexpr PluginSizes kSizes[] = {
    {88, 104, 152, 88},   // 1.0
    {88, 184, 200, 136},  // 1.1
    {88, 184, 200, 160},  // 1.2
    {88, 184, 200, 160},  // 1.3
};
static_assert(std::size(kSizes) == ATTN_PLUGIN_ABI_MINOR + 1);
static_assert(kSizes[ATTN_PLUGIN_ABI_MINOR] == PluginSizes{sizeof(attn_plugin), sizeof(attn_config),
                                                           sizeof(attn_call),
                                                           sizeof(attn_capability)},
              "a structure changed: give it a new minor version and a row here");
static_assert(sizeof(attn_tensor) == 48 && sizeof(attn_dtype) == 4, "DLPack's layout");

std::string version_text(std::uint32_t major, std::uint32_t minor) {
  return std::to_string(major) + "." + std::to_string(minor);
}

}  // namespace

PluginLibrary::PluginLibrary(std::string path) : path_(std::move(path)) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path_, ignored)) refuse("there is no such file");
  // An absolute name keeps dlopen from searching its own folders.
  const std::string absolute = std::filesystem::absolute(path_).string();
  handle_ = dlopen(absolute.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle_ == nullptr) {
    std::string why = dlerror();
    if (why.starts_with(absolute + ": ")) why.erase(0, absolute.size() + 2);
    refuse("cannot be loaded: " + why);
  }
  try {
    void* const symbol = dlsym(handle_, "attn_plugin_entry");
    if (symbol == nullptr) {
      refuse("exports no attn_plugin_entry; is it a plug-in, and is the symbol visible?");
    }
    check(reinterpret_cast<const attn_plugin* (*)()>(symbol)());
  } catch (...) {
    dlclose(handle_);
    throw;
  }
}

PluginLibrary::PluginLibrary(std::string name, const attn_plugin* plugin) : path_(std::move(name)) {
  check(plugin);
}

PluginLibrary::~PluginLibrary() {
  if (handle_ != nullptr) dlclose(handle_);
}

void PluginLibrary::refuse(const std::string& why) const {
  throw Error(ErrorKind::kUsage, path_ + ": " + why, "--backend");
}

/// The six numbers come first in every version, so they may be read before anything is known.
void PluginLibrary::check(const attn_plugin* theirs) {
  if (theirs == nullptr) refuse("attn_plugin_entry returned NULL");
  const PluginSizes sizes{theirs->struct_size, theirs->config_size, theirs->call_size,
                          theirs->capability_size};
  const std::string version = version_text(theirs->abi_major, theirs->abi_minor);
  if (theirs->abi_major != ATTN_PLUGIN_ABI_MAJOR) {
    refuse("was built for plug-in interface " + version + "; this program has " +
           version_text(ATTN_PLUGIN_ABI_MAJOR, ATTN_PLUGIN_ABI_MINOR) +
           ": build it with this program's attn_plugin.h");
  }
  const bool newer = theirs->abi_minor > ATTN_PLUGIN_ABI_MINOR;
  const PluginSizes& known = kSizes[newer ? ATTN_PLUGIN_ABI_MINOR : theirs->abi_minor];
  const std::pair<const char*, std::pair<std::uint32_t, std::uint32_t>> fields[] = {
      {"attn_plugin", {sizes.plugin, known.plugin}},
      {"attn_config", {sizes.config, known.config}},
      {"attn_call", {sizes.call, known.call}},
      {"attn_capability", {sizes.capability, known.capability}}};
  for (const auto& [name, size] : fields) {
    if (newer ? size.first >= size.second : size.first == size.second) continue;
    refuse(std::string("says that ") + name + " has " + std::to_string(size.first) +
           " bytes; in interface " + version + " it has " + (newer ? "at least " : "") +
           std::to_string(size.second) + ": was the header changed, or the structure not packed " +
           "as the C compiler does?");
  }
  std::memcpy(&api_, theirs, std::min<std::size_t>(sizes.plugin, sizeof(api_)));
  if (api_.query == nullptr || api_.run == nullptr) refuse("has no query() or no run()");
  if (api_.name == nullptr) api_.name = "plugin";
  if (api_.summary == nullptr) api_.summary = "";
}

PluginSizes PluginLibrary::sizes() const {
  return {api_.struct_size, api_.config_size, api_.call_size, api_.capability_size};
}

bool is_plugin_spec(const std::string& spec) {
  const std::string start = spec.substr(0, spec.find(':'));
  return start.find('/') != std::string::npos || start.ends_with(".so");
}

PluginSpec split_plugin_spec(const std::string& spec) {
  std::error_code ignored;
  const std::size_t colon = spec.find(':');
  if (colon == std::string::npos || std::filesystem::exists(spec, ignored)) return {spec, ""};
  return {spec.substr(0, colon), spec.substr(colon + 1)};
}

}  // namespace attn::harness
