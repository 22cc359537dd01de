#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "reference/core/case.h"
#include "reference/core/trace.h"

namespace attn::golden {

/// Axes of dumped q, k, v and out: [tokens, heads, dim], [batch, heads, seq, dim] or
/// [batch, seq, heads, dim].
enum class DumpLayout { kThd, kBhsd, kBshd };

struct DumpRequest {
  std::string file;  ///< safetensors, npz, npy or GGUF
  /// What each of dump_roles() is called in the file; q, k and v are needed.
  std::map<std::string, std::string> names;
  DumpLayout layout = DumpLayout::kThd;
  /// {queries, keys} of each sequence; empty: from cu_seqlens_* or *_lengths, else all there are.
  std::vector<std::pair<std::int64_t, std::int64_t>> lengths;
  /// JSON object of what tensors cannot say: mask, scale, logit_softcap, kv_cache. "" for none.
  std::string config_json;
};

/// An `attention` case of dumped tensors, and what the dumped kernel answered.
struct ImportedDump {
  Case c;
  Trace given;  ///< attn_out and lse, where the dump has them
  std::vector<std::string> notes;
};

/// q, k, v, out, lse, mask, sinks, k_scale, v_scale, q_lengths, kv_lengths, cu_seqlens_q,
/// cu_seqlens_k.
const std::vector<std::string>& dump_roles();

/// Throws Error(kInput) naming file and tensor when they are malformed or do not fit together,
/// Error(kConfig) for what config_json says.
ImportedDump import_dump(const DumpRequest& request);

}  // namespace attn::golden
