#include "gpu/layers/coded_weights.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "gpu/faults/fault_switch.h"
#include "gpu/kernels/types.h"
#include "gpu/layers/gguf_block.h"
#include "reference/core/devices.h"
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

/// Float8 with one scale a row meets activations with one scale a row, or none.
bool scales_rows(const AttentionConfig& config, Matrix matrix) {
  const QuantConfig& quant = *config.quant;
  if (quant.weight_granularity == WeightGranularity::kBlock) return false;
  if (quant.activation == ActivationQuant::kBlock) return false;
  // Devices scale their own slices of the output projection's input.
  return matrix != Matrix::kO || quant.activation != ActivationQuant::kToken ||
         device_heads(config).size() == 1;
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
  if (scales_rows(config, matrix)) w.scaling = CodeScaling::kRow;
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

/// Columns in the order of their groups. Empty where they are so already; nothing where groups have
/// not `group` columns each.
std::optional<std::vector<std::uint32_t>> order_of_groups(const Tensor& indices,
                                                          std::int64_t group) {
  std::vector<std::uint32_t> order(static_cast<std::size_t>(indices.size()));
  std::iota(order.begin(), order.end(), 0U);
  const auto index = [&](std::uint32_t k) { return static_cast<std::int64_t>(indices.value(k)); };
  std::ranges::stable_sort(order, {}, index);
  bool moved = false;
  for (std::size_t j = 0; j < order.size(); ++j) {
    if (index(order[j]) != static_cast<std::int64_t>(j) / group) return std::nullopt;
    moved = moved || order[j] != j;
  }
  if (!moved) order.clear();
  return order;
}

std::optional<CodedRows> gptq_rows(const AttentionConfig& config, const LayerWeights& weights,
                                   Matrix matrix, MatrixSize size, std::int64_t group) {
  const QuantConfig& quant = *config.quant;
  const Tensor& words = projection_tensor(weights, matrix, "qweight");  // [in * bits / 32, out]
  const Tensor& scales = projection_tensor(weights, matrix, "scales");  // [groups, out]
  const std::int64_t per_word = 32 / quant.bits;
  const std::uint64_t mask = (std::uint64_t{1} << quant.bits) - 1;
  CodedRows w;
  start(w, quant.bits == 8 ? CodeKind::kI8 : CodeKind::kU4, 1 << (quant.bits - 1), size, group);
  if (ATTN_FAULT(gptq_zero_one_less, quant.bits == 4)) --w.offset;
  // These codes minus 8 are no signed bytes.
  if (ATTN_FAULT(gptq_zero_of_4_bits, quant.bits == 8)) return std::nullopt;
  auto order = order_of_groups(projection_tensor(weights, matrix, "g_idx"), group);
  if (!order) return std::nullopt;
  w.order = std::move(*order);
  if (ATTN_FAULT(gptq_group_order_ignored, !w.order.empty())) w.order.clear();
  // As its layer rounds them: the scales are float16, cut to bfloat16 where activations are that.
  if (config.dtype != ElementType::kFloat32) {
    w.scaling = CodeScaling::kWeight;
    w.rounded = config.dtype;
  }
  for (std::int64_t j = 0; j < size.in; ++j) {
    const std::int64_t k = w.order.empty() ? j : w.order[static_cast<std::size_t>(j)];
    for (std::int64_t n = 0; n < size.out; ++n) {
      const std::uint64_t word = words.code(k / per_word * size.out + n);
      w.codes[static_cast<std::size_t>(n * size.in + j)] =
          static_cast<std::uint8_t>(word >> (k % per_word * quant.bits) & mask);
    }
  }
  const std::int64_t groups = ceil_div(size.in, group);
  for (std::int64_t n = 0; n < size.out; ++n) {
    for (std::int64_t g = 0; g < groups; ++g) {
      const double scale = scales.value(g * size.out + n);
      w.inner[static_cast<std::size_t>(n * groups + g)] = w.rounded == ElementType::kBFloat16
                                                              ? truncate_to_bfloat16(scale)
                                                              : static_cast<float>(scale);
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

bool has_bytes(CodeKind kind) { return kind == CodeKind::kI8 || kind == CodeKind::kE4m3; }

/// The code whose value is 0.
std::uint32_t zero_code(const CodedRows& w) {
  if (w.kind == CodeKind::kI8) return 128;
  return w.kind == CodeKind::kE4m3 || w.kind == CodeKind::kE2m1
             ? 0
             : static_cast<std::uint32_t>(w.offset);
}

/// Codes as the kernels read them: docs of ChunkCodes have the order.
void pack_codes(const CodedRows& w, PackedWeight& packed) {
  const bool bytes = has_bytes(w.kind);
  const std::size_t words = bytes ? 8 : 4;
  const std::size_t high_words = w.kind == CodeKind::kU5 ? 1 : w.kind == CodeKind::kU6 ? 2 : 0;
  const std::int64_t tiles = packed.matrix.rows / kCodedTile;
  const std::int64_t chunks = packed.matrix.chunks;
  const auto lanes = static_cast<std::size_t>(tiles * chunks * 32);
  std::vector<std::uint32_t> low(lanes * words);
  std::vector<std::uint32_t> high(lanes * high_words);
  const auto code = [&](std::int64_t row, std::int64_t k) {
    return row < w.rows() && k < w.columns
               ? std::uint32_t{w.codes[static_cast<std::size_t>(row * w.columns + k)]}
               : zero_code(w);
  };
  for (std::size_t lane_at = 0; lane_at < lanes; ++lane_at) {
    const auto lane = static_cast<std::int64_t>(lane_at % 32);
    const std::int64_t chunk = static_cast<std::int64_t>(lane_at) / 32 % chunks;
    const std::int64_t tile = static_cast<std::int64_t>(lane_at) / 32 / chunks;
    // Registers a0 .. a3 of a fragment: rows l / 4 and + 8 in turn, columns in pairs.
    for (unsigned s = 0; s < 4; ++s) {
      for (unsigned i = 0; i < 4; ++i) {
        const std::int64_t row = tile * kCodedTile + lane / 4 + 8 * (i % 2);
        const std::int64_t k = chunk * kCodedChunk + kCodedStep * s + 2 * (lane % 4) + 8 * (i / 2);
        const std::uint32_t a = code(row, k);
        const std::uint32_t b = code(row, k + 1);
        if (bytes) {
          low[lane_at * words + 2 * s + i / 2] |= (a | b << 8) << 16 * (i % 2);
          continue;
        }
        low[lane_at * words + s] |= (a & 15U) << 4 * i | (b & 15U) << (4 * i + 16);
        if (high_words == 1) {
          high[lane_at] |= a >> 4 << (4 * s + i) | b >> 4 << (4 * s + i + 16);
        } else if (high_words == 2) {
          const unsigned shift = 8 * (s % 2) + 2 * i;
          high[2 * lane_at + s / 2] |= a >> 4 << shift | b >> 4 << (shift + 16);
        }
      }
    }
  }
  const auto store = [](const std::vector<std::uint32_t>& from, int record, PackedPlane& plane) {
    plane.data.resize(from.size() * sizeof(std::uint32_t));
    plane.bytes = record;
    if (!from.empty()) std::memcpy(plane.data.data(), from.data(), plane.data.size());
  };
  store(low, static_cast<int>(words) * 128, packed.codes);
  store(high, static_cast<int>(high_words) * 128, packed.high);
}

std::size_t size_of(ScaleType type) {
  return type == ScaleType::kFloat32 ? 4 : type == ScaleType::kByte ? 1 : 2;
}

void put_scale(ScaleType type, float value, std::byte* to) {
  const auto code = [&](ElementType element) {
    const auto bits = static_cast<std::uint16_t>(encode(element, static_cast<double>(value)));
    std::memcpy(to, &bits, sizeof bits);
  };
  switch (type) {
    case ScaleType::kFloat32:
      std::memcpy(to, &value, sizeof value);
      return;
    case ScaleType::kFloat16:
      return code(ElementType::kFloat16);
    case ScaleType::kBFloat16:
      return code(ElementType::kBFloat16);
    case ScaleType::kByte:
      *to = static_cast<std::byte>(static_cast<int>(value));
  }
}

/// [rows, groups] to records: for each tile the groups, each with rows r and r + 8 in turn. A
/// record has the groups of one chunk, or the one group of several.
PackedPlane pack_scales(const std::vector<float>& values, const CodedRows& w,
                        const CodedMatrix& matrix, std::int64_t group, ScaleType type, float bias) {
  PackedPlane plane;
  if (values.empty()) return plane;
  const std::int64_t groups = static_cast<std::int64_t>(values.size()) / w.rows();
  const std::int64_t of_record = std::max<std::int64_t>(kCodedChunk / group, 1);
  const bool all = group >= w.columns;
  plane.shift = all                   ? kWholeRow
                : group > kCodedChunk ? std::countr_zero(static_cast<unsigned>(group)) - 6
                                      : 0;
  const std::int64_t records = all ? 1 : ceil_div(matrix.chunks, std::int64_t{1} << plane.shift);
  const std::int64_t per_record = all ? 1 : of_record;
  const std::size_t element = size_of(type);
  plane.bytes = static_cast<int>(per_record * kCodedTile) * static_cast<int>(element);
  const std::int64_t tiles = matrix.rows / kCodedTile;
  plane.data.resize(static_cast<std::size_t>(tiles * records * plane.bytes));
  for (std::int64_t n = 0; n < w.rows(); ++n) {
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int64_t row = n % kCodedTile;
      const std::int64_t at =
          (n / kCodedTile * records * per_record + g) * kCodedTile + row % 8 * 2 + row / 8;
      put_scale(type, values[static_cast<std::size_t>(n * groups + g)] + bias,
                plane.data.data() + static_cast<std::size_t>(at) * element);
    }
  }
  return plane;
}

bool holds(ElementType type, const std::vector<float>& values) {
  return std::ranges::all_of(values, [&](float v) {
    return std::bit_cast<std::uint32_t>(static_cast<float>(round_to(type, v))) ==
           std::bit_cast<std::uint32_t>(v);
  });
}

bool holds_bytes(const std::vector<float>& values, float bias) {
  return std::ranges::all_of(values, [&](float v) {
    const float biased = v + bias;
    return biased >= 0.0f && biased <= 255.0f && biased == std::floor(biased) &&
           biased - bias == v && !(v == 0.0f && std::signbit(v));
  });
}

/// The smallest type that holds every scale as it is.
ScaleType scale_type(const CodedRows& w, float& bias) {
  if (w.scaling == CodeScaling::kWeight) {
    return w.rounded == ElementType::kBFloat16 ? ScaleType::kBFloat16 : ScaleType::kFloat16;
  }
  if (w.scaling == CodeScaling::kRow) return ScaleType::kFloat32;
  for (const float b : {0.0f, 128.0f}) {
    if (holds_bytes(w.inner, b) && holds_bytes(w.inner_min, 0.0f)) {
      bias = b;
      return ScaleType::kByte;
    }
  }
  if (holds(ElementType::kBFloat16, w.inner)) return ScaleType::kBFloat16;
  return holds(ElementType::kFloat16, w.inner) ? ScaleType::kFloat16 : ScaleType::kFloat32;
}

Buffer upload(const void* data, std::size_t bytes, const Stream& stream) {
  Buffer buffer(bytes);
  if (bytes == 0) return buffer;
  copy_to_device(buffer.data(), data, bytes, stream.get());
  stream.synchronize();
  return buffer;
}

}  // namespace

bool CodedRows::like(const CodedRows& other) const {
  return kind == other.kind && scaling == other.scaling && rounded == other.rounded &&
         offset == other.offset && columns == other.columns && group == other.group &&
         global == other.global && outer.empty() == other.outer.empty() &&
         inner_min.empty() == other.inner_min.empty() && order == other.order;
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
  const std::int64_t columns = matrix_size(config, matrix).in;
  const std::int64_t group = group_of(*config.quant, encoding, columns);
  return columns % 8 == 0 && (group >= columns || (is_power_of_two(group) && group >= 16));
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
      return gptq_rows(config, weights, matrix, size, group);
    default:
      return gguf_rows(weights, matrix, size, encoding, group);
  }
}

PackedWeight pack(const CodedRows& rows) {
  PackedWeight packed;
  CodedMatrix& m = packed.matrix;
  m.kind = rows.kind;
  m.scaling = rows.scaling;
  m.offset = rows.kind == CodeKind::kI8 ? 0 : rows.offset;  // its codes have their sign
  m.global = rows.global;
  m.rows = ceil_div(rows.rows(), kCodedTile) * kCodedTile;
  m.chunks = ceil_div(rows.columns, kCodedChunk);
  m.group_shift = rows.group >= rows.columns
                      ? kWholeRow
                      : std::countr_zero(static_cast<std::uint64_t>(rows.group));
  m.inner_type = scale_type(rows, m.inner_bias);
  m.small_scales = rows.kind == CodeKind::kU4 && rows.scaling == CodeScaling::kWeight &&
                   rows.rounded == ElementType::kBFloat16 && rows.offset == 8 &&
                   std::ranges::all_of(rows.inner, [](float s) { return std::abs(s) < 0.5f; });
  pack_codes(rows, packed);
  packed.inner = pack_scales(rows.inner, rows, m, rows.group, m.inner_type, m.inner_bias);
  packed.inner_min = pack_scales(rows.inner_min, rows, m, rows.group, m.inner_type, 0.0f);
  packed.outer = pack_scales(rows.outer, rows, m, kCodedOuter, ScaleType::kFloat32, 0.0f);
  packed.outer_min = pack_scales(rows.outer_min, rows, m, kCodedOuter, ScaleType::kFloat32, 0.0f);
  return packed;
}

CodedWeight::CodedWeight(const CodedRows& rows, const Stream& stream) {
  const PackedWeight packed = pack(rows);
  matrix = packed.matrix;
  const std::int64_t tiles = matrix.rows / kCodedTile;
  const auto place = [&](const PackedPlane& from, Buffer& buffer, CodedPlane& plane) {
    if (from.data.empty()) return;
    buffer = upload(from.data.data(), from.data.size(), stream);
    plane = {buffer.data(), from.bytes, from.shift,
             static_cast<std::int64_t>(from.data.size()) / tiles};
  };
  place(packed.codes, codes_, matrix.codes);
  place(packed.high, high_, matrix.high);
  place(packed.inner, inner_, matrix.inner);
  place(packed.inner_min, inner_min_, matrix.inner_min);
  place(packed.outer, outer_, matrix.outer);
  place(packed.outer_min, outer_min_, matrix.outer_min);
  if (rows.order.empty()) return;
  order_ = upload(rows.order.data(), rows.order.size() * sizeof(std::uint32_t), stream);
  order = reinterpret_cast<const std::uint32_t*>(order_.data());
}

}  // namespace attn::gpu
