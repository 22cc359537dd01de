#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "harness/cli/history_verbs.h"
#include "harness/cli/verbs.h"

namespace attn::cli {

/// The verbs and options of attn-compare as CLI11 knows them, and the options that parsing fills
/// in.
class CommandTree {
 public:
  CommandTree();

  CLI::App& app() { return app_; }

  /// Parses the words after the program's name. Throws Error(kUsage) with the nearest known word
  /// for a verb or option that does not exist, and for everything that CLI11 refuses;
  /// CLI::CallForHelp and CLI::CallForVersion are passed on.
  void parse(const std::vector<std::string>& args);

  /// The verb that the words chose; empty when there was none.
  const std::function<int(const Session&)>& action() const { return action_; }
  /// "verify", "golden make"; "" for none.
  const std::string& verb() const { return verb_; }

 private:
  void add_verify();
  void add_run();
  void add_fuzz();
  void add_invariance();
  void add_report();
  void add_bisect_step();
  void add_diff();
  void add_golden();
  void add_golden_import(CLI::App& golden);
  void add_inspect();
  void add_list();
  void add_explain();
  void add_faults();
  void add_history();
  void add_history_files(CLI::App& history);
  void add_history_gate(CLI::App& history);
  void add_history_view(CLI::App& history);
  void add_history_dashboard(CLI::App& history);
  void add_doctor();
  void add_completion();

  /// A subcommand of `parent` with its examples, which help prints first.
  CLI::App& add_verb(CLI::App& parent, const std::string& name, const std::string& summary,
                     const std::string& examples, std::function<int(const Session&)> action);
  void check_words(const std::vector<std::string>& args);

  CLI::App app_;
  std::function<int(const Session&)> action_;
  std::string verb_;

  VerifyOptions verify_;
  RunOptions run_;
  FuzzOptions fuzz_;
  InvarianceOptions invariance_;
  ReportMergeOptions report_merge_;
  BisectStepOptions bisect_step_;
  DiffOptions diff_;
  GoldenMakeOptions make_;
  GoldenSealOptions seal_;
  GoldenImportOptions import_;
  InspectOptions inspect_;
  ListOptions list_;
  ExplainOptions explain_;
  FaultsOptions faults_;
  HistoryImportOptions history_import_;
  HistoryListOptions history_list_;
  HistoryMergeOptions history_merge_;
  HistoryExportOptions history_export_;
  HistoryGateOptions history_gate_;
  HistoryViewOptions history_view_;
  HistoryDashboardOptions history_dashboard_;
  DoctorOptions doctor_;
  std::string shell_;
};

/// A bash script that completes verbs, options, backends, stages and files; made from the tree.
std::string bash_completion(const CLI::App& app);

/// "FILE", "N", "BACKEND": what an option's value is called.
std::string value_name(const CLI::Option& option);

/// Names for messages: "verify", "golden make".
std::string verb_path(const CLI::App& app);

}  // namespace attn::cli
