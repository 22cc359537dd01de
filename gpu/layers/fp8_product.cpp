#include "gpu/layers/fp8_product.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "gpu/kernels/elementwise.h"
#include "gpu/kernels/fp8_quantise.h"
#include "reference/core/devices.h"

namespace attn::gpu {
namespace {

// cuBLASLt's conditions for float8: rows of codes at multiples of 16 bytes, and 16 columns of y.
constexpr std::int64_t kAligned = 16;
constexpr std::int64_t kBlock = 128;
// In blocks it takes rows by fours.
constexpr std::int64_t kRowsOfBlocks = 4;
// Up to these many rows our own kernels read the weight as fast.
constexpr std::int64_t kMostOwnRows = 16;
// Products of fewer weights are short in our own kernels too.
constexpr std::int64_t kFewestWeights = std::int64_t{1} << 20;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }

bool is_by_blocks(Fp8Scaling scaling) {
  return scaling == Fp8Scaling::kBlocks || scaling == Fp8Scaling::kRowBlocks;
}

/// Activations and weights are scaled in one of the ways of Fp8Scaling. Devices of a
/// tensor_parallel layer quantise their own slices of o_proj's input.
bool scales_fit(const AttentionConfig& config, bool is_o) {
  const QuantConfig& quant = *config.quant;
  const std::vector<DeviceHeads> devices = device_heads(config);
  switch (quant.activation) {
    case ActivationQuant::kStatic:
      return quant.weight_granularity == WeightGranularity::kTensor;
    case ActivationQuant::kToken:
      return quant.weight_granularity != WeightGranularity::kBlock && !(is_o && devices.size() > 1);
    case ActivationQuant::kBlock:
      return quant.weight_granularity == WeightGranularity::kBlock && quant.block_k == kBlock &&
             std::ranges::all_of(devices, [&](const DeviceHeads& device) {
               return !is_o || device.q_heads.first * config.head_dim_v % kBlock == 0;
             });
    default:
      return false;
  }
}

bool serves(const AttentionConfig& config, Fp8Products products, bool is_o, std::int64_t n,
            std::int64_t k) {
  const QuantEncoding encoding = encoding_of(config, is_o ? Matrix::kO : Matrix::kV);
  if (products == Fp8Products::kOwn || encoding != QuantEncoding::kFloat8E4M3FN) return false;
  if (config.weight_clip() && !is_o) return false;
  if (!scales_fit(config, is_o) || n % kAligned != 0 || k % kAligned != 0) return false;
  if (config.quant->activation == ActivationQuant::kBlock && k % kBlock != 0) return false;
  return products == Fp8Products::kLibrary || n * k >= kFewestWeights;
}

/// Scales of blocks of `heights` rows and 128 columns, `groups` of them in a row of `inner`:
/// [ceil(n / 128), ceil4(groups)].
std::vector<float> scales_of_blocks(const std::vector<float>& inner, std::int64_t n,
                                    std::int64_t groups) {
  const std::int64_t stride = round_up(groups, 4);
  std::vector<float> scales(static_cast<std::size_t>(ceil_div(n, kBlock) * stride));
  for (std::int64_t b = 0; b * kBlock < n; ++b) {
    for (std::int64_t g = 0; g < groups; ++g) {
      scales[static_cast<std::size_t>(b * stride + g)] =
          inner[static_cast<std::size_t>(b * kBlock * groups + g)];
    }
  }
  return scales;
}

/// [groups, n]
std::vector<float> scales_of_row_blocks(const std::vector<float>& inner, std::int64_t n,
                                        std::int64_t groups) {
  std::vector<float> scales(inner.size());
  for (std::int64_t row = 0; row < n; ++row) {
    for (std::int64_t g = 0; g < groups; ++g) {
      scales[static_cast<std::size_t>(g * n + row)] =
          inner[static_cast<std::size_t>(row * groups + g)];
    }
  }
  return scales;
}

bool rows_of_blocks_agree(const std::vector<float>& inner, std::int64_t n, std::int64_t groups) {
  for (std::int64_t row = 0; row < n; ++row) {
    const auto own = inner.begin() + row * groups;
    const auto first = inner.begin() + row / kBlock * kBlock * groups;
    if (!std::equal(own, own + groups, first)) return false;
  }
  return true;
}

}  // namespace

bool fp8_library_serves_qkv(const AttentionConfig& config, Fp8Products products) {
  if (!config.quant || config.starts_at_attention()) return false;
  const bool cache_only = config.entry_point == EntryPoint::kMaterializeKvFromHidden;
  const std::int64_t n = (cache_only ? 0 : config.q_width()) + config.k_width() + config.v_width();
  return serves(config, products, false, n, config.hidden_size);
}

bool fp8_library_serves_o(const AttentionConfig& config, Fp8Products products) {
  return config.quant && config.entry_point == EntryPoint::kForward &&
         serves(config, products, true, config.hidden_size, config.attn_width());
}

std::optional<PlainFp8> plain_fp8(const CodedRows& rows, const InputFormat& input) {
  const std::int64_t n = rows.rows();
  const std::int64_t k = rows.columns;
  if (rows.kind != CodeKind::kE4m3 || n % kAligned != 0 || k % kAligned != 0) return std::nullopt;
  PlainFp8 plain;
  plain.input = input;
  plain.n = n;
  plain.k = k;
  const bool by_rows = rows.scaling == CodeScaling::kRow;
  if (input.format == ActivationFormat::kFp8Static && by_rows) {
    const bool same = std::ranges::all_of(rows.inner, [&](float s) { return s == rows.inner[0]; });
    plain.scale = input.scale * rows.inner[0];
    // Two small scales may have a product that float32 does not hold.
    if (!same || !std::isnormal(plain.scale)) return std::nullopt;
    plain.scaling = Fp8Scaling::kTensor;
  } else if (input.format == ActivationFormat::kFp8 && input.block == 0 && by_rows) {
    plain.scaling = Fp8Scaling::kRows;
    plain.scales = rows.inner;
  } else if (input.format == ActivationFormat::kFp8 && input.block == kBlock &&
             rows.group == kBlock && k % kBlock == 0) {
    const bool square = rows_of_blocks_agree(rows.inner, n, k / kBlock);
    plain.scaling = square ? Fp8Scaling::kBlocks : Fp8Scaling::kRowBlocks;
    plain.scales = square ? scales_of_blocks(rows.inner, n, k / kBlock)
                          : scales_of_row_blocks(rows.inner, n, k / kBlock);
  } else {
    return std::nullopt;
  }
  plain.codes = rows.codes;
  return plain;
}

Fp8Weight::Fp8Weight(const PlainFp8& plain, const Stream& stream)
    : scaling(plain.scaling),
      input(plain.input),
      scale(plain.scale),
      codes(plain.codes.size()),
      scales(plain.scales.size() * sizeof(float)) {
  copy_to_device(codes.data(), plain.codes.data(), codes.size(), stream.get());
  if (scales.size() > 0) {
    copy_to_device(scales.data(), plain.scales.data(), scales.size(), stream.get());
  }
  stream.synchronize();  // the host's copies may go
}

bool takes_fp8_library(const GemmArguments& shape, Fp8Products products) {
  if (products == Fp8Products::kOwn || shape.m == 0) return false;
  if (products == Fp8Products::kAuto && shape.m <= kMostOwnRows) return false;
  if (shape.y_stride != 0 && shape.y_stride != shape.n) return false;
  // Its bias is of y's type, and bfloat16 where that is float32.
  return shape.bias == nullptr || (shape.typed_bias != nullptr && shape.out_type != Type::kFloat32);
}

namespace {

Fp8GemmArguments arguments_of(const Fp8Weight& weight, const GemmArguments& a,
                              std::int64_t padded_rows) {
  Fp8GemmArguments p;
  p.scaling = weight.scaling;
  p.w = weight.codes.data();
  p.w_scale = reinterpret_cast<const float*>(weight.scales.data());
  p.scale = weight.scale;
  p.bias = a.bias != nullptr ? a.typed_bias : nullptr;
  p.y = a.y;
  p.out_type = a.out_type;
  p.m = padded_rows;
  p.n = a.n;
  p.k = a.k;
  return p;
}

Fp8ScaleOf scale_of(Fp8Scaling scaling) {
  return scaling == Fp8Scaling::kTensor ? Fp8ScaleOf::kTensor
         : is_by_blocks(scaling)        ? Fp8ScaleOf::kBlock
                                        : Fp8ScaleOf::kRow;
}

}  // namespace

Fp8ProductPlan plan_fp8_product(const Fp8Weight& weight, const GemmArguments& shape,
                                Fp8Products products) {
  Fp8ProductPlan plan;
  if (!takes_fp8_library(shape, products)) return plan;
  const bool blocks = is_by_blocks(weight.scaling);
  plan.padded_rows = blocks ? round_up(shape.m, kRowsOfBlocks) : shape.m;
  plan.product = CublasLtFp8::plan(arguments_of(weight, shape, plan.padded_rows));
  if (!plan.taken()) return plan;
  plan.weight = &weight;
  const auto rows = static_cast<std::size_t>(plan.padded_rows);
  plan.code_bytes = rows * static_cast<std::size_t>(shape.k);
  if (weight.scaling == Fp8Scaling::kRows) plan.scale_bytes = rows * sizeof(float);
  if (blocks) plan.scale_bytes = static_cast<std::size_t>(shape.k / kBlock) * rows * sizeof(float);
  if (plan.padded_rows > shape.m) {
    plan.padded_bytes = rows * static_cast<std::size_t>(shape.n) *
                        static_cast<std::size_t>(size_of(shape.out_type));
  }
  return plan;
}

void run_fp8_product(const Fp8ProductPlan& plan, const GemmArguments& a, const Fp8Memory& memory,
                     StreamHandle stream) {
  const Fp8Weight& weight = *plan.weight;
  Fp8QuantiseArguments q;
  q.x = a.x;
  q.type = a.out_type;
  q.scale_of = scale_of(weight.scaling);
  q.scale = weight.input.scale;
  q.codes = memory.codes;
  q.scales = memory.scales;
  q.rows = a.m;
  q.padded_rows = plan.padded_rows;
  q.width = a.k;
  quantise_fp8(q, stream);

  Fp8GemmArguments p = arguments_of(weight, a, plan.padded_rows);
  p.x = memory.codes;
  p.x_scale = memory.scales;
  if (plan.padded_bytes > 0) p.y = memory.padded;
  plan.product->run(p, memory.library, stream);
  if (plan.padded_bytes > 0) {
    copy_on_device(memory.padded, a.y, static_cast<std::size_t>(a.m * a.n * size_of(a.out_type)),
                   stream);
  }
  // Clipping what is rounded is rounding what is clipped: the bound is a value of the type.
  if (a.clip < kNoBound) clip(a.y, a.out_type, a.m * a.n, a.clip, stream);
}

}  // namespace attn::gpu
