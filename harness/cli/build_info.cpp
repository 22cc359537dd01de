#include "harness/cli/build_info.h"

#include "git_revision.h"

namespace attn::cli {
namespace {

std::string compiler_name() {
#if defined(__clang__)
  return "clang++ " __clang_version__;
#else
  return "g++ " __VERSION__;
#endif
}

}  // namespace

const BuildInfo& build_info() {
  static const BuildInfo info{
      .version = ATTN_VERSION,
      .commit = std::string(ATTN_GIT_REVISION) + (ATTN_GIT_DIRTY ? "-dirty" : ""),
      .compiler = compiler_name(),
      .flags = ATTN_BUILD_TYPE ", " ATTN_CXX_FLAGS,
      .hdf5 = ATTN_HDF5_VERSION,
      .eigen = ATTN_EIGEN_VERSION,
      .cuda = ATTN_WITH_CUDA != 0,
  };
  return info;
}

std::string version_text() {
  const BuildInfo& info = build_info();
  return "attn-compare " + info.version + "\ncommit    " + info.commit + "\ncompiler  " +
         info.compiler + "\nflags     " + info.flags + "\nHDF5      " + info.hdf5 + "\nEigen     " +
         info.eigen + "\nCUDA      " + (info.cuda ? "yes" : "no") + "\n";
}

}  // namespace attn::cli
