#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "harness/cli/backend_source.h"
#include "harness/cli/case_source.h"
#include "harness/cli/session.h"
#include "harness/cli/sharding.h"

/// The verbs of attn-compare, one function each: it prints, writes the report files and returns the
/// exit code. Errors that end the whole verb are thrown as attn::Error.
namespace attn::cli {

struct VerifyOptions {
  std::vector<std::string> files;     ///< files, or folders that stand for their *.h5
  std::vector<std::string> backends;  ///< none: every backend that this machine can run
  bool allow_unsupported = false;
  bool taps = true;
  std::string rows = "all";
  int jobs = 0;  ///< 0: as many as there are cores
  std::uint64_t page_seed = 1;
  std::string resume;  ///< journal of finished files, "" for none
  ShardOptions shard;
  std::string waivers;  ///< TOML file of accepted failures, "" for none
  BackendOptions isolation;
  ReportOptions report;
};
int verify(const VerifyOptions& options, const Session& session);

struct RunOptions {
  CaseOptions source;
  std::string backend;
  std::string write;
  bool force = false;
  std::string against;
  bool bitwise = false;
  std::string exec = "plain";
  bool taps = true;
  std::string rows = "all";
  BackendOptions isolation;
  ReportOptions report;
};
int run(const RunOptions& options, const Session& session);

struct FuzzOptions {
  std::string backend;
  std::string gate = "pr";
  std::optional<std::int64_t> cases;  ///< in all, those of the corpus and the gate included
  std::optional<double> seconds;      ///< no case is begun after so many
  std::uint64_t seed = 1;
  std::optional<std::int64_t> max_compiles;
  std::string exec;       ///< modes, separated by commas; "": plain, on devices one in turns
  std::string relations;  ///< "": all on a share of the cases; "none", "all" or "a,b"
  int jobs = 0;           ///< 0: as many as there are cores
  std::string corpus;     ///< folder of past failures, "" for none
  std::string coverage;   ///< file for what was not covered, "" for none
  bool taps = true;
  bool shrink = true;
  std::int64_t max_failures = 10;  ///< the run ends with so many kinds of failures
  std::string resume;              ///< journal of finished cases, "" for none
  ShardOptions shard;
  std::string waivers;  ///< TOML file of accepted failures, "" for none
  BackendOptions isolation;
  ReportOptions report;
};
int fuzz(const FuzzOptions& options, const Session& session);

struct InvarianceOptions {
  std::string backend;
  std::string relations;              ///< "a,b"; "": all
  CaseOptions source;                 ///< one case; its seed is also that of drawn ones
  std::string gate;                   ///< or: the covering cases of "smoke", "pr" or "nightly"
  std::optional<std::int64_t> cases;  ///< and so many random ones (100 unless a gate is given)
  bool bitwise = false;
  int jobs = 0;  ///< 0: as many as there are cores
  BackendOptions isolation;
  ReportOptions report;
};
int invariance(const InvarianceOptions& options, const Session& session);

struct BisectStepOptions {
  std::string build;  ///< shell command that makes the backend, "" for none
  CaseOptions source;
  std::string backend;
  bool taps = true;
  BackendOptions isolation;
};
/// Returns 0 for a good commit, 1 for a bad one, 125 when it cannot be judged.
int bisect_step(const BisectStepOptions& options, const Session& session);

struct ReportMergeOptions {
  std::vector<std::string> files;  ///< result files of all shards of one run
  std::string corpus;              ///< of fuzz: folder that failures are added to, "" for none
  ReportOptions report;
};
int report_merge(const ReportMergeOptions& options, const Session& session);

struct DiffOptions {
  std::string a;
  std::string b;
  ReportOptions report;
};
int diff(const DiffOptions& options, const Session& session);

struct GoldenMakeOptions {
  std::vector<std::string> configs;  ///< JSON text, or names of JSON or TOML files
  std::string list;                  ///< or a JSON list of named, seeded cases
  std::int64_t random = 0;           ///< or this many random cases
  std::optional<std::uint64_t> seed;
  std::string name;  ///< of a single config's file; default: the config file's stem
  std::string folder;
  bool force = false;
  ReportOptions report;
};
int golden_make(const GoldenMakeOptions& options, const Session& session);

struct GoldenSealOptions {
  std::vector<std::string> files;
  ReportOptions report;
};
int golden_seal(const GoldenSealOptions& options, const Session& session);

struct GoldenImportOptions {
  std::string model;  ///< a Hugging Face folder or a GGUF file
  std::int64_t layer = 0;
  std::string hidden;  ///< FILE:NAME of the hidden states; "": drawn
  std::string profile = "normal";
  std::int64_t page_size = 128;
  std::string tensors;           ///< or: a file of dumped tensors
  std::vector<std::string> map;  ///< ROLE=NAME
  std::string layout = "thd";    ///< of dumped tensors
  std::string config;            ///< of dumped tensors: mask, scale, logit_softcap, kv_cache
  std::string tokens;            ///< JSON list of pairs, as the "rows" of a case
  std::string rows;              ///< of dumped tensors: which to keep; "": auto when large
  std::uint64_t seed = 1;
  std::string output;
  bool force = false;
  ReportOptions report;
};
int golden_import(const GoldenImportOptions& options, const Session& session);

struct InspectOptions {
  std::string file;
  std::string json;
};
int inspect(const InspectOptions& options, const Session& session);

struct ListOptions {
  std::string what;
  std::vector<std::string> backends;  ///< plug-ins to add to the list of backends
  std::string json;
};
int list(const ListOptions& options, const Session& session);

struct ExplainOptions {
  CaseOptions source;
  std::string backend;
  std::string stage;  ///< "": every stage
  bool taps = true;
  BackendOptions isolation;
  ReportOptions report;
};
int explain(const ExplainOptions& options, const Session& session);

struct FaultsOptions {
  std::string backend = "cpu";  ///< whose planted bugs: cpu or cuda
  std::string gate = "pr";
  std::uint64_t seed = 1;
  std::vector<std::string> only;  ///< ids; none: all
  int jobs = 0;                   ///< 0: as many as there are cores
  std::int64_t random = 0;        ///< random cases after the gate's, each on every bug
  ShardOptions shard;             ///< of the bugs
  std::string oracle = "all";
  std::string without_profile;
  std::string record;  ///< score file to write the result to
  ReportOptions report;
};
int faults(const FaultsOptions& options, const Session& session);
/// The same for backend cuda, whose record is a file of its own.
int device_faults(const FaultsOptions& options, const Session& session);

struct DoctorOptions {
  std::string json;
};
int doctor(const DoctorOptions& options, const Session& session);

}  // namespace attn::cli
