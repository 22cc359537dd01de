#pragma once

#include <cstdint>
#include <string>

#include "harness/backends/attn_plugin.h"

namespace attn::harness {

/// The sizes of the structures that cross the interface, as one side was compiled.
struct PluginSizes {
  std::uint32_t plugin = 0, config = 0, call = 0, capability = 0;
  friend bool operator==(const PluginSizes&, const PluginSizes&) = default;
};

/// A loaded plug-in. What is wrong with a library is said in one line that begins with its path.
class PluginLibrary {
 public:
  /// Loads the library and checks versions and sizes. Throws Error(kUsage).
  explicit PluginLibrary(std::string path);
  /// A plug-in that is in this process already, which must outlive the object. `name` stands for
  /// the path in messages.
  PluginLibrary(std::string name, const attn_plugin* plugin);
  ~PluginLibrary();
  PluginLibrary(const PluginLibrary&) = delete;
  PluginLibrary& operator=(const PluginLibrary&) = delete;

  const std::string& path() const { return path_; }
  /// Fields that the plug-in's version does not have are null.
  const attn_plugin& api() const { return api_; }
  PluginSizes sizes() const;

 private:
  [[noreturn]] void refuse(const std::string& why) const;
  void check(const attn_plugin* theirs);

  std::string path_;
  void* handle_ = nullptr;
  attn_plugin api_{};
};

/// A backend spec that names a library: it has a slash, or its part before the first colon ends in
/// ".so".
bool is_plugin_spec(const std::string& spec);

struct PluginSpec {
  std::string path;
  std::string options;
};
/// Splits "./lib.so:OPTIONS" at the first colon, unless the whole is a file's name.
PluginSpec split_plugin_spec(const std::string& spec);

}  // namespace attn::harness
