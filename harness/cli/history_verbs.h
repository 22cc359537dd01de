#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/bench/history/gate.h"
#include "harness/cli/session.h"

/// The verbs under attn-compare history, as those of verbs.h.
namespace attn::cli {

inline constexpr const char* kDefaultDatabase = "bench.db";

struct HistoryImportOptions {
  std::string database = kDefaultDatabase;
  std::vector<std::string> files;
  std::string commit;
  std::string subject;
  std::string date;
  std::string json;
};
int history_import(const HistoryImportOptions& options, const Session& session);

struct HistoryListOptions {
  std::string database = kDefaultDatabase;
  std::string json;
};
int history_list(const HistoryListOptions& options, const Session& session);

struct HistoryMergeOptions {
  std::vector<std::string> from;
  std::string output;
  std::string json;
};
int history_merge(const HistoryMergeOptions& options, const Session& session);

struct HistoryExportOptions {
  std::string database = kDefaultDatabase;
  std::string format = "csv";
  std::string run;  ///< "": every run for csv, the latest for the others
  bool samples = false;
  std::string output = "-";
};
int history_export(const HistoryExportOptions& options, const Session& session);

struct HistoryGateOptions {
  std::string database = kDefaultDatabase;
  std::string candidate;  ///< RUN or RUN@BACKEND
  std::string baseline;
  std::string candidate_command;  ///< or: programs that are run in turns
  std::string baseline_command;
  std::int64_t rounds = 15;
  std::string rerun;  ///< command that measures both sides once more
  bool instructions = false;
  history::GateOptions gate;
  std::string json;
};
int history_gate(const HistoryGateOptions& options, const Session& session);

struct HistoryViewOptions {
  std::string database = kDefaultDatabase;
  std::string benchmark;  ///< part of "NAME | BACKEND"; "": all
  bool all = false;       ///< series without a change too
  double significance = 0.01;
  double minimum_effect = 0.02;
  std::int64_t permutations = 999;
  std::uint64_t seed = 1;
  std::string json;
};
int history_view(const HistoryViewOptions& options, const Session& session);

struct HistoryDashboardOptions {
  std::string database = kDefaultDatabase;
  std::string output;
  std::string title;  ///< "": the page's own
};
int history_dashboard(const HistoryDashboardOptions& options, const Session& session);

}  // namespace attn::cli
