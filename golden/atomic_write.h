#pragma once

#include <functional>
#include <string>

namespace attn::golden {

/// Works on the temporary file of this name.
using FileStep = std::function<void(const std::string& temporary)>;

/// Puts a whole file at `path` or nothing: lets `produce` write a temporary file beside it, syncs
/// it, lets `verify` read it, renames it and syncs the folder; an exception of either ends the
/// attempt. Without `force` an existing file stays, even one that appears meanwhile. Signals that
/// would end the process wait until the temporary file is gone. Throws Error(kUsage) when the place
/// cannot be written.
void write_atomically(const std::string& path, bool force, const FileStep& produce,
                      const FileStep& verify);

}  // namespace attn::golden
