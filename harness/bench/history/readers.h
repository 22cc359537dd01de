#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "harness/bench/history/parsed.h"

namespace attn::history {

/// Each reads one kind of file, already parsed, and throws Error(kInput) naming `path` and the
/// place of what is wrong.
ParsedRun parse_google_benchmark(const std::string& path, const nlohmann::json& file);
ParsedRun parse_nvbench_json(const std::string& path, const nlohmann::json& file);
ParsedRun parse_nvbench_csv(const std::string& path, std::string_view text);
ParsedRun parse_peers(const std::string& path, const nlohmann::json& file);
ParsedRun parse_conformance(const std::string& path, const nlohmann::json& file);
ParsedRun parse_variants(const std::string& path, const nlohmann::json& file);
ParsedRun parse_fault_score(const std::string& path, const nlohmann::json& file);

/// Median, mean and so on from the samples; counters become medians in metrics and in the columns
/// that some of them have. Called when a result has all of its samples.
void summarise_samples(ParsedResult& result);

/// One counter by its name in the file: into its column, or among the metrics.
void set_metric(ParsedResult& result, const std::string& name, double value);

/// "2026-11-22T23:42:36+01:00" -> "2026-11-22T22:42:36Z"; the older "2015/03/17-18:40:25" and
/// "2019-03-16 12:30:21" have no zone and are taken as UTC. "" for anything else.
std::string utc_date(const std::string& text);

}  // namespace attn::history
