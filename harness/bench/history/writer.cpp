#include "harness/bench/history/writer.h"

#include "harness/bench/history/parameters.h"
#include "reference/core/error.h"

namespace attn::history {
namespace {

using harness::Sqlite;
using harness::Statement;
using Text = std::string_view;

Sqlite& begun(Sqlite& sqlite) {
  sqlite.run("BEGIN IMMEDIATE");
  return sqlite;
}

std::optional<std::int64_t> row_of(Sqlite& sqlite, const std::string& table,
                                   const std::string& column, const std::string& value) {
  std::optional<std::int64_t> row;
  Statement statement(sqlite, "SELECT id FROM " + table + " WHERE " + column + " = ?");
  statement.bind(Text(value)).each([&] { row = statement.integer(0); });
  return row;
}

}  // namespace

Writer::Writer(Store& store)
    : sqlite_(begun(store.sqlite())),
      is_open_(true),
      context_(sqlite_, "INSERT INTO context VALUES (?, ?, ?)"),
      result_(
          sqlite_,
          "INSERT INTO result VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"),
      metric_(sqlite_, "INSERT INTO metric VALUES (?, ?, ?)"),
      sample_(sqlite_, "INSERT INTO sample VALUES (?, ?, ?, ?, ?, ?)"),
      score_(sqlite_, "INSERT INTO score VALUES (?, ?, ?, ?, ?, ?)") {}

Writer::~Writer() {
  if (!is_open_) return;
  try {
    sqlite_.run("ROLLBACK");
  } catch (const Error&) {  // SQLite has rolled back already: the disk is full, say
  }
}

void Writer::commit() {
  sqlite_.run("COMMIT");
  is_open_ = false;
}

Writer::Added Writer::add(const ParsedRun& parsed) {
  if (const auto known = row_of(sqlite_, "run", "sha256", parsed.run.sha256)) {
    fill_in(*known, parsed.run);
    return {*known, false};
  }
  const std::int64_t run = insert_run(parsed.run);
  for (const auto& [name, value] : parsed.context) {
    context_.bind(run).bind(Text(name)).bind(Text(value)).execute();
  }
  for (const ParsedResult& result : parsed.results) insert_result(run, result);
  for (const Score& score : parsed.scores) {
    score_.bind(run)
        .bind(Text(score.kind))
        .bind(Text(score.name))
        .bind(score.passed)
        .bind(score.total)
        .bind(score.value)
        .execute();
  }
  return {run, true};
}

std::int64_t Writer::machine_row(const Machine& machine) {
  const std::string identity = identity_of(machine);
  if (const auto known = row_of(sqlite_, "machine", "identity", identity)) return *known;
  Statement(sqlite_, "INSERT INTO machine VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)")
      .bind(Text(identity))
      .bind(Text(machine.gpu))
      .bind(machine.gpu_count)
      .bind(Text(machine.cpu))
      .bind(machine.num_cpus)
      .bind(Text(machine.caches))
      .bind(Text(machine.host))
      .execute();
  return sqlite_.last_row();
}

std::int64_t Writer::insert_run(const Run& run) {
  const std::int64_t machine = machine_row(run.machine);
  Statement(sqlite_, "INSERT INTO run VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
      .bind(Text(run.sha256))
      .bind(Text(run.date))
      .bind(Text(run.commit))
      .bind(Text(run.subject))
      .bind(machine)
      .bind(Text(run.driver))
      .bind(Text(run.cuda))
      .bind(Text(run.clocks))
      .bind(Text(run.compiler))
      .bind(Text(run.build_type))
      .bind(Text(run.libraries))
      .bind(Text(run.program))
      .bind(Text(run.source_name))
      .bind(Text(run.source_kind))
      .execute();
  return sqlite_.last_row();
}

void Writer::fill_in(std::int64_t id, const Run& run) {
  std::string commit;
  Statement old(sqlite_, "SELECT git_commit FROM run WHERE id = ?");
  old.bind(id).each([&] { commit = old.text(0); });
  if (!commit.empty() && !run.commit.empty() && commit != run.commit) {
    throw Error(ErrorKind::kUsage,
                run.source_name + ": is run " + run.sha256.substr(0, 12) +
                    ", which the database has under commit " + commit + "; got " + run.commit,
                "--commit");
  }
  Statement(sqlite_,
            "UPDATE run SET git_commit = iif(git_commit = '', ?, git_commit), "
            "subject = iif(subject = '', ?, subject), date = iif(date = '', ?, date) WHERE id = ?")
      .bind(Text(run.commit))
      .bind(Text(run.subject))
      .bind(Text(run.date))
      .bind(id)
      .execute();
}

std::int64_t Writer::benchmark_row(const Benchmark& b) {
  const std::string identity = identity_of(b);
  const auto seen = benchmarks_.find(identity);
  if (seen != benchmarks_.end()) return seen->second;
  if (const auto known = row_of(sqlite_, "benchmark", "identity", identity)) {
    return benchmarks_[identity] = *known;
  }
  Statement(
      sqlite_,
      "INSERT INTO benchmark VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, "
      "?, ?, ?)")
      .bind(Text(identity))
      .bind(Text(b.program))
      .bind(Text(b.name))
      .bind(Text(b.backend))
      .bind(Text(b.timer))
      .bind(Text(b.shape))
      .bind(std::int64_t{b.is_peer})
      .bind(Text(b.kind))
      .bind(b.batch)
      .bind(b.q_len)
      .bind(b.kv_len)
      .bind(b.heads)
      .bind(b.kv_heads)
      .bind(b.head_dim)
      .bind(b.hidden_size)
      .bind(Text(b.dtype))
      .bind(Text(b.mask))
      .bind(Text(b.weights))
      .bind(b.page_size)
      .bind(b.threads)
      .execute();
  const std::int64_t row = sqlite_.last_row();
  for (const auto& [name, value] : b.parameters) {
    Statement(sqlite_, "INSERT INTO parameter VALUES (?, ?, ?)")
        .bind(row)
        .bind(Text(name))
        .bind(Text(value))
        .execute();
  }
  return benchmarks_[identity] = row;
}

void Writer::insert_result(std::int64_t run, const ParsedResult& parsed) {
  const Result& r = parsed.result;
  result_.bind(run)
      .bind(benchmark_row(parsed.benchmark))
      .bind(Text(r.time_unit))
      .bind(Text(r.label))
      .bind(Text(r.error))
      .bind(r.samples)
      .bind(r.repetitions)
      .bind(r.median_ns)
      .bind(r.mean_ns)
      .bind(r.stddev_ns)
      .bind(r.min_ns)
      .bind(r.max_ns)
      .bind(r.tflops)
      .bind(r.gbps)
      .bind(r.roofline)
      .bind(r.error_bound)
      .bind(r.instructions)
      .execute();
  const std::int64_t row = sqlite_.last_row();
  for (const auto& [name, value] : parsed.metrics) {
    metric_.bind(row).bind(Text(name)).bind(value).execute();
  }
  for (const Sample& sample : parsed.samples) {
    sample_.bind(row)
        .bind(sample.repetition)
        .bind(sample.time_ns)
        .bind(sample.cpu_ns)
        .bind(sample.iterations)
        .bind(Text(sample.counters))
        .execute();
  }
}

}  // namespace attn::history
