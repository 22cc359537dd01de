#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gpu/device/device.h"
#include "gpu/kernels/attention.h"
#include "gpu/kernels/attention_hopper.h"
#include "gpu/kernels/batch.h"
#include "gpu/kernels/gemm.h"
#include "gpu/kernels/gemv.h"
#include "gpu/kernels/head_pass.h"
#include "gpu/kernels/projection_hopper.h"
#include "gpu/layers/coded_product.h"
#include "reference/core/case.h"
#include "reference/core/config.h"

namespace attn::gpu {

/// The prefill kernel of calls of more rows than decode.
enum class PrefillKernel {
  kChosen,  ///< that of compute capability 9.0 where it takes the config and fills the device
  kHopper,  ///< that: only where hopper_unsupported_reason() has nothing against it
  kFp8,     ///< likewise, with products of e4m3 codes: queries and probabilities are rounded
  kTiled,   ///< that of mma.sync
};

/// Which of several equivalent ways a layer takes. The defaults are the fast ones; the others are
/// for tests and for comparing.
struct LayerOptions {
  bool fused_head_pass = true;   ///< norm, rotation and store in one kernel
  bool plain_attention = false;  ///< only the plain attention kernel
  PrefillKernel prefill = PrefillKernel::kChosen;
  DecodeWay decode;  ///< of calls of one query a sequence
  /// Which calls' q, k and v are made, turned and stored by one kernel of compute capability 9.0,
  /// of those that projection_unsupported_reason() has nothing against; kAlways: no others.
  ProjectionUse hopper_projection = ProjectionUse::kWhereItPays;
  /// Calls of few rows on compute capability 9.0: their products by gemv(), where it takes them,
  /// and what follows q, k and v in the same kernel, where projection_refusal() has nothing against
  /// the layer.
  GemvUse gemv = GemvUse::kChosen;
  /// Parts of the keys of a row, 0: chosen from the batch and the device. A fixed number makes a
  /// row's bits independent of its neighbours.
  int fixed_splits = 0;
  bool cublas = true;                    ///< cuBLASLt where it can be loaded
  Fp8Products fp8 = Fp8Products::kAuto;  ///< who multiplies float8 codes
  int coded_tile = 0;                    ///< rows of x in a tile of the coded products, 0: chosen
  /// Products of few rows with gguf's weights and gptq's by coded_stream(), of those that
  /// plan_coded_stream() takes; all others as without.
  CodedStreams coded_streams = CodedStreams::kWhereTheyPay;
  /// Products with gptq's weights by coded_cluster(), of those that plan_coded_cluster() takes.
  CodedClusters coded_clusters = CodedClusters::kWhereTheyPay;
};

/// "" when AttentionLayer runs the config, else one line why not.
std::string unsupported_reason(const AttentionConfig& config);

/// Nothing of the layer keeps the lean decode kernel from its calls: else their splits would be
/// planned for mail, which the general kernel has not. What only a call knows, its cache's strides,
/// is alike in caches of this project.
bool may_decode_lean(const AttentionConfig& config);

/// "" when the PrefillKernel of these options (kChosen: kHopper) takes the config on the current
/// device, else one line why not. A config without attention is always taken.
std::string hopper_unsupported_reason(const AttentionConfig& config, const LayerOptions& options);

/// options.fp8, or kOwn where cuBLASLt cannot multiply float8 codes here. Loads it, where the
/// config may have some.
Fp8Products fp8_products(const AttentionConfig& config, const LayerOptions& options);

/// True when a product of this config may be one of cuBLASLt's float8 kernels under these options,
/// for some number of rows: its sums are then those of their accumulators.
bool sums_in_fp8_accumulators(const AttentionConfig& config, const LayerOptions& options);

/// "" when LayerOptions::hopper_projection takes the config with these options on the current
/// device, else one line why not. A config without projection is always taken.
std::string projection_unsupported_reason(const AttentionConfig& config,
                                          const LayerOptions& options);

/// True when attention of this config runs on the tensor cores under these options.
bool uses_tensor_cores(const AttentionConfig& config, const LayerOptions& options);

/// Lengths of one call, known on the host when it is planned. The device arrays of a run may hold
/// shorter ones, fewer rows in all, and sequences without any: rows behind those of the last
/// sequence are padding. In `out` they become zero; attention alone leaves them as they are.
struct BatchShape {
  std::vector<std::int64_t> rows;    ///< query rows of each sequence
  std::vector<std::int64_t> cached;  ///< cache_lengths of each sequence
  std::int64_t tokens() const;
};

/// Device pointers of one call. Dense unless said. What a config does not have is null.
struct LayerTensors {
  const void* x = nullptr;           ///< [tokens, hidden_size], or
  const void* q = nullptr;           ///< [tokens, Hq, D] for entry point attention
  const float* freqs_cis = nullptr;  ///< [positions, rotary_dim]
  const float* mask = nullptr;       ///< [tokens, mask_stride]
  std::int64_t mask_stride = 0;
  const std::uint32_t* row_offsets = nullptr;    ///< [batch + 1]
  const std::uint32_t* cache_lengths = nullptr;  ///< [batch]
  CacheView cache;                               ///< with its scales where the config has some
  void* out = nullptr;  ///< [tokens, hidden_size]; entry point attention: null

  /// Taps: kept in the workspace where null.
  void* qkv = nullptr;       ///< [tokens, (Hq + 2 Hkv) D]; materialize: [tokens, 2 Hkv D]
  void* q_norm = nullptr;    ///< [tokens, Hq D]
  void* k_norm = nullptr;    ///< [tokens, Hkv D]
  void* q_rope = nullptr;    ///< [tokens, Hq D]
  void* k_rope = nullptr;    ///< [tokens, Hkv D]
  float* lse = nullptr;      ///< [tokens, Hq]
  void* attn_out = nullptr;  ///< [tokens, Hq Dv]
};

/// What was decided for one batch shape. No device memory.
struct LayerPlan {
  std::int64_t tokens = 0;
  std::int64_t batch = 0;
  AttentionPlan attention;
  HopperPlan hopper;          ///< taken: instead of the tiled kernel of `attention`
  ProjectionPlan projection;  ///< taken: instead of qkv_gemm and the pass behind it
  bool qkv_gemv = false;      ///< gemv_heads() instead of those
  bool out_gemv = false;      ///< gemv() instead of out_gemm
  bool out_ahead = false;     ///< its weights asked for ahead
  std::shared_ptr<const CublasLtGemm> qkv_gemm;  ///< null: our own kernel
  std::shared_ptr<const CublasLtGemm> out_gemm;
  std::vector<CodedProductPlan> coded;  ///< of the weights' groups of rows of q, k and v
  CodedProductPlan out_coded;
  CodedSpace coded_space;
  std::size_t workspace_bytes = 0;
  /// Bytes at the start of the workspace that must be zero before its first run with any plan.
  /// Every run leaves them zero, and all plans have the same ones.
  std::size_t zeroed_bytes = 0;
};

/// One layer with its weights on the current device. plan() is host work; run() only launches: it
/// neither allocates nor waits, and may be captured in a graph. Safe to run from several threads
/// with separate workspaces.
class AttentionLayer {
 public:
  /// Uploads the weights, clipped and concatenated once. Throws Error(kUnsupported), or on the
  /// device's failures.
  AttentionLayer(const AttentionConfig& config, const LayerWeights& weights,
                 const LayerOptions& options = {});
  ~AttentionLayer();
  AttentionLayer(const AttentionLayer&) = delete;
  AttentionLayer& operator=(const AttentionLayer&) = delete;

  LayerPlan plan(const BatchShape& shape) const;
  /// `workspace`: plan.workspace_bytes on the device, 256-byte aligned, of which the first
  /// plan.zeroed_bytes are zero; the others do not matter.
  void run(const LayerPlan& plan, const LayerTensors& tensors, void* workspace,
           StreamHandle stream) const;

  /// The first product of run() alone, to tensors.qkv: for timing it. Never by plan.projection,
  /// which has no product alone.
  void run_projection(const LayerPlan& plan, const LayerTensors& tensors, void* workspace,
                      StreamHandle stream) const;

  /// Columns of the tap `qkv`.
  std::int64_t qkv_width() const;

 private:
  struct Buffers;
  Buffers buffers(const LayerPlan& plan, const LayerTensors& tensors, Arena& arena) const;
  GemmArguments qkv_shape(std::int64_t tokens) const;
  GemmArguments out_shape(std::int64_t tokens) const;
  HeadPassArguments heads_of(const LayerTensors& t, const Buffers& b) const;
  void project_and_store(const LayerPlan& plan, const LayerTensors& t, const Buffers& b,
                         StreamHandle stream) const;
  void plan_prefill(LayerPlan& plan, std::int64_t max_rows, std::int64_t max_keys) const;
  void plan_gemv(LayerPlan& plan, const BatchShape& shape) const;
  void plan_coded(LayerPlan& plan) const;
  static GemmArguments rows_of(const GemmArguments& whole, const InputGroup& group);
  void project(const LayerPlan& plan, const LayerTensors& t, const Buffers& b,
               StreamHandle stream) const;
  void project_quantised(const LayerPlan& plan, const GemmArguments& whole, const Buffers& b,
                         StreamHandle stream) const;
  void output_quantised(const LayerPlan& plan, GemmArguments product, const Buffers& b,
                        StreamHandle stream) const;
  void attend(const LayerPlan& plan, const LayerTensors& t, const Buffers& b,
              StreamHandle stream) const;
  BatchView batch_of(const LayerPlan& plan, const LayerTensors& t) const;

  AttentionConfig config_;
  LayerOptions options_;
  AttentionShape attention_shape_;
  std::unique_ptr<DeviceWeights> weights_;
};

}  // namespace attn::gpu
