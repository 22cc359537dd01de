#include "gpu/layers/coded_weights.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "gpu/faults/fault_switch.h"
#include "gpu/kernels/types.h"
#include "gpu/layers/gguf_block.h"
#include "reference/core/error.h"

namespace attn::gpu {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

bool is_power_of_two(std::int64_t x) { return x > 0 && (x & (x - 1)) == 0; }

/// Columns of an inner scale.
std::int64_t group_of(const QuantConfig& quant, QuantEncoding encoding, std::int64_t columns) {
  switch (encoding) {
    case QuantEncoding::kFloat8E4M3FN:
      return quant.weight_granularity == WeightGranularity::kBlock ? quant.block_k : columns;
    case QuantEncoding::kGptq:
      return quant.group_size > 0 ? quant.group_size : columns;
    case QuantEncoding::kNvfp4:
    case QuantEncoding::kQ6_K:
      return 16;
    default:
      return 32;
  }
}

void start(CodedRows& w, CodeKind kind, int offset, MatrixSize size, std::int64_t group) {
  w.kind = kind;
  w.offset = offset;
  w.columns = size.in;
  w.group = group;
  w.codes.resize(static_cast<std::size_t>(size.out * size.in));
  w.inner.resize(static_cast<std::size_t>(size.out * ceil_div(size.in, group)));
}

CodedRows fp8_rows(const AttentionConfig& config, const LayerWeights& weights, Matrix matrix,
                   MatrixSize size, std::int64_t group) {
  const QuantConfig& quant = *config.quant;
  CodedRows w;
  start(w, CodeKind::kE4m3, 0, size, group);
  const Tensor& codes = projection_tensor(weights, matrix, "weight");
  const Tensor& scale = projection_tensor(weights, matrix, "weight_scale");
  std::memcpy(w.codes.data(), codes.data(), w.codes.size());
  const std::int64_t groups = ceil_div(size.in, group);
  const std::int64_t rows_of_scale =
      quant.weight_granularity == WeightGranularity::kTensor    ? size.out
      : quant.weight_granularity == WeightGranularity::kRowwise ? 1
                                                                : quant.block_n;
  for (std::int64_t n = 0; n < size.out; ++n) {
    for (std::int64_t g = 0; g < groups; ++g) {
      w.inner[static_cast<std::size_t>(n * groups + g)] =
          static_cast<float>(scale.value(n / rows_of_scale * groups + g));
    }
  }
  if (quant.activation != ActivationQuant::kStatic || matrix == Matrix::kO) return w;
  // One scale for q, k and v: the codes are made again for it.
  const double largest = largest_of_qkv(weights, "weight_scale");
  const double own = scale.value(0);
  std::array<std::uint8_t, 256> again{};
  for (unsigned code = 0; code < again.size(); ++code) {
    const double value = decode(ElementType::kFloat8E4M3FN, code) * own / largest;
    again.at(code) = static_cast<std::uint8_t>(encode(ElementType::kFloat8E4M3FN, value));
  }
  for (std::uint8_t& code : w.codes) {
    if (!ATTN_FAULT(merged_codes_not_requantised, own != largest)) code = again.at(code);
  }
  std::ranges::fill(w.inner, static_cast<float>(largest));
  return w;
}

CodedRows microscaled_rows(const LayerWeights& weights, Matrix matrix, MatrixSize size,
                           QuantEncoding encoding, std::int64_t group) {
  const bool bytes = encoding == QuantEncoding::kMxfp8;
  CodedRows w;
  start(w, bytes ? CodeKind::kE4m3 : CodeKind::kE2m1, 0, size, group);
  const Tensor& codes = projection_tensor(weights, matrix, "weight");
  const Tensor& scale = projection_tensor(weights, matrix, "weight_scale");
  for (std::size_t i = 0; i < w.codes.size(); ++i) {
    const auto stored = static_cast<std::uint8_t>(codes.data()[bytes ? i : i / 2]);
    const bool low = (i % 2 == 0) != (!bytes && ATTN_FAULT(fp4_nibbles_swapped));
    w.codes[i] = bytes ? stored : low ? stored & 15U : stored >> 4;
  }
  for (std::size_t i = 0; i < w.inner.size(); ++i) {
    w.inner[i] = static_cast<float>(std::abs(scale.value(static_cast<std::int64_t>(i))));
  }
  if (encoding == QuantEncoding::kNvfp4 && !ATTN_FAULT(nvfp4_second_scale_dropped)) {
    w.global = static_cast<float>(projection_tensor(weights, matrix, "weight_scale_2").value(0));
  }
  return w;
}

CodedRows gptq_rows(const QuantConfig& quant, const LayerWeights& weights, Matrix matrix,
                    MatrixSize size, std::int64_t group) {
  const Tensor& words = projection_tensor(weights, matrix, "qweight");  // [in * bits / 32, out]
  const Tensor& scales = projection_tensor(weights, matrix, "scales");  // [groups, out]
  const std::int64_t per_word = 32 / quant.bits;
  const std::uint64_t mask = (std::uint64_t{1} << quant.bits) - 1;
  CodedRows w;
  start(w, quant.bits == 8 ? CodeKind::kI8 : CodeKind::kU4, 1 << (quant.bits - 1), size, group);
  if (ATTN_FAULT(gptq_zero_one_less, quant.bits == 4)) --w.offset;
  for (std::int64_t k = 0; k < size.in; ++k) {
    for (std::int64_t n = 0; n < size.out; ++n) {
      const std::uint64_t word = words.code(k / per_word * size.out + n);
      w.codes[static_cast<std::size_t>(n * size.in + k)] =
          static_cast<std::uint8_t>(word >> (k % per_word * quant.bits) & mask);
    }
  }
  const std::int64_t groups = ceil_div(size.in, group);
  for (std::int64_t n = 0; n < size.out; ++n) {
    for (std::int64_t g = 0; g < groups; ++g) {
      w.inner[static_cast<std::size_t>(n * groups + g)] =
          static_cast<float>(scales.value(g * size.out + n));
    }
  }
  return w;
}

/// The code of element i of a block.
std::uint8_t gguf_code(QuantEncoding encoding, const GgufBlockReader& b, int i) {
  const auto nibble = [](int byte, bool low) { return low ? byte & 15 : byte >> 4; };
  int code = 0;
  switch (encoding) {
    case QuantEncoding::kQ4_0:
      code = nibble(b.u8(2 + i % 16), i < 16);
      break;
    case QuantEncoding::kQ8_0:
      code = b.u8(2 + i) ^ 128;
      break;
    case QuantEncoding::kQ4_K:
      code = nibble(b.u8(16 + i / 64 * 32 + i % 32), i / 32 % 2 == 0);
      break;
    case QuantEncoding::kQ5_K:
      code = nibble(b.u8(48 + i / 64 * 32 + i % 32), i / 32 % 2 == 0) |
             (b.u8(16 + i % 32) >> i / 32 & 1) << 4;
      break;
    default: {  // q6_k
      const int half = i / 128;
      const int quarter = i % 128 / 32;
      const int l = i % 32;
      code = nibble(b.u8(64 * half + l + 32 * (quarter % 2)), quarter < 2) |
             (b.u8(128 + 32 * half + l) >> 2 * quarter & 3) << 4;
    }
  }
  return static_cast<std::uint8_t>(code);
}

CodedRows gguf_rows(const LayerWeights& weights, Matrix matrix, MatrixSize size,
                    QuantEncoding encoding, std::int64_t group) {
  CodedRows w;
  CodeKind kind = CodeKind::kU4;
  int offset = 0;
  if (encoding == QuantEncoding::kQ4_0) offset = 8;
  if (encoding == QuantEncoding::kQ8_0) kind = CodeKind::kI8;
  if (encoding == QuantEncoding::kQ5_K) kind = CodeKind::kU5;
  if (encoding == QuantEncoding::kQ6_K) {
    kind = CodeKind::kU6;
    offset = 32;
  }
  start(w, kind, offset, size, group);
  const bool small = encoding == QuantEncoding::kQ4_0 || encoding == QuantEncoding::kQ8_0;
  const bool has_min = encoding == QuantEncoding::kQ4_K || encoding == QuantEncoding::kQ5_K;
  const Tensor& stored = projection_tensor(weights, matrix, "weight");  // [out, bytes of a row]
  const std::int64_t elements = small ? 32 : kCodedOuter;
  const std::int64_t block_bytes = stored.dim(1) / (size.in / elements);
  const std::int64_t blocks = size.out * size.in / elements;
  const auto groups = static_cast<int>(elements / group);
  if (!small) w.outer.resize(static_cast<std::size_t>(blocks));
  if (has_min) {
    w.outer_min.resize(w.outer.size());
    w.inner_min.resize(w.inner.size());
  }
  for (std::int64_t at = 0; at < blocks; ++at) {
    const GgufBlockReader block(stored.data() + at * block_bytes);
    for (int i = 0; i < elements; ++i) {
      w.codes[static_cast<std::size_t>(at * elements + i)] = gguf_code(encoding, block, i);
    }
    if (small) {
      w.inner[static_cast<std::size_t>(at)] = static_cast<float>(block.half(0));
      continue;
    }
    w.outer[static_cast<std::size_t>(at)] = static_cast<float>(block.half(has_min ? 0 : 208));
    if (has_min) w.outer_min[static_cast<std::size_t>(at)] = static_cast<float>(block.half(2));
    for (int g = 0; g < groups; ++g) {
      const auto i = static_cast<std::size_t>(at * groups + g);
      const int of = ATTN_FAULT(q6_k_scale_of_32, !has_min && g % 2 != 0) ? g - 1 : g;
      w.inner[i] = static_cast<float>(has_min ? block.group_scale(g) : block.i8(192 + of));
      if (has_min) w.inner_min[i] = static_cast<float>(block.group_min(g));
    }
  }
  return w;
}

/// Bytes of the planes that the kernels read: docs of ChunkCodes have the order.
struct PackedCodes {
  std::vector<std::uint32_t> codes;
  std::vector<std::uint32_t> high;
};

PackedCodes pack(const CodedRows& w) {
  const bool bytes = w.kind == CodeKind::kI8 || w.kind == CodeKind::kE4m3;
  const std::size_t words = bytes ? 8 : 4;
  const std::size_t high_words = w.kind == CodeKind::kU5 ? 1 : w.kind == CodeKind::kU6 ? 2 : 0;
  const std::int64_t tiles = ceil_div(w.rows(), kCodedTile);
  const std::int64_t chunks = w.columns / kCodedChunk;
  const auto lanes = static_cast<std::size_t>(tiles * chunks * 32);
  PackedCodes packed{std::vector<std::uint32_t>(lanes * words),
                     std::vector<std::uint32_t>(lanes * high_words)};
  for (std::size_t lane_at = 0; lane_at < lanes; ++lane_at) {
    const auto lane = static_cast<std::int64_t>(lane_at % 32);
    const std::int64_t chunk = static_cast<std::int64_t>(lane_at) / 32 % chunks;
    const std::int64_t tile = static_cast<std::int64_t>(lane_at) / 32 / chunks;
    // Registers a0 .. a3 of a fragment: rows l / 4 and + 8 in turn, columns in pairs.
    for (unsigned s = 0; s < 4; ++s) {
      for (unsigned i = 0; i < 4; ++i) {
        const std::int64_t row = tile * kCodedTile + lane / 4 + 8 * (i % 2);
        if (row >= w.rows()) continue;
        const std::int64_t k = chunk * kCodedChunk + kCodedStep * s + 4 * (lane % 4) + i / 2 * 2;
        const std::uint32_t a = w.codes[static_cast<std::size_t>(row * w.columns + k)];
        const std::uint32_t b = w.codes[static_cast<std::size_t>(row * w.columns + k + 1)];
        if (bytes) {
          packed.codes[lane_at * words + 2 * s + i / 2] |= (a | b << 8) << 16 * (i % 2);
          continue;
        }
        packed.codes[lane_at * words + s] |= (a & 15U) << 4 * i | (b & 15U) << (4 * i + 16);
        if (high_words == 1) {
          packed.high[lane_at] |= a >> 4 << (4 * s + i) | b >> 4 << (4 * s + i + 16);
        } else if (high_words == 2) {
          const unsigned shift = 8 * (s % 2) + 2 * i;
          packed.high[2 * lane_at + s / 2] |= a >> 4 << shift | b >> 4 << (shift + 16);
        }
      }
    }
  }
  return packed;
}

Buffer upload(const void* data, std::size_t bytes, const Stream& stream) {
  Buffer buffer(bytes);
  if (bytes == 0) return buffer;
  copy_to_device(buffer.data(), data, bytes, stream.get());
  stream.synchronize();
  return buffer;
}

/// [rows, groups] to [groups, padded rows].
std::vector<float> plane(const std::vector<float>& values, std::int64_t rows, std::int64_t padded) {
  const std::int64_t groups = static_cast<std::int64_t>(values.size()) / rows;
  std::vector<float> turned(static_cast<std::size_t>(groups * padded));
  for (std::int64_t n = 0; n < rows; ++n) {
    for (std::int64_t g = 0; g < groups; ++g) {
      turned[static_cast<std::size_t>(g * padded + n)] =
          values[static_cast<std::size_t>(n * groups + g)];
    }
  }
  return turned;
}

bool holds(ElementType type, const std::vector<float>& values) {
  return std::ranges::all_of(values, [&](float v) {
    return std::bit_cast<std::uint32_t>(static_cast<float>(round_to(type, v))) ==
           std::bit_cast<std::uint32_t>(v);
  });
}

Buffer upload_as(Type type, const std::vector<float>& values, const Stream& stream) {
  if (type == Type::kFloat32) {
    return upload(values.data(), values.size() * sizeof(float), stream);
  }
  const ElementType element =
      type == Type::kFloat16 ? ElementType::kFloat16 : ElementType::kBFloat16;
  std::vector<std::uint16_t> codes(values.size());
  std::ranges::transform(values, codes.begin(), [&](float v) {
    return static_cast<std::uint16_t>(encode(element, static_cast<double>(v)));
  });
  return upload(codes.data(), codes.size() * sizeof(std::uint16_t), stream);
}

}  // namespace

bool CodedRows::like(const CodedRows& other) const {
  return kind == other.kind && offset == other.offset && columns == other.columns &&
         group == other.group && global == other.global && outer.empty() == other.outer.empty() &&
         inner_min.empty() == other.inner_min.empty();
}

void CodedRows::append(const CodedRows& other) {
  const auto add = [](auto& to, const auto& from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  add(codes, other.codes);
  add(inner, other.inner);
  add(inner_min, other.inner_min);
  add(outer, other.outer);
  add(outer_min, other.outer_min);
}

bool has_coded_rows(const AttentionConfig& config, Matrix matrix) {
  const QuantEncoding encoding = encoding_of(config, matrix);
  if (encoding == QuantEncoding::kNone) return false;
  if (matrix != Matrix::kO && config.weight_clip()) return false;
  if (encoding == QuantEncoding::kGptq && config.quant->desc_act) return false;
  const std::int64_t columns = matrix_size(config, matrix).in;
  const std::int64_t group = group_of(*config.quant, encoding, columns);
  return columns % kCodedChunk == 0 &&
         (group >= columns || (is_power_of_two(group) && group >= 16));
}

std::optional<CodedRows> coded_rows(const AttentionConfig& config, const LayerWeights& weights,
                                    Matrix matrix) {
  if (!has_coded_rows(config, matrix)) return std::nullopt;
  const QuantEncoding encoding = encoding_of(config, matrix);
  const MatrixSize size = matrix_size(config, matrix);
  const std::int64_t group = std::min(group_of(*config.quant, encoding, size.in), size.in);
  switch (encoding) {
    case QuantEncoding::kFloat8E4M3FN:
      return fp8_rows(config, weights, matrix, size, group);
    case QuantEncoding::kNvfp4:
    case QuantEncoding::kMxfp4:
    case QuantEncoding::kMxfp8:
      return microscaled_rows(weights, matrix, size, encoding, group);
    case QuantEncoding::kGptq:
      return gptq_rows(*config.quant, weights, matrix, size, group);
    default:
      return gguf_rows(weights, matrix, size, encoding, group);
  }
}

CodedWeight::CodedWeight(const CodedRows& rows, const Stream& stream) {
  const PackedCodes packed = pack(rows);
  codes_ = upload(packed.codes.data(), packed.codes.size() * sizeof(std::uint32_t), stream);
  high_ = upload(packed.high.data(), packed.high.size() * sizeof(std::uint32_t), stream);
  const std::int64_t padded = ceil_div(rows.rows(), kCodedTile) * kCodedTile;
  const std::vector<float> inner = plane(rows.inner, rows.rows(), padded);
  std::vector<float> inner_min;
  if (!rows.inner_min.empty()) inner_min = plane(rows.inner_min, rows.rows(), padded);
  // The smallest type that holds every scale as it is.
  Type type = Type::kFloat32;
  if (holds(ElementType::kBFloat16, inner) && holds(ElementType::kBFloat16, inner_min)) {
    type = Type::kBFloat16;
  } else if (holds(ElementType::kFloat16, inner) && holds(ElementType::kFloat16, inner_min)) {
    type = Type::kFloat16;
  }
  inner_ = upload_as(type, inner, stream);
  matrix.kind = rows.kind;
  matrix.offset = rows.kind == CodeKind::kI8 ? 0 : rows.offset;  // its codes have their sign
  matrix.codes = codes_.data();
  if (!packed.high.empty()) matrix.high = high_.data();
  matrix.inner = inner_.data();
  matrix.inner_type = type;
  matrix.global = rows.global;
  matrix.rows = padded;
  matrix.group_shift =
      rows.group >= rows.columns ? 62 : std::countr_zero(static_cast<std::uint64_t>(rows.group));
  if (!rows.inner_min.empty()) {
    inner_min_ = upload_as(type, inner_min, stream);
    outer_min_ = upload_as(Type::kFloat32, plane(rows.outer_min, rows.rows(), padded), stream);
    matrix.inner_min = inner_min_.data();
    matrix.outer_min = reinterpret_cast<const float*>(outer_min_.data());
  }
  if (!rows.outer.empty()) {
    outer_ = upload_as(Type::kFloat32, plane(rows.outer, rows.rows(), padded), stream);
    matrix.outer = reinterpret_cast<const float*>(outer_.data());
  }
}

}  // namespace attn::gpu
