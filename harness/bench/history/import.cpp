#include "harness/bench/history/import.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>

#include "golden/digest.h"
#include "harness/bench/history/database.h"
#include "harness/bench/history/json_text.h"
#include "harness/bench/history/readers.h"
#include "harness/bench/history/writer.h"
#include "reference/core/error.h"

namespace attn::history {
namespace {

namespace fs = std::filesystem;

/// A run of a hundred benchmarks with a hundred repetitions each has 6 MB.
constexpr std::uintmax_t kLongestFile = 1 << 29;

std::string read_bytes(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) refuse(path, "is a folder; name the files in it");
  const std::uintmax_t size = fs::file_size(path, error);
  if (!error && size > kLongestFile) {
    refuse(path, "has " + std::to_string(size) + " bytes, at most " + std::to_string(kLongestFile) +
                     " are read; is it the right file?");
  }
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file.is_open() || file.bad()) {
    refuse(path, std::string("cannot be read: ") + std::strerror(errno != 0 ? errno : EIO));
  }
  return bytes;
}

void fill(std::string& value, const std::string& given) {
  if (value.empty()) value = given;
}

Imported add_file(Writer& writer, const std::string& file, const ImportOptions& options) {
  const std::string bytes = read_bytes(file);
  ParsedRun parsed = parse_run(file, bytes);
  parsed.run.sha256 = golden::sha256_hex(std::as_bytes(std::span(bytes)));
  fill(parsed.run.commit, options.commit);
  fill(parsed.run.subject, options.subject);
  fill(parsed.run.date, options.date);
  Imported imported{file, parsed.run.sha256, parsed.run.source_kind, false, 0, 0, 0};
  imported.is_new = writer.add(parsed).is_new;
  imported.results = parsed.results.size();
  imported.scores = parsed.scores.size();
  for (const ParsedResult& result : parsed.results) imported.samples += result.samples.size();
  return imported;
}

}  // namespace

std::vector<Imported> import_files(const std::string& path, const std::vector<std::string>& files,
                                   const ImportOptions& options,
                                   const std::function<void(std::size_t)>& watch) {
  Store store(path, harness::Sqlite::Mode::kWrite);
  std::vector<Imported> all;
  Writer writer(store);
  for (const std::string& file : files) {
    if (watch) watch(all.size());
    all.push_back(add_file(writer, file, options));
  }
  writer.commit();
  return all;
}

ParsedRun read_run(Database& database, const Run& run) {
  ParsedRun parsed;
  parsed.run = run;
  parsed.context = database.context(run.id);
  std::map<std::int64_t, Benchmark> benchmarks;
  for (Benchmark& benchmark : database.benchmarks()) {
    const std::int64_t id = benchmark.id;
    benchmarks.emplace(id, std::move(benchmark));
  }
  for (const Result& result : database.results({run.id, std::nullopt})) {
    parsed.results.push_back({benchmarks.at(result.benchmark), result, database.samples(result.id),
                              database.metrics(result.id)});
  }
  for (const Score& score : database.scores()) {
    if (score.run == run.id) parsed.scores.push_back(score);
  }
  return parsed;
}

Merged merge_databases(const std::vector<std::string>& from, const std::string& into) {
  std::vector<std::unique_ptr<Database>> sources;
  for (const std::string& path : from) {
    std::error_code error;
    if (fs::equivalent(path, into, error)) continue;  // its runs are there
    sources.push_back(std::make_unique<Database>(path));
  }
  Store store(into, harness::Sqlite::Mode::kWrite);
  Merged merged;
  Writer writer(store);
  for (const auto& source : sources) {
    for (const Run& run : source->runs()) {
      const bool is_new = writer.add(read_run(*source, run)).is_new;
      ++(is_new ? merged.added : merged.known);
    }
  }
  writer.commit();
  return merged;
}

}  // namespace attn::history
