#pragma once

#include <memory>
#include <string>
#include <vector>

#include "harness/backends/backend.h"

namespace attn::harness {

/// A backend spec that names a Python function: "py:FILE:NAME" or "py:FILE:NAME:OPTIONS".
bool is_python_spec(const std::string& spec);

struct PythonSpec {
  std::string file;
  std::string name;
  std::string options;
};
/// Throws Error(kUsage) when the file or the name is missing, or there is no such file.
PythonSpec split_python_spec(const std::string& spec);

/// What is started as the worker that holds the interpreter: python3, or what ATTN_PYTHON names, on
/// the package's worker.py, which lies beside this program or where an installation has it
/// (ATTN_COMPARE_PYTHON names the folder of the package instead). Throws Error(kUsage) when the
/// package is not found.
std::vector<std::string> python_worker_command();

/// The same backend under another owner, for who asks for a new one where starting one is too dear.
/// `backend` must outlive it.
std::unique_ptr<Backend> share_backend(const Backend& backend);

}  // namespace attn::harness
