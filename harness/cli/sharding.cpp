#include "harness/cli/sharding.h"

#include <fstream>
#include <sstream>
#include <utility>

#include "golden/digest.h"
#include "harness/cli/backend_source.h"
#include "harness/cli/build_info.h"
#include "harness/cli/session.h"

namespace attn::cli {
namespace {

std::string short_digest(const std::string& text) {
  constexpr std::size_t kDigits = 16;
  return golden::sha256_hex(std::as_bytes(std::span(text))).substr(0, kDigits);
}

}  // namespace

harness::Shard shard_of(const ShardOptions& options) {
  return options.shard.empty() ? harness::Shard{} : harness::parse_shard(options.shard);
}

std::unique_ptr<harness::ResultFile> open_results(const ShardOptions& options,
                                                  harness::RunInfo info) {
  if (options.results.empty()) return nullptr;
  check_writable("--results", options.results);
  info.version = version();
  info.commit = commit();
  info.shard = shard_of(options);
  return std::make_unique<harness::ResultFile>(options.results, info);
}

std::string digest_of(const std::vector<std::string>& names) {
  std::string all;
  for (const std::string& name : names) all += name + "\n";
  return short_digest(all);
}

std::string plugin_digest(const std::string& spec) {
  const std::string path = plugin_path(spec);
  if (path.empty()) return "";
  std::ostringstream bytes;
  bytes << std::ifstream(path, std::ios::binary).rdbuf();
  return " (" + short_digest(bytes.str()) + ")";
}

}  // namespace attn::cli
