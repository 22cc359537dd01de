#include <algorithm>
#include <bit>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <sstream>
#include <thread>

#include "harness/backends/backend.h"
#include "harness/cli/build_info.h"
#include "harness/cli/interrupt.h"
#include "harness/cli/jobs.h"
#include "harness/cli/judge.h"
#include "harness/cli/ordered_pool.h"
#include "harness/cli/verbs.h"
#include "harness/report/format.h"
#include "harness/report/journal.h"
#include "harness/report/waivers.h"
#include "harness/report/writers.h"
#include "reference/core/error.h"
#include "reference/reference.h"

namespace attn::cli {
namespace {

using harness::Backend;
using harness::ReportRow;
using harness::Status;

/// Limit of |expected - exact| as a fraction of the stage's largest magnitude.
constexpr double kExpectedTolerance = 1e-9;

struct NamedBackend {
  std::string spec;
  std::unique_ptr<Backend> backend;
};

/// A file to check and what its rows are called.
struct NamedFile {
  std::string path;
  std::string name;
};

struct FileResult {
  std::vector<ReportRow> rows;
  bool unsealed = false;
  bool expected_checked = false;
  double expected_ratio = 0.0;  ///< worst error / limit of the file's expected values
};

/// Folders stand for their *.h5. A file is called by its stem, or by its path where two share a
/// stem.
std::vector<NamedFile> expand_folders(const std::vector<std::string>& names) {
  std::vector<std::string> paths;
  for (const std::string& name : names) {
    if (!std::filesystem::is_directory(name)) {
      paths.push_back(name);
      continue;
    }
    std::vector<std::string> inside;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(name, error)) {
      if (entry.path().extension() == ".h5") inside.push_back(entry.path().string());
    }
    if (error) throw Error(ErrorKind::kInput, name + ": cannot be read: " + error.message(), name);
    std::sort(inside.begin(), inside.end());
    paths.insert(paths.end(), inside.begin(), inside.end());
  }
  std::map<std::string, int> uses;
  const auto stem = [](const std::string& path) {
    return std::filesystem::path(path).stem().string();
  };
  for (const std::string& path : paths) ++uses[stem(path)];
  std::vector<NamedFile> files;
  files.reserve(paths.size());
  for (const std::string& path : paths) {
    files.push_back({path, uses[stem(path)] == 1 ? stem(path) : path});
  }
  return files;
}

std::vector<NamedBackend> make_backends(std::vector<std::string> specs,
                                        const BackendOptions& isolation) {
  if (specs.empty()) {
    for (const harness::BackendInfo& info : harness::list_backends()) {
      if (info.unavailable.empty()) specs.push_back(info.name);
    }
  }
  std::vector<NamedBackend> backends;
  backends.reserve(specs.size());
  for (const std::string& spec : specs) {
    backends.push_back({spec, open_backend(spec, isolation)});
  }
  return backends;
}

class Verifier {
 public:
  Verifier(const VerifyOptions& options, std::vector<NamedBackend> backends, int threads)
      : options_(options), backends_(std::move(backends)) {
    compare_options_.taps = options.taps;
    compare_options_.rows = parse_rows(options.rows, options.page_seed);
    compare_options_.threads = threads;
    if (!options.waivers.empty()) waivers_ = harness::Waivers::load(options.waivers);
  }

  const harness::Waivers& waivers() const { return waivers_; }

  const std::vector<NamedBackend>& backends() const { return backends_; }

  FileResult judge_file(const NamedFile& file) const {
    FileResult result;
    ReportRow whole = row_of(file, "");
    LoadedCase loaded;
    Trace exact;
    std::string unsupported;
    guarded(whole, [&] {
      loaded = load_golden_case(file.path, options_.page_seed);
      unsupported = reference::unsupported_reason(loaded.c.config);
      if (unsupported.empty()) exact = reference::evaluate(loaded.c, reference::Mode::kExact);
    });
    if (whole.trouble != harness::Trouble::kNone) {
      result.rows.push_back(std::move(whole));
      return result;
    }
    if (unsupported.empty()) unsupported = whole.verdict.detail;  // found while evaluating
    result.unsealed = loaded.seal == golden::Seal::kUnsealed;
    if (unsupported.empty()) check_expected(file, loaded, exact, result);
    for (const NamedBackend& backend : backends_) {
      result.rows.push_back(judge_backend(file, loaded, exact, unsupported, backend));
    }
    return result;
  }

 private:
  ReportRow row_of(const NamedFile& file, const std::string& backend) const {
    ReportRow row;
    row.name = file.name;
    row.file = file.path;
    row.backend = backend;
    row.repro = "attn-compare verify " + shell_quote(file.path);
    if (!backend.empty() && backend != "expected")
      row.repro += " --backend " + shell_quote(backend);
    row.repro += " --page-seed " + std::to_string(options_.page_seed);
    if (!options_.taps) row.repro += " --no-taps";
    if (options_.rows != "all") row.repro += " --rows " + options_.rows;
    row.repro += repro_words(options_.isolation);
    row.properties.emplace_back("page_seed", static_cast<std::int64_t>(options_.page_seed));
    return row;
  }

  /// The file's own expected values get a row only when they are wrong: they are no backend, but a
  /// file that disagrees with the exact reference cannot be trusted to judge one.
  void check_expected(const NamedFile& file, const LoadedCase& loaded, const Trace& exact,
                      FileResult& result) const {
    ReportRow row = row_of(file, "expected");
    guarded(row, [&] {
      row.verdict =
          harness::compare_expected(loaded.c, *loaded.expected, exact, kExpectedTolerance);
    });
    result.expected_checked = !row.verdict.stages.empty();
    result.expected_ratio = row.verdict.worst_ratio();
    if (row.trouble != harness::Trouble::kNone || row.verdict.status != Status::kPassed) {
      result.rows.push_back(std::move(row));
    }
  }

  ReportRow judge_backend(const NamedFile& file, const LoadedCase& loaded, const Trace& exact,
                          const std::string& unsupported, const NamedBackend& backend) const {
    ReportRow row = row_of(file, backend.spec);
    guarded(row, [&] {
      if (!unsupported.empty()) {
        row.verdict.status = Status::kUnsupported;
        const std::string own = backend.backend->unsupported_reason(loaded.c.config);
        row.verdict.detail = own.empty() ? unsupported : own;
        return;
      }
      Trace trace;
      row.verdict = run_backend(loaded.c, *backend.backend, trace);
      if (row.verdict.status != Status::kPassed) return;
      row.verdict = judge_trace(loaded.c, *backend.backend, trace, compare_options_, &exact);
    });
    waivers_.apply(loaded.c, row);
    return row;
  }

  const VerifyOptions& options_;
  std::vector<NamedBackend> backends_;
  harness::Waivers waivers_;
  harness::CompareOptions compare_options_;
};

/// What a file's results depend on: an edited file is another one.
std::string journal_item(const NamedFile& file) { return file.path + " " + file_stamp(file.path); }

/// The options that all results depend on, but for the backends.
std::string result_words(const VerifyOptions& options) {
  return "verify --page-seed " + std::to_string(options.page_seed) + " --rows " + options.rows +
         (options.taps ? "" : " --no-taps") + repro_words(options.isolation);
}

/// Waivers decide what a row is called, so a row is kept with those that it met.
std::string waiver_words(const harness::Waivers& waivers) {
  return waivers.text().empty() ? "" : " --waivers " + digest_of({waivers.text()});
}

/// What all results depend on. A plug-in that was built again is another one.
std::string journal_identity(const VerifyOptions& options, const Verifier& verifier) {
  std::string identity =
      version() + " " + commit() + " " + result_words(options) + waiver_words(verifier.waivers());
  for (const NamedBackend& backend : verifier.backends()) {
    identity += " --backend " + backend.spec;
    if (const std::string stamp = plugin_stamp(backend.spec); !stamp.empty()) {
      identity += " (" + stamp + ")";
    }
  }
  return identity;
}

/// What a result is but for its rows.
std::string to_note(const FileResult& result) {
  std::ostringstream note;
  note << result.unsealed << " " << result.expected_checked << " "
       << std::bit_cast<std::uint64_t>(result.expected_ratio);
  return note.str();
}

FileResult from_note(const std::string& text) {
  FileResult result;
  std::uint64_t ratio = 0;
  std::istringstream note(text);
  note >> result.unsealed >> result.expected_checked >> ratio;
  result.expected_ratio = std::bit_cast<double>(ratio);
  return result;
}

/// A result as lines of a journal: the note, then the rows.
harness::Journal::Lines to_lines(const FileResult& result) {
  harness::Journal::Lines lines{to_note(result)};
  for (const ReportRow& row : result.rows) lines.push_back(harness::to_json_line(row));
  return lines;
}

FileResult from_lines(const harness::Journal::Lines& lines) {
  FileResult result = from_note(lines.at(0));
  for (std::size_t i = 1; i < lines.size(); ++i) {
    result.rows.push_back(harness::parse_json_row(lines[i]));
  }
  return result;
}

/// Where finished files are kept; any of them may be null.
struct Stores {
  std::unique_ptr<harness::Journal> journal;
  std::unique_ptr<harness::ResultFile> results;

  std::optional<FileResult> find(std::int64_t item, const NamedFile& file) const {
    if (const harness::ItemResult* kept = results ? results->find(item) : nullptr) {
      FileResult result = from_note(kept->note);
      result.rows = kept->rows;
      return result;
    }
    const harness::Journal::Lines* lines = journal ? journal->find(journal_item(file)) : nullptr;
    return lines != nullptr ? std::optional(from_lines(*lines)) : std::nullopt;
  }
  void add(std::int64_t item, const NamedFile& file, const FileResult& result) const {
    if (journal && journal->find(journal_item(file)) == nullptr) {
      journal->add(journal_item(file), to_lines(result));
    }
    if (results && results->find(item) == nullptr) {
      results->add(item, file.name, {result.rows, to_note(result)});
    }
  }
};

/// Judges file number `item` of the whole run, unless it was finished before.
FileResult judge_or_recall(const Verifier& verifier, const NamedFile& file, std::int64_t item,
                           const Stores& stores) {
  ReportRow trouble;
  FileResult result;
  guarded(trouble, [&] {
    std::optional<FileResult> kept = stores.find(item, file);
    result = kept ? std::move(*kept) : verifier.judge_file(file);
    stores.add(item, file, result);
  });
  if (trouble.trouble == harness::Trouble::kNone) return result;
  trouble.name = file.name;
  trouble.file = file.path;
  result.rows = {std::move(trouble)};
  return result;
}

std::size_t longest(std::size_t least, std::size_t most, const std::vector<std::string>& texts) {
  for (const std::string& text : texts) least = std::max(least, text.size());
  return std::min(least, most);
}

harness::ConsoleTable::Options table_options(const Reporter& reporter,
                                             const std::vector<NamedFile>& files,
                                             const std::vector<NamedBackend>& backends) {
  std::vector<std::string> names;
  names.reserve(files.size());
  for (const NamedFile& file : files) names.push_back(file.name);
  std::vector<std::string> specs;
  specs.reserve(backends.size());
  for (const NamedBackend& backend : backends) specs.push_back(backend.spec);
  harness::ConsoleTable::Options options = reporter.table_options();
  options.name_width = longest(12, 44, names);
  // What the other columns leave: verdict, stage and error/bound take 39 with their gaps.
  options.backend_width = longest(8, harness::kLineWidth - 39 - options.name_width, specs);
  return options;
}

std::string plural(std::size_t count, const std::string& noun) {
  return harness::format_count(static_cast<std::int64_t>(count)) + " " + noun +
         (count == 1 ? "" : "s");
}

void print_intro(std::ostream& out, const VerifyOptions& options, std::size_t files,
                 const std::vector<NamedBackend>& backends) {
  std::string names;
  for (const NamedBackend& backend : backends) names += (names.empty() ? "" : ", ") + backend.spec;
  const harness::Shard shard = shard_of(options.shard);
  if (!shard.is_whole()) out << "shard " << to_string(shard) << ": ";
  out << plural(files, "file") << " on " << names << "; caches laid into shuffled pages, page seed "
      << options.page_seed << "\n\n";
}

Stores open_stores(const VerifyOptions& options, const Session& session, const Verifier& verifier,
                   const std::vector<NamedFile>& files) {
  Stores stores;
  const auto announce = [&](const std::string& path, std::size_t count) {
    session.streams.err << path << ": " << plural(count, "file") << " finished before\n";
  };
  if (!options.resume.empty()) {
    stores.journal =
        std::make_unique<harness::Journal>(options.resume, journal_identity(options, verifier));
    announce(options.resume, stores.journal->size());
  }
  if (options.shard.results.empty()) return stores;
  harness::RunInfo info;
  info.verb = "verify";
  info.options = result_words(options);
  for (const NamedBackend& backend : verifier.backends()) {
    info.options += " --backend " + backend.spec + plugin_digest(backend.spec);
  }
  std::vector<std::string> names;
  for (const NamedFile& file : files) {
    std::error_code error;
    names.push_back(file.name + " " + std::to_string(std::filesystem::file_size(file.path, error)));
  }
  info.items = std::ssize(files);
  info.items_digest = digest_of(names);
  info.allow_unsupported = options.allow_unsupported;
  info.waivers = verifier.waivers().text();
  info.command_line = session.command_line;
  stores.results = open_results(options.shard, info);
  announce(options.shard.results, stores.results->size());
  return stores;
}

struct ExpectedSummary {
  std::size_t checked = 0;
  std::size_t unsealed = 0;
  double worst_ratio = 0.0;

  void add(const FileResult& result) {
    checked += result.expected_checked;
    unsealed += result.unsealed;
    if (result.expected_checked) worst_ratio = std::max(worst_ratio, result.expected_ratio);
  }
  void print(std::ostream& out) const {
    if (checked + unsealed > 0) out << "\n";
    if (checked > 0) {
      out << "expected values of " << plural(checked, "file") << ": within "
          << harness::format_short(worst_ratio * kExpectedTolerance)
          << " of the exact reference (limit " << harness::format_short(kExpectedTolerance)
          << ", relative)\n";
    }
    if (unsealed > 0) out << plural(unsealed, "file") << " unsealed (no digests)\n";
  }
};

}  // namespace

int verify(const VerifyOptions& options, const Session& session) {
  Reporter reporter(session, options.report, "verify");
  reporter.report().allow_unsupported = options.allow_unsupported;
  const std::vector<NamedFile> all_files = expand_folders(options.files);
  const harness::Shard shard = shard_of(options.shard);
  reporter.report().is_part = !shard.is_whole();
  std::vector<NamedFile> files;
  std::vector<std::int64_t> items;  // of the whole run
  for (std::int64_t item = 0; item < std::ssize(all_files); ++item) {
    if (!shard.owns(item)) continue;
    files.push_back(all_files[static_cast<std::size_t>(item)]);
    items.push_back(item);
  }
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const int wanted_jobs = options.jobs > 0 ? options.jobs : cores;
  const int jobs =
      use_jobs(std::clamp(wanted_jobs, 1, std::max(1, static_cast<int>(files.size()))));
  const Verifier verifier(options, make_backends(options.backends, options.isolation),
                          std::max(1, cores / jobs));

  const Stores stores = open_stores(options, session, verifier, all_files);
  harness::ConsoleTable table(reporter.text(), table_options(reporter, files, verifier.backends()));
  print_intro(reporter.text(), options, files.size(), verifier.backends());
  table.header();

  const InterruptGuard guard;
  Progress progress(session.streams, static_cast<std::int64_t>(files.size()), "files");
  ExpectedSummary expected;
  const std::size_t finished = run_in_order<FileResult>(
      files.size(), jobs,
      [&](std::size_t i) { return judge_or_recall(verifier, files[i], items[i], stores); },
      [&](FileResult result) {
        progress.clear();
        expected.add(result);
        for (ReportRow& row : result.rows) {
          table.row(row);
          reporter.report().rows.push_back(std::move(row));
        }
      },
      [&](std::size_t done) {
        const harness::Tally tally = reporter.report().tally();
        const auto rows = static_cast<std::int64_t>(reporter.report().rows.size());
        progress.update(static_cast<std::int64_t>(done), rows - tally.passed);
      },
      interrupted);
  progress.clear();

  expected.print(reporter.text());
  for (ReportRow& row : verifier.waivers().complaints(
           reporter.report().rows, shard.is_whole() && finished == files.size())) {
    reporter.report().rows.push_back(std::move(row));
  }
  table.finish(reporter.report());
  if (interrupted()) {
    session.streams.err << "interrupted: " << finished << " of " << files.size()
                        << " files finished; the table above is complete for those\n";
  } else if (files.empty()) {
    session.streams.err << (shard.is_whole() ? "no *.h5 file there: nothing ran\n"
                                             : "no file is left for this shard\n");
  }
  session.streams.err << plural(finished, "file") << " in "
                      << harness::format_seconds(reporter.seconds()) << " on " << jobs
                      << (jobs == 1 ? " thread" : " threads") << std::endl;
  const int code = reporter.finish();
  if (stores.results && finished == files.size()) stores.results->finish(code, reporter.seconds());
  return code;
}

}  // namespace attn::cli
