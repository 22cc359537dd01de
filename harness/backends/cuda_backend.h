#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "harness/backends/backend.h"

namespace attn::harness {

struct CudaOptions {
  bool fused = true;             ///< norm, rotation and store in one kernel
  bool plain_attention = false;  ///< only the plain attention kernel
  bool hopper_prefill = false;   ///< the prefill kernel of compute capability 9.0, and only that
  bool fp8_prefill = false;      ///< likewise, with products of e4m3 codes
  bool tiled_prefill = false;    ///< never that
  /// Only layers whose q, k and v can be made, turned and stored by one kernel of compute
  /// capability 9.0, in calls where it pays, or in all; or never by that kernel.
  bool hopper_projection = false;
  bool hopper_projection_always = false;
  bool separate_projection = false;
  /// Products of few rows never by a kernel that reads each weight once; or by it, and the last of
  /// a layer never, or always, from before attention has ended. Else that is chosen by call.
  bool no_gemv = false;
  bool gemv = false;
  bool gemv_ahead = false;
  bool cublas = true;       ///< cuBLASLt where it can be loaded
  bool fp8_own = false;     ///< float8 codes by our own kernels only
  bool fp8_cublas = false;  ///< by cuBLASLt for any number of rows that it takes
  /// Few rows with gguf's and gptq's weights as streams wherever that goes, "stream"; any rows with
  /// gptq's weights of 4 bits by clusters of blocks that share out the columns, "cluster"; neither,
  /// "few"; "": chosen.
  std::string coded;
  /// How calls of one query a sequence are decoded where a leaner kernel takes them: "general",
  /// "lean", "lean-mail"; "": chosen.
  std::string decode;
  int splits = 0;  ///< parts of the keys of a row; 0: chosen from the batch
};

/// Options of a spec "cuda" or "cuda:fused=0,splits=3". Throws Error(kUsage) for a word that is
/// none.
CudaOptions cuda_options_of(std::string_view spec);

/// "" when the CUDA layers run on this machine, else one line why not: not built in, no driver, no
/// device, no code for its architecture. Asked once.
const std::string& cuda_unavailable_reason();

/// Name of the current device, "" where there is none.
std::string cuda_device_name();

/// The layers of gpu/ as a backend. Throws Error(kUnsupported) where cuda_unavailable_reason()
/// gives one.
std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options);

/// A case that stays on the device, in several copies, to be run again and again: for timing. No
/// taps but the output.
class PreparedRuns {
 public:
  virtual ~PreparedRuns() = default;
  /// Milliseconds on the device that `rounds` runs of every copy took, copies in turns. In a graph:
  /// one that holds a run of each copy, captured once.
  virtual double milliseconds(int rounds, bool in_graph) = 0;
  /// The output of a copy's last run, with the cache.
  virtual Trace output(int copy) = 0;
};
std::unique_ptr<PreparedRuns> prepare_runs(const Case& c, const CudaOptions& options, int copies);

}  // namespace attn::harness
