#pragma once

#include <memory>
#include <string>

#include "harness/backends/backend.h"
#include "harness/backends/worker_process.h"

namespace attn::cli {

/// How a verb runs its backends: plug-ins in a process of their own, ours in this one.
struct BackendOptions {
  bool isolate = false;     ///< ours too
  bool no_isolate = false;  ///< not even plug-ins, for a debugger
  double timeout_seconds = harness::Isolation().timeout_seconds;
  double memory_gib = 0.0;  ///< 0: half of the machine's
};

/// The backend of `spec`, isolated as the options say. Throws Error(kUsage).
std::unique_ptr<harness::Backend> open_backend(const std::string& spec,
                                               const BackendOptions& options);

/// The options of a command line that differ from the default, each with a space before it.
std::string repro_words(const BackendOptions& options);

/// Size and time of a file, to tell it from an edited one; "absent".
std::string file_stamp(const std::string& path);
/// The library that `spec` names; "" when it names none.
std::string plugin_path(const std::string& spec);
/// The stamp of that file; "" when it names none.
std::string plugin_stamp(const std::string& spec);

}  // namespace attn::cli
