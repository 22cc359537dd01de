#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

/// The rows of a database of benchmark runs. docs/history.md says where each value comes from.
/// Texts that are not known are "", numbers that are not known are absent. Times are nanoseconds.
namespace attn::history {

/// What must be the same for two times to be compared.
struct Machine {
  std::int64_t id = 0;
  std::string gpu;  ///< "NVIDIA H200"
  std::int64_t gpu_count = 0;
  std::string cpu;  ///< model
  std::int64_t num_cpus = 0;
  std::string caches;  ///< "L1d 49152, L1i 32768, L2 2097152, L3 314572800": tells CPUs apart
  std::string host;

  /// One line for people: "NVIDIA H200, 16 CPUs".
  std::string label() const;
};

/// One file of measurements.
struct Run {
  std::int64_t id = 0;
  std::string sha256;  ///< of the file's bytes: the run's name
  std::string date;    ///< UTC, "2026-11-22T23:42:36Z"
  std::string commit;
  std::string subject;
  Machine machine;
  std::string driver, cuda, clocks, compiler, build_type;
  std::string libraries;    ///< "torch 2.11.0+cu130, cudnn 91900"
  std::string program;      ///< "attn-bench", "peers"
  std::string source_name;  ///< the file, without its folder
  std::string source_kind;  ///< google-benchmark, nvbench-json, nvbench-csv, peers, conformance,
                            ///< variants, faults
};

/// What is timed. The same in every run; a series is one benchmark over the runs of a machine.
struct Benchmark {
  std::int64_t id = 0;
  std::string program;
  std::string name;     ///< "decode B1 ctx2048 32/8"
  std::string backend;  ///< "cuda", "cpu:threads=1", or a peer: "flash", "cudnn"; "": not said
  std::string timer;    ///< graph, events, host, manual, real, cpu, gpu: only equal ones compare
  std::string shape;    ///< the same text for the same work, whoever does it and times it
  bool is_peer = false;
  std::string kind;  ///< prefill, decode, layer, projection, store, small or ""
  std::optional<std::int64_t> batch, q_len, kv_len, heads, kv_heads, head_dim, hidden_size;
  std::string dtype;    ///< ml_dtypes name
  std::string mask;     ///< causal, full, window 1024, ...
  std::string weights;  ///< encoding of quantised weights
  std::optional<std::int64_t> page_size;
  std::optional<std::int64_t> threads;
  std::map<std::string, std::string> parameters;  ///< those without a column
};

/// One benchmark in one run.
struct Result {
  std::int64_t id = 0;
  std::int64_t run = 0;
  std::int64_t benchmark = 0;
  std::string time_unit;  ///< of the file: ns, us, ms, s
  std::string label;
  std::string error;             ///< why there is no time; "" when there is
  std::int64_t samples = 0;      ///< repetitions that are kept
  std::int64_t repetitions = 0;  ///< that were run; more than samples where a file has aggregates
                                 ///< only
  std::optional<double> median_ns, mean_ns, stddev_ns, min_ns, max_ns;
  std::optional<double> tflops, gbps;
  std::optional<double> roofline;      ///< fraction of what the device could at most, 0 to 1
  std::optional<double> error_bound;   ///< largest error/bound of the outputs that were timed
  std::optional<double> instructions;  ///< executed by one iteration
};

/// One repetition: the mean over its iterations.
struct Sample {
  std::int64_t repetition = 0;
  std::optional<double> time_ns;  ///< by the benchmark's timer
  std::optional<double> cpu_ns;
  std::int64_t iterations = 0;
  std::string counters;  ///< JSON object of the others of the row, "" for none
};

/// One figure of a conformance run or of the planted bugs.
struct Score {
  std::int64_t run = 0;
  std::string kind;  ///< conformance, variants, faults or error_bound
  std::string name;  ///< a mode of the backend, a gate, "bfloat16 attn_out"
  std::optional<std::int64_t> passed, total;
  std::optional<double> value;
};

}  // namespace attn::history
