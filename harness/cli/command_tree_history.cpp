// The verbs under attn-compare history.
#include "harness/cli/command_tree.h"

namespace attn::cli {
namespace {

void add_database(CLI::App& verb, std::string& database) {
  verb.add_option("--db", database, "the database (bench.db)")->type_name("FILE");
}

void add_json(CLI::App& verb, std::string& json) {
  verb.add_option("--json", json, "write a JSON report ('-': to stdout)")->type_name("FILE");
}

}  // namespace

void CommandTree::add_history() {
  CLI::App& history = add_verb(
      app_, "history", "benchmark runs in a database: import, gate, change points, dashboard",
      "  attn-compare history import results/*.json\n"
      "  attn-compare history gate --candidate latest --baseline latest~1\n"
      "  attn-compare history view\n"
      "  attn-compare history dashboard -o dashboard.html\n",
      nullptr);
  history.require_subcommand(1);
  add_history_files(history);
  add_history_gate(history);
  add_history_view(history);
  add_history_dashboard(history);
}

void CommandTree::add_history_files(CLI::App& history) {
  CLI::App& import = add_verb(
      history, "import", "read files of measurements into the database: all of them, or none",
      "  attn-compare history import attn-bench.json\n"
      "  attn-compare history import --db h200.db data/bench/*/*.json\n"
      "  attn-compare history import nvbench.json --commit 1a2b3c4 --subject 'Use wider tiles'\n",
      [this](const Session& session) { return history_import(history_import_, session); });
  import
      .add_option("FILE", history_import_.files,
                  "Google Benchmark's JSON (the peers' too), nvbench's JSON or CSV, what "
                  "attn-gpu-conformance and faults --record write")
      ->type_name("FILE")
      ->required();
  add_database(import, history_import_.database);
  import.add_option("--commit", history_import_.commit, "of the program, where a file has none")
      ->type_name("SHA");
  import.add_option("--subject", history_import_.subject, "of that commit")->type_name("TEXT");
  import.add_option("--date", history_import_.date, "of the run, where a file has none")
      ->type_name("DATE");
  add_json(import, history_import_.json);

  CLI::App& list =
      add_verb(history, "list", "the runs of a database, oldest first",
               "  attn-compare history list --db h200.db\n",
               [this](const Session& session) { return history_list(history_list_, session); });
  add_database(list, history_list_.database);
  add_json(list, history_list_.json);

  CLI::App& merge =
      add_verb(history, "merge", "copy the runs of databases into one",
               "  attn-compare history merge h200.db laptop.db -o all.db\n",
               [this](const Session& session) { return history_merge(history_merge_, session); });
  merge.add_option("FILE", history_merge_.from, "databases")->type_name("FILE")->required();
  merge.add_option("-o,--output", history_merge_.output, "made, or added to")
      ->type_name("FILE")
      ->required();
  add_json(merge, history_merge_.json);

  CLI::App& out = add_verb(
      history, "export", "write runs in another program's format",
      "  attn-compare history export --format csv -o runs.csv\n"
      "  attn-compare history export --format github-action-benchmark --run latest -o gab.json\n"
      "  attn-compare history export --format markdown >> summary.md\n",
      [this](const Session& session) { return history_export(history_export_, session); });
  add_database(out, history_export_.database);
  out.add_option("--format", history_export_.format,
                 "csv (default; every run), github-action-benchmark, bencher or markdown (one run)")
      ->type_name("FORMAT");
  out.add_option("--run", history_export_.run,
                 "which: latest (default), latest~N, the begin of a run's or a commit's SHA")
      ->type_name("RUN");
  out.add_flag("--samples", history_export_.samples, "csv: a row for each repetition");
  out.add_option("-o,--output", history_export_.output, "file ('-': stdout, the default)")
      ->type_name("FILE");
}

void CommandTree::add_history_gate(CLI::App& history) {
  HistoryGateOptions& o = history_gate_;
  CLI::App& gate = add_verb(
      history, "gate", "compare two runs of one machine: exit 1 when a benchmark has regressed",
      "  attn-compare history gate --candidate latest --baseline latest~1\n"
      "  attn-compare history gate --candidate latest@./new.so --baseline latest@./old.so \\\n"
      "      --rerun 'attn-bench --backend ./new.so --against ./old.so \\\n"
      "          --benchmark_repetitions=20 --benchmark_out=$ATTN_RERUN'\n"
      "  attn-compare history gate --candidate-command new/attn-rates \\\n"
      "      --baseline-command old/attn-rates --rounds 20 --instructions\n",
      [this](const Session& session) { return history_gate(history_gate_, session); });
  add_database(gate, o.database);
  gate.add_option("--candidate", o.candidate,
                  "what is judged: latest, latest~N or the begin of a run's or a commit's SHA; "
                  "@BACKEND: of a run that timed several")
      ->type_name("RUN");
  gate.add_option("--baseline", o.baseline, "what it is compared with")->type_name("RUN");
  gate.add_option("--candidate-command", o.candidate_command,
                  "or: a Google Benchmark program, run in turns with the baseline's; both are "
                  "imported")
      ->type_name("CMD");
  gate.add_option("--baseline-command", o.baseline_command, "that of the baseline")
      ->type_name("CMD");
  gate.add_option("--rounds", o.rounds, "how often each command is run (15)")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  gate.add_option("--rerun", o.rerun,
                  "command that measures both sides again into $ATTN_RERUN, to confirm what has "
                  "changed; two commands are run again in any case")
      ->type_name("CMD");
  gate.add_flag("--instructions", o.instructions,
                "with commands: count instructions too, under valgrind");
  gate.add_option("--min-effect", o.gate.minimum_effect, "smallest change that counts (0.02)")
      ->type_name("F")
      ->check(CLI::Range(0.0, 1.0));
  gate.add_option("--min-repetitions", o.gate.minimum_samples, "on each side (15)")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  gate.add_option("--fdr", o.gate.false_discovery_rate, "of Benjamini and Hochberg (0.01)")
      ->type_name("F")
      ->check(CLI::Range(0.0, 1.0));
  gate.add_option("--confidence", o.gate.confidence, "of the ratio's interval (0.99)")
      ->type_name("F")
      ->check(CLI::Range(0.5, 0.9999));
  gate.add_option("--seed", o.gate.seed, "of the bootstrap and the order of rounds (1)")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  add_json(gate, o.json);
}

void CommandTree::add_history_view(CLI::App& history) {
  HistoryViewOptions& o = history_view_;
  CLI::App& view =
      add_verb(history, "view", "where the time of a benchmark changed, by which commit",
               "  attn-compare history view\n"
               "  attn-compare history view --benchmark 'decode B1' --all --json changes.json\n",
               [this](const Session& session) { return history_view(history_view_, session); });
  add_database(view, o.database);
  view.add_option("--benchmark", o.benchmark, "only those whose \"NAME | BACKEND\" has this text")
      ->type_name("TEXT");
  view.add_flag("--all", o.all, "series without a change too");
  view.add_option("--significance", o.significance, "largest p of a change (0.01)")
      ->type_name("P")
      ->check(CLI::Range(0.0, 1.0));
  view.add_option("--min-effect", o.minimum_effect, "smallest change that is shown (0.02)")
      ->type_name("F")
      ->check(CLI::Range(0.0, 1.0));
  view.add_option("--permutations", o.permutations, "of the test (999)")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  view.add_option("--seed", o.seed, "of the permutations (1)")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  add_json(view, o.json);
}

void CommandTree::add_history_dashboard(CLI::App& history) {
  HistoryDashboardOptions& o = history_dashboard_;
  CLI::App& dashboard = add_verb(
      history, "dashboard", "write one HTML file that shows all of it, without a network",
      "  attn-compare history dashboard -o dashboard.html\n"
      "  attn-compare history dashboard --db h200.db -o h200.html --title 'Kernels on H200'\n",
      [this](const Session& session) { return history_dashboard(history_dashboard_, session); });
  add_database(dashboard, o.database);
  dashboard.add_option("-o,--output", o.output, "the HTML file ('-': stdout)")
      ->type_name("FILE")
      ->required();
  dashboard.add_option("--title", o.title, "heading of the page")->type_name("TEXT");
}

}  // namespace attn::cli
