#include "golden/provenance.h"

#include <openssl/crypto.h>
#include <sys/utsname.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "git_revision.h"
#include "golden/raw_file.h"
#include "reference/core/error.h"

namespace attn::golden {
namespace {

/// UTC, "2026-11-22T15:44:00Z"; SOURCE_DATE_EPOCH replaces the clock so that a file can be made
/// again byte for byte.
std::string date() {
  std::time_t seconds = std::time(nullptr);
  if (const char* fixed = std::getenv("SOURCE_DATE_EPOCH"); fixed != nullptr) {
    const char* end = fixed + std::strlen(fixed);
    const auto [stop, error] = std::from_chars(fixed, end, seconds);
    if (error != std::errc{} || stop != end) {
      throw Error(ErrorKind::kUsage,
                  "SOURCE_DATE_EPOCH is \"" + printable(fixed) +
                      "\", must be seconds since 1970 as a whole number",
                  "SOURCE_DATE_EPOCH");
    }
  }
  std::tm utc{};
  char text[32] = {};
  if (gmtime_r(&seconds, &utc) == nullptr ||
      std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0) {
    throw Error(ErrorKind::kUsage, "SOURCE_DATE_EPOCH is out of range", "SOURCE_DATE_EPOCH");
  }
  return text;
}

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  utsname machine{};
  return uname(&machine) == 0 ? machine.machine : "unknown";
}

std::string compiler() {
#if defined(__clang__)
  return "Clang " __clang_version__;
#elif defined(__GNUC__)
  return "GCC " __VERSION__;
#else
  return "unknown";
#endif
}

}  // namespace

std::string make_provenance(const WriteOptions& options, const std::string& repro) {
  nlohmann::json json = {{"generator", options.generator},
                         {"precision", options.precision},
                         {"seed", options.seed},
                         {"date", date()},
                         {"version", ATTN_VERSION},
                         {"git_commit", ATTN_GIT_REVISION},
                         {"git_dirty", ATTN_GIT_DIRTY},
                         {"compiler", compiler()},
                         {"compiler_flags", ATTN_CXX_FLAGS},
                         {"build_type", ATTN_BUILD_TYPE},
                         {"eigen", ATTN_EIGEN_VERSION},
                         {"hdf5", ATTN_HDF5_VERSION},
                         {"openssl", OpenSSL_version(OPENSSL_VERSION_STRING)},
                         {"cpu", cpu_model()},
                         {"command_line", options.command_line},
                         {"semantics_version", kSemanticsVersion}};
  if (!repro.empty()) json["repro"] = repro;
  // Arguments need not be UTF-8; the text must be.
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace attn::golden
