#include "harness/bench/history/database.h"

#include <algorithm>
#include <charconv>

#include "reference/core/error.h"

namespace attn::history {
namespace {

using harness::Sqlite;
using harness::Statement;

std::optional<double> real_or_nothing(const Statement& row, int column) {
  if (row.is_null(column)) return std::nullopt;
  return row.real(column);
}

std::optional<std::int64_t> integer_or_nothing(const Statement& row, int column) {
  if (row.is_null(column)) return std::nullopt;
  return row.integer(column);
}

Run run_of(const Statement& row) {
  Run run;
  run.id = row.integer(0);
  run.sha256 = row.text(1);
  run.date = row.text(2);
  run.commit = row.text(3);
  run.subject = row.text(4);
  run.driver = row.text(5);
  run.cuda = row.text(6);
  run.clocks = row.text(7);
  run.compiler = row.text(8);
  run.build_type = row.text(9);
  run.libraries = row.text(10);
  run.program = row.text(11);
  run.source_name = row.text(12);
  run.source_kind = row.text(13);
  run.machine.id = row.integer(14);
  run.machine.gpu = row.text(15);
  run.machine.gpu_count = row.integer(16);
  run.machine.cpu = row.text(17);
  run.machine.num_cpus = row.integer(18);
  run.machine.caches = row.text(19);
  run.machine.host = row.text(20);
  return run;
}

Benchmark benchmark_of(const Statement& row) {
  Benchmark b;
  b.id = row.integer(0);
  b.program = row.text(1);
  b.name = row.text(2);
  b.backend = row.text(3);
  b.timer = row.text(4);
  b.shape = row.text(5);
  b.is_peer = row.integer(6) != 0;
  b.kind = row.text(7);
  b.batch = integer_or_nothing(row, 8);
  b.q_len = integer_or_nothing(row, 9);
  b.kv_len = integer_or_nothing(row, 10);
  b.heads = integer_or_nothing(row, 11);
  b.kv_heads = integer_or_nothing(row, 12);
  b.head_dim = integer_or_nothing(row, 13);
  b.hidden_size = integer_or_nothing(row, 14);
  b.dtype = row.text(15);
  b.mask = row.text(16);
  b.weights = row.text(17);
  b.page_size = integer_or_nothing(row, 18);
  b.threads = integer_or_nothing(row, 19);
  return b;
}

Result result_of(const Statement& row) {
  Result r;
  r.id = row.integer(0);
  r.run = row.integer(1);
  r.benchmark = row.integer(2);
  r.time_unit = row.text(3);
  r.label = row.text(4);
  r.error = row.text(5);
  r.samples = row.integer(6);
  r.repetitions = row.integer(7);
  r.median_ns = real_or_nothing(row, 8);
  r.mean_ns = real_or_nothing(row, 9);
  r.stddev_ns = real_or_nothing(row, 10);
  r.min_ns = real_or_nothing(row, 11);
  r.max_ns = real_or_nothing(row, 12);
  r.tflops = real_or_nothing(row, 13);
  r.gbps = real_or_nothing(row, 14);
  r.roofline = real_or_nothing(row, 15);
  r.error_bound = real_or_nothing(row, 16);
  r.instructions = real_or_nothing(row, 17);
  return r;
}

/// "latest~2" -> 2, "latest" -> 0; nothing for other words.
std::optional<std::size_t> steps_back(const std::string& reference) {
  const std::string word = "latest";
  if (!reference.starts_with(word)) return std::nullopt;
  if (reference == word) return 0;
  std::size_t steps = 0;
  const char* const end = reference.data() + reference.size();
  const char* const begin = reference.data() + word.size() + 1;
  const auto [stop, error] = std::from_chars(begin, end, steps);
  if (reference[word.size()] != '~' || error != std::errc() || stop != end) return std::nullopt;
  return steps;
}

}  // namespace

std::string Machine::label() const {
  std::string text;
  const auto add = [&](const std::string& part) {
    if (!part.empty()) text += (text.empty() ? "" : ", ") + part;
  };
  add(gpu_count > 1 ? std::to_string(gpu_count) + " x " + gpu : gpu);
  add(cpu);
  if (num_cpus > 0) add(std::to_string(num_cpus) + (num_cpus == 1 ? " CPU" : " CPUs"));
  add(host);
  return text.empty() ? "machine not recorded" : text;
}

Database::Database(const std::string& path) : path_(path), store_(path, Sqlite::Mode::kRead) {}

std::vector<Run> Database::runs() {
  std::vector<Run> runs;
  Statement row(store_.sqlite(),
                "SELECT run.id, sha256, date, git_commit, subject, driver, cuda, clocks, compiler, "
                "build_type, libraries, program, source_name, source_kind, machine.id, gpu, "
                "gpu_count, cpu, num_cpus, caches, host "
                "FROM run JOIN machine ON machine.id = run.machine ORDER BY date, run.id");
  row.each([&] { runs.push_back(run_of(row)); });
  return runs;
}

std::vector<Benchmark> Database::benchmarks() {
  std::vector<Benchmark> all;
  std::map<std::int64_t, std::size_t> place;
  Statement row(store_.sqlite(),
                "SELECT id, program, name, backend, timer, shape, is_peer, kind, batch, q_len, "
                "kv_len, heads, kv_heads, head_dim, hidden_size, dtype, mask, weights, page_size, "
                "threads FROM benchmark ORDER BY program, name, backend, timer, id");
  row.each([&] {
    all.push_back(benchmark_of(row));
    place[all.back().id] = all.size() - 1;
  });
  Statement parameter(store_.sqlite(), "SELECT benchmark, name, value FROM parameter");
  parameter.each([&] {
    const auto it = place.find(parameter.integer(0));
    if (it != place.end()) all[it->second].parameters[parameter.text(1)] = parameter.text(2);
  });
  return all;
}

std::vector<Result> Database::results(const Selection& selection) {
  std::vector<Result> results;
  std::string sql =
      "SELECT result.id, run, benchmark, time_unit, label, error, samples, repetitions, median_ns, "
      "mean_ns, stddev_ns, min_ns, max_ns, tflops, gbps, roofline, error_bound, instructions "
      "FROM result JOIN run ON run.id = result.run WHERE 1";
  if (selection.run) sql += " AND run = ?";
  if (selection.benchmark) sql += " AND benchmark = ?";
  Statement row(store_.sqlite(), sql + " ORDER BY date, run.id, benchmark");
  if (selection.run) row.bind(*selection.run);
  if (selection.benchmark) row.bind(*selection.benchmark);
  row.each([&] { results.push_back(result_of(row)); });
  return results;
}

std::vector<Sample> Database::samples(std::int64_t result) {
  std::vector<Sample> samples;
  Statement row(store_.sqlite(),
                "SELECT repetition, time_ns, cpu_ns, iterations, counters FROM sample "
                "WHERE result = ? ORDER BY repetition");
  row.bind(result).each([&] {
    samples.push_back({row.integer(0), real_or_nothing(row, 1), real_or_nothing(row, 2),
                       row.integer(3), row.text(4)});
  });
  return samples;
}

std::vector<double> Database::times(std::int64_t result) {
  std::vector<double> times;
  Statement row(store_.sqlite(),
                "SELECT time_ns FROM sample WHERE result = ? AND time_ns IS NOT NULL "
                "ORDER BY repetition");
  row.bind(result).each([&] { times.push_back(row.real(0)); });
  return times;
}

std::map<std::string, double> Database::metrics(std::int64_t result) {
  std::map<std::string, double> metrics;
  Statement row(store_.sqlite(),
                "SELECT name, value FROM metric WHERE result = ? AND value IS NOT NULL");
  row.bind(result).each([&] { metrics[row.text(0)] = row.real(1); });
  return metrics;
}

std::map<std::string, std::string> Database::context(std::int64_t run) {
  std::map<std::string, std::string> context;
  Statement row(store_.sqlite(), "SELECT name, value FROM context WHERE run = ?");
  row.bind(run).each([&] { context[row.text(0)] = row.text(1); });
  return context;
}

std::vector<Score> Database::scores() {
  std::vector<Score> scores;
  Statement row(store_.sqlite(),
                "SELECT run, kind, score.name, passed, total, value FROM score "
                "JOIN run ON run.id = score.run ORDER BY date, run.id, kind, score.name");
  row.each([&] {
    scores.push_back({row.integer(0), row.text(1), row.text(2), integer_or_nothing(row, 3),
                      integer_or_nothing(row, 4), real_or_nothing(row, 5)});
  });
  return scores;
}

Run Database::find_run(const std::string& reference, std::optional<std::int64_t> machine) {
  std::vector<Run> all = runs();
  if (machine) std::erase_if(all, [&](const Run& run) { return run.machine.id != *machine; });
  const auto refuse = [&](const std::string& why) {
    const std::string newest =
        all.empty() ? "there is none" : "the newest is " + all.back().sha256.substr(0, 12);
    throw Error(ErrorKind::kUsage,
                "run \"" + reference + "\" of " + path_ + ": " + why + "; " + newest +
                    "; attn-compare history list shows all",
                reference);
  };
  if (const auto back = steps_back(reference)) {
    if (*back >= all.size()) refuse("the database holds " + std::to_string(all.size()) + " runs");
    return all[all.size() - 1 - *back];
  }
  const Run* found = nullptr;
  std::size_t matches = 0;
  for (const Run& run : all) {
    const bool by_row = std::string("#").append(std::to_string(run.id)) == reference;
    const bool by_sha = reference.size() >= 4 && run.sha256.starts_with(reference);
    const bool by_commit = reference.size() >= 4 && run.commit.starts_with(reference);
    if (!by_row && !by_sha && !by_commit) continue;
    if (found != nullptr && by_commit && found->commit == run.commit) --matches;
    found = &run;
    ++matches;
  }
  if (found == nullptr) refuse("no such run");
  if (matches > 1) refuse("means several runs");
  return *found;
}

}  // namespace attn::history
