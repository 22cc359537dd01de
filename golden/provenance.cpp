#include "golden/provenance.h"

#include <openssl/crypto.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <nlohmann/json.hpp>

#include "golden/build_info.h"
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

}  // namespace

std::string make_provenance(const WriteOptions& options, const std::string& repro) {
  const BuildInfo& build = build_info();
  nlohmann::json json = {{"generator", options.generator},
                         {"precision", options.precision},
                         {"seed", options.seed},
                         {"date", date()},
                         {"version", build.version},
                         {"git_commit", build.git_commit},
                         {"git_dirty", build.git_dirty},
                         {"compiler", build.compiler},
                         {"compiler_flags", build.compiler_flags},
                         {"build_type", build.build_type},
                         {"eigen", build.eigen},
                         {"hdf5", build.hdf5},
                         {"openssl", OpenSSL_version(OPENSSL_VERSION_STRING)},
                         {"cpu", cpu_model()},
                         {"command_line", options.command_line},
                         {"semantics_version", kSemanticsVersion}};
  if (!repro.empty()) json["repro"] = repro;
  for (const auto& [key, value] : options.more) json[key] = value;
  // Arguments need not be UTF-8; the text must be.
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace attn::golden
