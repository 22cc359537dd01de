#include "harness/cli/build_info.h"

#include "golden/build_info.h"

namespace attn::cli {

bool built_with_cuda() { return ATTN_WITH_CUDA != 0; }

std::string version() { return golden::build_info().version; }

std::string commit() {
  const golden::BuildInfo& info = golden::build_info();
  return info.git_commit + (info.git_dirty ? "-dirty" : "");
}

std::string version_text() {
  const golden::BuildInfo& info = golden::build_info();
  return "attn-compare " + version() + "\ncommit    " + commit() + "\ncompiler  " + info.compiler +
         "\nflags     " + info.build_type + ", " + info.compiler_flags + "\nHDF5      " +
         info.hdf5 + "\nEigen     " + info.eigen + "\nCUDA      " +
         (built_with_cuda() ? "yes" : "no") + "\n";
}

}  // namespace attn::cli
