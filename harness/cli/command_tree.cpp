#include "harness/cli/command_tree.h"

#include <algorithm>
#include <ostream>

#include "harness/cli/build_info.h"
#include "harness/report/format.h"
#include "reference/core/error.h"

namespace attn::cli {
namespace {

/// "-j", "--jobs", as typed.
std::vector<std::string> option_words(const CLI::Option* option) {
  std::vector<std::string> words;
  for (const std::string& name : option->get_snames()) words.push_back("-" + name);
  for (const std::string& name : option->get_lnames()) words.push_back("--" + name);
  return words;
}

/// Help that leads with examples and stays within the line width.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_help(const CLI::App* app, std::string name,
                        CLI::AppFormatMode mode) const override {
    std::string text = app->get_description() + "\n\n";
    if (!app->get_footer().empty()) text += "Examples:\n" + app->get_footer() + "\n";
    text += make_usage(app, name);
    text += make_positionals(app) + make_groups(app, mode);
    if (!app->get_subcommands({}).empty()) {
      text += "\nVerbs:\n";
      for (const CLI::App* sub : app->get_subcommands({})) text += make_subcommand(sub);
    }
    return text;
  }

  std::string make_usage(const CLI::App* app, std::string name) const override {
    std::string text = "Usage:\n  " + (name.empty() ? program_name(app) : name);
    for (const CLI::Option* option : app->get_options()) {
      if (option->get_positional()) {
        text += " " + value_name(*option) + (option->get_items_expected_max() > 1 ? "..." : "");
      }
    }
    if (!app->get_subcommands({}).empty()) text += " VERB";
    return text + " [options]\n";
  }

  std::string make_subcommand(const CLI::App* sub) const override {
    return described("  " + sub->get_name(), sub->get_description());
  }

  std::string make_option(const CLI::Option* option, bool is_positional) const override {
    std::string name = value_name(*option);
    if (!is_positional) {
      const std::string value = option->get_type_size() == 0 ? "" : " " + name;
      name.clear();
      for (const std::string& word : option_words(option)) name += (name.empty() ? "" : ",") + word;
      name += value;
    }
    return described("  " + name, option->get_description());
  }

 private:
  static std::string program_name(const CLI::App* app) {
    const std::string path = verb_path(*app);
    return path.empty() ? "attn-compare" : "attn-compare " + path;
  }

  static std::string described(std::string start, const std::string& text) {
    constexpr std::size_t kColumn = 28;
    std::string head;
    if (start.size() + 2 > kColumn) {
      head = start + "\n";
      start.clear();
    }
    start.resize(kColumn, ' ');
    return head + harness::wrap(start + text, kColumn) + "\n";
  }
};

void add_report_options(CLI::App& verb, ReportOptions& options) {
  verb.add_option("--json", options.json, "write a JSON report ('-': to stdout)")
      ->type_name("FILE");
  verb.add_option("--junit", options.junit, "write a JUnit XML report ('-': to stdout)")
      ->type_name("FILE");
  verb.add_flag("--no-color", options.no_colour, "no colour, as with NO_COLOR in the environment");
}

void add_case_options(CLI::App& verb, CaseOptions& options) {
  verb.add_option("--case", options.file, "a golden file, or a TOML case file")->type_name("FILE");
  verb.add_option("--config", options.config, "or: the case as JSON text, or a JSON file")
      ->type_name("JSON");
  verb.add_option("--seed", options.seed, "of the values of --config (1 unless given)")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  verb.add_option("--page-seed", options.page_seed, "of a golden file's page table (1)")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
}

CLI::Option* add_backend_option(CLI::App& verb, std::string& backend) {
  return verb.add_option("--backend", backend, "what to test; attn-compare list backends")
      ->type_name("BACKEND")
      ->required();
}

void add_isolation_options(CLI::App& verb, BackendOptions& options) {
  verb.add_flag("--isolate", options.isolate,
                "run our own backends in processes of their own too, as plug-ins always are");
  verb.add_flag("--no-isolate", options.no_isolate,
                "run plug-ins in this process, for a debugger: a crash ends the run");
  verb.add_option("--timeout", options.timeout_seconds,
                  "seconds that a case has in a process of its own (60)")
      ->type_name("S")
      ->check(CLI::PositiveNumber);
  verb.add_option("--memory-limit", options.memory_gib,
                  "GiB that such a process may use (default: half of the machine's)")
      ->type_name("GIB")
      ->check(CLI::PositiveNumber);
}

void add_exec_option(CLI::App& verb, std::string& modes) {
  verb.add_option("--exec", modes,
                  "how a case is run: plain (default), second_call, dirty_scratch, repeat; on "
                  "devices graph, graph_replay, padded; several with commas; fuzz deals a "
                  "device's cases to all of them")
      ->type_name("MODES");
}

void add_resume_option(CLI::App& verb, std::string& journal) {
  verb.add_option("--resume", journal,
                  "keep what is finished in this file; a run that was killed goes on from there")
      ->type_name("FILE");
}

void add_waivers_option(CLI::App& verb, std::string& waivers) {
  verb.add_option("--waivers", waivers,
                  "TOML file of failures that are accepted until a day; docs/cli.md")
      ->type_name("FILE");
}

void add_shard_options(CLI::App& verb, ShardOptions& options) {
  verb.add_option("--shard", options.shard,
                  "run part I of N, I from 1; all N parts together are the whole run")
      ->type_name("I/N");
  verb.add_option("--results", options.results,
                  "keep the results in this SQLite file, for report merge; the same command goes "
                  "on there")
      ->type_name("FILE");
}

void add_taps_flag(CLI::App& verb, bool& taps) {
  verb.add_flag("--taps,!--no-taps", taps,
                "judge each stage on the backend's own previous stage (default), or with --no-taps "
                "on bounds propagated from the inputs");
}

void add_rows_option(CLI::App& verb, std::string& rows) {
  verb.add_option(
          "--rows", rows,
          "query rows to judge: all (default), auto (the boundary rows and 64 random ones) or "
          "a number of random rows")
      ->type_name("ROWS");
}

/// Every option name and alias of the verb, as typed.
std::vector<std::string> option_names(const CLI::App& verb) {
  std::vector<std::string> names;
  for (const CLI::Option* option : verb.get_options()) {
    for (const std::string& word : option_words(option)) names.push_back(word);
  }
  return names;
}

std::vector<std::string> verb_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands({})) names.push_back(sub->get_name());
  return names;
}

}  // namespace

std::string value_name(const CLI::Option& option) {
  // CLI11 adds the name of a check, as in "N:POSITIVE".
  const std::string name = option.get_type_name();
  return name.substr(0, name.find(':'));
}

std::string verb_path(const CLI::App& app) {
  if (app.get_parent() == nullptr) return "";
  const std::string parent = verb_path(*app.get_parent());
  return parent.empty() ? app.get_name() : parent + " " + app.get_name();
}

CommandTree::CommandTree()
    : app_(
          "attn-compare says whether an attention implementation is right, and where it goes wrong",
          "attn-compare") {
  app_.formatter(std::make_shared<HelpFormatter>());
  app_.footer(
      "  attn-compare verify data/golden                 every golden file on every backend\n"
      "  attn-compare run --case F.h5 --backend cpu      one case, stage by stage\n"
      "  attn-compare diff A.h5 B.h5                     what differs between two files\n");
  app_.set_help_flag("-h,--help", "print this help; each verb has its own");
  app_.set_version_flag(
      "--version", [] { return version_text(); }, "version and how it was built");
  add_verify();
  add_run();
  add_fuzz();
  add_invariance();
  add_report();
  add_bisect_step();
  add_diff();
  add_golden();
  add_inspect();
  add_list();
  add_explain();
  add_faults();
  add_history();
  add_doctor();
  add_completion();
}

CLI::App& CommandTree::add_verb(CLI::App& parent, const std::string& name,
                                const std::string& summary, const std::string& examples,
                                std::function<int(const Session&)> action) {
  CLI::App& verb = *parent.add_subcommand(name, summary);
  verb.footer(examples);
  if (action) {
    verb.callback([this, action = std::move(action)] { action_ = action; });
  }
  return verb;
}

void CommandTree::add_verify() {
  CLI::App& verb =
      add_verb(app_, "verify", "check golden files against backends",
               "  attn-compare verify data/golden\n"
               "  attn-compare verify a.h5 b.h5 --backend cpu --backend faithful -v\n"
               "  attn-compare verify data/golden --allow-unsupported --junit report.xml\n",
               [this](const Session& session) { return verify(verify_, session); });
  verb.add_option("FILE", verify_.files, "golden files, or folders of them")
      ->type_name("FILE")
      ->required();
  verb.add_option("--backend", verify_.backends,
                  "what to test, repeatable (default: every backend this machine can run)")
      ->type_name("BACKEND")
      ->allow_extra_args(false);
  verb.add_flag("--allow-unsupported", verify_.allow_unsupported,
                "a file that a backend does not support does not fail the run");
  add_taps_flag(verb, verify_.taps);
  add_rows_option(verb, verify_.rows);
  verb.add_option("--jobs,-j", verify_.jobs, "files at a time (default: one for each core)")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  verb.add_option("--page-seed", verify_.page_seed, "of the shuffled page tables (1)")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  add_resume_option(verb, verify_.resume);
  add_waivers_option(verb, verify_.waivers);
  add_shard_options(verb, verify_.shard);
  add_isolation_options(verb, verify_.isolation);
  verb.add_flag("-v,--verbose", verify_.report.verbose, "every stage's error/bound");
  add_report_options(verb, verify_.report);
}

void CommandTree::add_run() {
  CLI::App& verb =
      add_verb(app_, "run", "run one case on a backend and judge every stage",
               "  attn-compare run --case data/golden/qk-norm.h5 --backend cpu\n"
               "  attn-compare run --config layer.json --seed 7 --backend cpu --rows auto\n"
               "  attn-compare run --case F.h5 --backend cpu --against cpu:threads=1 --bitwise\n"
               "  attn-compare run --case F.h5 --backend cpu --write got.h5\n",
               [this](const Session& session) { return run(run_, session); });
  add_case_options(verb, run_.source);
  add_backend_option(verb, run_.backend);
  verb.add_option("--write", run_.write,
                  "write the case and the backend's stages as a golden file, even when it fails")
      ->type_name("FILE");
  verb.add_flag("--force", run_.force, "let --write replace a file");
  verb.add_option("--against", run_.against,
                  "a second backend: judge both, print where they differ")
      ->type_name("BACKEND");
  verb.add_flag("--bitwise", run_.bitwise, "with --against: the two must be equal bit for bit");
  add_exec_option(verb, run_.exec);
  add_taps_flag(verb, run_.taps);
  add_rows_option(verb, run_.rows);
  add_isolation_options(verb, run_.isolation);
  verb.add_flag("-v,--verbose", run_.report.verbose,
                "put the parts of every bound into the report");
  add_report_options(verb, run_.report);
}

void CommandTree::add_fuzz() {
  CLI::App& verb = add_verb(
      app_, "fuzz", "look for cases that a backend fails on, and shrink them",
      "  attn-compare fuzz --backend ./kernel.so --gate smoke\n"
      "  attn-compare fuzz --backend ./kernel.so --time 600 --seed 7 --corpus failures\n"
      "  attn-compare fuzz --backend cpu --cases 1000 --exec plain,second_call,dirty_scratch\n"
      "  attn-compare fuzz --backend ./kernel.so --gate nightly --shard 3/8 --results 3.sqlite\n",
      [this](const Session& session) { return fuzz(fuzz_, session); });
  add_backend_option(verb, fuzz_.backend);
  verb.add_option("--gate", fuzz_.gate,
                  "smoke (10 s), pr (every legal pair of features; default) or nightly (every "
                  "triple); random cases follow")
      ->type_name("GATE");
  verb.add_option("--cases", fuzz_.cases, "how many cases in all")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  verb.add_option("--time", fuzz_.seconds, "begin cases for this many seconds")
      ->type_name("S")
      ->check(CLI::PositiveNumber);
  verb.add_option("--seed", fuzz_.seed, "of what is drawn (1)")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  verb.add_option("--max-compiles", fuzz_.max_compiles,
                  "at most so many combinations of what a kernel is compiled for")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  add_exec_option(verb, fuzz_.exec);
  verb.add_option("--relations", fuzz_.relations,
                  "also hold answers against each other: none, all or some relations, on every "
                  "case (default: all of them on a quarter); attn-compare list relations")
      ->type_name("R,...");
  verb.add_option("--corpus", fuzz_.corpus,
                  "folder of past failures: tried first, new ones are added")
      ->type_name("DIR");
  verb.add_option("--coverage", fuzz_.coverage,
                  "write the legal pairs of features that no case had ('-': to stdout)")
      ->type_name("FILE");
  verb.add_flag("--shrink,!--no-shrink", fuzz_.shrink,
                "make a failing case as small as it fails (default), or leave it as it is");
  verb.add_option("--max-failures", fuzz_.max_failures, "end after so many kinds of failures (10)")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  verb.add_option("--jobs,-j", fuzz_.jobs, "cases at a time (default: one for each core)")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  add_taps_flag(verb, fuzz_.taps);
  add_resume_option(verb, fuzz_.resume);
  add_waivers_option(verb, fuzz_.waivers);
  add_shard_options(verb, fuzz_.shard);
  add_isolation_options(verb, fuzz_.isolation);
  add_report_options(verb, fuzz_.report);
}

void CommandTree::add_invariance() {
  CLI::App& verb = add_verb(
      app_, "invariance", "hold a backend's answers against each other, without a right one",
      "  attn-compare invariance --backend ./kernel.so\n"
      "  attn-compare invariance --backend cpu --gate pr --relations row_alone,page_permutation\n"
      "  attn-compare invariance --backend ./kernel.so --case F.h5 --bitwise\n",
      [this](const Session& session) { return invariance(invariance_, session); });
  add_backend_option(verb, invariance_.backend);
  verb.add_option("--relations", invariance_.relations,
                  "only these, separated by commas; attn-compare list relations")
      ->type_name("R,...");
  add_case_options(verb, invariance_.source);
  verb.add_option("--gate", invariance_.gate,
                  "or: the covering cases of a gate, smoke, pr or nightly")
      ->type_name("GATE");
  verb.add_option("--cases", invariance_.cases,
                  "or: this many random cases (100); with --gate after those of the gate")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  verb.add_flag("--bitwise", invariance_.bitwise,
                "demand equal bits of the relations that can have them: repeat, page_permutation");
  verb.add_option("--jobs,-j", invariance_.jobs, "cases at a time (default: one for each core)")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  add_isolation_options(verb, invariance_.isolation);
  add_report_options(verb, invariance_.report);
}

void CommandTree::add_bisect_step() {
  CLI::App& verb = add_verb(
      app_, "bisect-step", "judge one commit for git bisect run: 0 good, 1 bad, 125 neither",
      "  git bisect run attn-compare bisect-step --build 'make kernel.so' --case F.h5 "
      "--backend ./kernel.so\n",
      [this](const Session& session) { return bisect_step(bisect_step_, session); });
  verb.add_option("--build", bisect_step_.build,
                  "shell command that makes the backend; 125 when it fails")
      ->type_name("CMD");
  add_case_options(verb, bisect_step_.source);
  add_backend_option(verb, bisect_step_.backend);
  add_taps_flag(verb, bisect_step_.taps);
  add_isolation_options(verb, bisect_step_.isolation);
}

void CommandTree::add_report() {
  CLI::App& report =
      add_verb(app_, "report", "join the result files of a run's shards (merge)",
               "  attn-compare report merge shard-*.sqlite --junit report.xml\n", nullptr);
  report.require_subcommand(1);
  CLI::App& merge =
      add_verb(report, "merge", "join the result files of all shards into one verdict",
               "  attn-compare report merge shard-*.sqlite\n"
               "  attn-compare report merge shard-*.sqlite --json all.json --junit all.xml\n",
               [this](const Session& session) { return report_merge(report_merge_, session); });
  merge.add_option("FILE", report_merge_.files, "what --results wrote, one file for each shard")
      ->type_name("FILE")
      ->required();
  merge.add_option("--corpus", report_merge_.corpus,
                   "of a run of fuzz: add the shrunk failures to this folder")
      ->type_name("DIR");
  merge.add_flag("-v,--verbose", report_merge_.report.verbose, "every stage's error/bound");
  add_report_options(merge, report_merge_.report);
}

void CommandTree::add_diff() {
  CLI::App& verb = add_verb(app_, "diff", "compare two golden files, dataset by dataset",
                            "  attn-compare diff data/golden/qk-norm.h5 got.h5\n",
                            [this](const Session& session) { return diff(diff_, session); });
  verb.add_option("A", diff_.a, "one golden file")->type_name("FILE")->required();
  verb.add_option("B", diff_.b, "the other")->type_name("FILE")->required();
  add_report_options(verb, diff_.report);
}

void CommandTree::add_golden() {
  CLI::App& golden =
      add_verb(app_, "golden", "write golden files (make, seal, import)",
               "  attn-compare golden make --config layer.json --seed 7 -o data/golden\n", nullptr);
  golden.require_subcommand(1);
  CLI::App& make =
      add_verb(golden, "make", "write golden files from the exact reference",
               "  attn-compare golden make --config layer.json --seed 7 -o data/golden\n"
               "  attn-compare golden make --list data/cases/golden_set.json -o data/golden\n"
               "  attn-compare golden make --random 20 --seed 100 -o more\n",
               [this](const Session& session) { return golden_make(make_, session); });
  make.add_option("--config", make_.configs,
                  "a case as JSON text, or a JSON or TOML file; repeatable")
      ->type_name("JSON")
      ->allow_extra_args(false);
  make.add_option("--list", make_.list, "or: the cases of a JSON list, each with id, seed and spec")
      ->type_name("FILE");
  make.add_option("--random", make_.random, "or: this many random small cases")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  make.add_option("--seed", make_.seed, "of the values; random cases count up from it (1)")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  make.add_option("--name", make_.name, "case id and file stem (default: that of the config file)")
      ->type_name("NAME");
  make.add_option("-o,--output", make_.folder, "folder to write to")->type_name("DIR")->required();
  make.add_flag("--force", make_.force, "replace files");
  add_report_options(make, make_.report);

  CLI::App& seal =
      add_verb(golden, "seal", "add digests to an unsealed file, once a second evaluation agrees",
               "  attn-compare golden seal new.h5\n",
               [this](const Session& session) { return golden_seal(seal_, session); });
  seal.add_option("FILE", seal_.files, "golden files")->type_name("FILE")->required();
  add_report_options(seal, seal_.report);
  add_golden_import(golden);
}

void CommandTree::add_golden_import(CLI::App& golden) {
  CLI::App& verb = add_verb(
      golden, "import", "write a golden file from a model's own files or from dumped tensors",
      "  attn-compare golden import --model Llama-3.2-1B --layer 3 -o layer3.h5\n"
      "  attn-compare golden import --model model.gguf --layer 0 --tokens '[[0, 64]]' -o l0.h5\n"
      "  attn-compare golden import --tensors dump.npz --layout bshd --map q=q,k=k,v=v,out=o -o "
      "d.h5\n",
      [this](const Session& session) { return golden_import(import_, session); });
  verb.add_option("--model", import_.model, "a Hugging Face folder, or a GGUF file")
      ->type_name("FILE");
  verb.add_option("--layer", import_.layer, "which of its layers (0)")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  verb.add_option(
          "--hidden", import_.hidden,
          "FILE:NAME, the layer's input: a tensor of a safetensors or npz file (default: drawn)")
      ->type_name("FILE");
  verb.add_option("--profile", import_.profile, "how hidden states and cache are drawn (normal)")
      ->type_name("PROFILE");
  verb.add_option("--seed", import_.seed, "of what is drawn (1)")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  verb.add_option("--page-size", import_.page_size, "of the paged cache (128)")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  verb.add_option("--tensors", import_.tensors,
                  "or: a safetensors or npz file of a kernel's tensors")
      ->type_name("FILE");
  verb.add_option("--map", import_.map,
                  "what they are called: q=NAME,k=NAME,v=NAME and any of out, lse, mask, sinks, "
                  "k_scale, v_scale, q_lengths, kv_lengths, cu_seqlens_q, cu_seqlens_k")
      ->type_name("ROLE=NAME")
      ->delimiter(',')
      ->allow_extra_args(false);
  verb.add_option("--layout", import_.layout,
                  "their axes: thd [tokens, heads, dim] (default), bhsd [batch, heads, seq, dim] "
                  "or bshd [batch, seq, heads, dim]")
      ->type_name("LAYOUT");
  verb.add_option("--config", import_.config,
                  "what tensors do not say, as JSON: mask (default causal), scale, logit_softcap, "
                  "kv_cache")
      ->type_name("JSON");
  verb.add_option("--rows", import_.rows,
                  "query rows of the tensors to keep: all, auto (the boundary rows and 64 random "
                  "ones; default for large dumps) or a number of random rows")
      ->type_name("ROWS");
  verb.add_option("--tokens", import_.tokens,
                  "lengths of the sequences: [[cached, new], ...]; of dumped tensors "
                  "[[queries, keys], ...]")
      ->type_name("JSON");
  verb.add_option("-o,--output", import_.output, "the golden file to write")
      ->type_name("FILE")
      ->required();
  verb.add_flag("--force", import_.force, "replace the file");
  add_report_options(verb, import_.report);
}

void CommandTree::add_inspect() {
  CLI::App& verb =
      add_verb(app_, "inspect", "show a golden file: config, provenance, datasets, digests",
               "  attn-compare inspect data/golden/qk-norm.h5\n",
               [this](const Session& session) { return inspect(inspect_, session); });
  verb.add_option("FILE", inspect_.file, "a golden file")->type_name("FILE")->required();
  verb.add_option("--json", inspect_.json, "write it as JSON ('-': to stdout)")->type_name("FILE");
}

void CommandTree::add_list() {
  CLI::App& verb =
      add_verb(app_, "list", "list backends, variants, stages, profiles, faults or relations",
               "  attn-compare list backends\n"
               "  attn-compare list backends --backend ./kernel.so\n",
               [this](const Session& session) { return list(list_, session); });
  verb.add_option("WHAT", list_.what, "backends, variants, stages, profiles, faults or relations")
      ->type_name("WHAT")
      ->required();
  verb.add_option("--backend", list_.backends, "a plug-in to add to the list, repeatable")
      ->type_name("BACKEND")
      ->allow_extra_args(false);
  verb.add_option("--json", list_.json, "write it as JSON ('-': to stdout)")->type_name("FILE");
}

void CommandTree::add_explain() {
  CLI::App& verb = add_verb(
      app_, "explain", "show how the bound of each stage's worst element was made",
      "  attn-compare explain --case data/golden/qk-norm.h5 --backend cpu --stage attn_out\n",
      [this](const Session& session) { return explain(explain_, session); });
  add_case_options(verb, explain_.source);
  add_backend_option(verb, explain_.backend);
  verb.add_option("--stage", explain_.stage, "only this stage")->type_name("STAGE");
  add_isolation_options(verb, explain_.isolation);
  add_taps_flag(verb, explain_.taps);
  add_report_options(verb, explain_.report);
}

void CommandTree::add_faults() {
  CLI::App& verb =
      add_verb(app_, "faults", "plant every bug of the catalogue: which does the harness notice?",
               "  attn-compare faults\n"
               "  attn-compare faults --gate nightly --json faults.json\n"
               "  attn-compare faults --only kv_head_modulo,sink_dropped -v\n",
               [this](const Session& session) { return faults(faults_, session); });
  verb.add_option("--backend", faults_.backend, "whose bugs: cpu (default) or cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->type_name("NAME");
  verb.add_option("--gate", faults_.gate, "whose cases: smoke, pr (default) or nightly")
      ->type_name("GATE");
  verb.add_option("--only", faults_.only, "these bugs; attn-compare list faults")
      ->type_name("ID")
      ->delimiter(',')
      ->allow_extra_args(false);
  verb.add_option("--seed", faults_.seed, "of the cases (1)")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  verb.add_option("--random", faults_.random,
                  "random cases after the gate's, each on every bug: which are hard to notice")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  verb.add_option("--jobs,-j", faults_.jobs, "cases at a time (default: one for each core)")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  add_shard_options(verb, faults_.shard);
  verb.add_option("--oracle", faults_.oracle,
                  "what counts: all (default), or one part alone: no-taps, final, tolerance, "
                  "pool-guard")
      ->type_name("ORACLE");
  verb.add_option("--without-profile", faults_.without_profile,
                  "make the cases of this data profile normal ones")
      ->type_name("PROFILE");
  verb.add_option("--record", faults_.record, "write the score to this file, for later runs")
      ->type_name("FILE");
  verb.add_flag("-v,--verbose", faults_.report.verbose, "every bug, not just what is amiss");
  add_report_options(verb, faults_.report);
}

void CommandTree::add_doctor() {
  CLI::App& verb = add_verb(app_, "doctor", "show what this machine has and whether it works",
                            "  attn-compare doctor\n",
                            [this](const Session& session) { return doctor(doctor_, session); });
  verb.add_option("--json", doctor_.json, "write it as JSON ('-': to stdout)")->type_name("FILE");
}

void CommandTree::add_completion() {
  CLI::App& verb =
      add_verb(app_, "completion", "print a shell's completion script",
               "  source <(attn-compare completion bash)\n", [this](const Session& session) {
                 if (shell_ != "bash") {
                   throw Error(ErrorKind::kUsage, "unknown shell \"" + shell_ + "\"; known: bash");
                 }
                 session.streams.out << bash_completion(app_) << std::flush;
                 return 0;
               });
  verb.add_option("SHELL", shell_, "bash")->type_name("SHELL")->required();
}

/// CLI11 reports a misspelt verb as a missing one and gives no hints, so the words are looked at
/// first.
void CommandTree::check_words(const std::vector<std::string>& args) {
  const CLI::App* at = &app_;
  for (std::size_t i = 0; i < args.size(); ++i) {
    const std::string& word = args[i];
    if (word == "--") return;
    if (word.size() > 1 && word[0] == '-') {
      const std::string name = word[1] == '-' ? word.substr(0, word.find('=')) : word.substr(0, 2);
      const CLI::Option* option = at->get_option_no_throw(name);
      if (option == nullptr) {
        throw Error(ErrorKind::kUsage, "unknown option " + name + hint(name, option_names(*at)),
                    name);
      }
      if (option->get_type_size() != 0 && word == name) ++i;  // its value
    } else if (!verb_names(*at).empty()) {
      const std::vector<std::string> names = verb_names(*at);
      if (std::find(names.begin(), names.end(), word) == names.end()) {
        throw Error(ErrorKind::kUsage, "unknown verb \"" + word + "\"" + hint(word, names), word);
      }
      at = at->get_subcommand(word);
      verb_ = verb_path(*at);
    }
  }
}

void CommandTree::parse(const std::vector<std::string>& args) {
  check_words(args);
  try {
    app_.parse(std::vector<std::string>(args.rbegin(), args.rend()));
  } catch (const CLI::Success&) {
    throw;
  } catch (const CLI::ParseError& error) {
    const std::string help = verb_.empty() ? "" : " " + verb_;
    throw Error(ErrorKind::kUsage,
                std::string(error.what()) + "; see attn-compare" + help + " --help");
  }
}

}  // namespace attn::cli
