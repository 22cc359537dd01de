#pragma once

#include <cstdint>

#include "gpu/layers/layer.h"
#include "harness/backends/capacity.h"
#include "harness/backends/cuda/device_image.h"
#include "reference/core/case.h"
#include "reference/core/trace.h"

namespace attn::harness {

/// Lengths of a case as a layer plans for them.
gpu::BatchShape shape_of(const Case& c);
/// For each sequence the longer of both; the batches are equally large. Of queries and keys each.
gpu::BatchShape longer(const gpu::BatchShape& a, const gpu::BatchShape& b);

/// Offsets of the tensors of one case in its image.
struct CaseImage {
  DeviceImage image;
  Capacity room;
  std::size_t x = 0, q = 0, freqs_cis = 0, mask = 0, row_offsets = 0, cache_lengths = 0;
  std::size_t k = 0, v = 0, k_scale = 0, v_scale = 0, page_table = 0, workspace = 0, out = 0;
  std::size_t qkv = 0, q_norm = 0, k_norm = 0, q_rope = 0, k_rope = 0, lse = 0, attn_out = 0;
};

/// Sequences beyond the case's have no rows and no keys, tokens beyond its own are NaN, entries of
/// the page table beyond its own name no page.
CaseImage lay_out(const Case& c, const gpu::AttentionLayer& layer, const gpu::LayerPlan& plan,
                  const Capacity& room);

gpu::CacheScales cache_scales(ScaleGranularity granularity);

/// Addresses of the image where it was uploaded to.
gpu::LayerTensors tensors_of(const Case& c, const CaseImage& image);

/// Every stage but freqs_cis, and the cache, out of the downloaded image.
Trace read_trace(const Case& c, const CaseImage& image, std::int64_t qkv_width);

}  // namespace attn::harness
