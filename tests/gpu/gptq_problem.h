#pragma once

// Products of gptq's weights of 4 bits for tests on the emulated block: stored tensors, packed by
// the layer's own code, x of small whole numbers, and what must come out, to the bit. To be
// included before kernel source.

#include <cstdint>
#include <cstring>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "gpu/layers/coded_weights.h"
#include "tests/gpu/emulator/bits.h"
#include "tests/gpu/emulator/device.h"

namespace attn::gpu::gptq_test {

inline std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

struct Problem {
  int rows = 1, width = 256, out = 32;
  int group = 128;  ///< -1: the whole row
  Type type = Type::kBFloat16;
  bool bias = false;
  float clip = kNoBound;
  int multiprocessors = 1;
  double unit = 0x1p-12;  ///< of scales, which are up to 255 of them

  std::string text() const {
    std::ostringstream s;
    s << "rows " << rows << " width " << width << " out " << out << " group " << group << " half "
      << (type == Type::kFloat16) << " bias " << bias << " clip " << clip << " processors "
      << multiprocessors << " unit " << unit;
    return s.str();
  }
};

/// Stored tensors and the weights that they mean, [out, width].
struct Weight {
  std::vector<float> values;
  PackedWeight packed;
  CodedMatrix matrix;
  std::vector<emulator::Readable> places;

  Weight(const Problem& p, std::mt19937_64& random) {
    const int group = p.group > 0 ? p.group : p.width;
    const int groups = (p.width + group - 1) / group;
    Tensor words(ElementType::kInt32, {p.width / 8, p.out});
    for (std::byte& b : words.bytes()) b = static_cast<std::byte>(random() & 0xff);
    std::vector<double> scales;  // of 8 bits: no type cuts them
    for (int i = 0; i < groups * p.out; ++i) {
      scales.push_back(static_cast<double>(1 + random() % 255) * p.unit);
    }
    std::vector<double> indices;
    for (int k = 0; k < p.width; ++k) indices.push_back(k / group);
    LayerWeights weights;
    weights.emplace("k_proj.scales",
                    Tensor::from_values(ElementType::kFloat16, {groups, p.out}, scales));
    weights.emplace("k_proj.g_idx", Tensor::from_values(ElementType::kInt32, {p.width}, indices));
    weights.emplace("k_proj.qweight", words);
    const AttentionConfig config = parse_config(
        R"({"variant":"gptq","entry_point":"materialize_kv_from_hidden","dtype":")" +
        std::string(p.type == Type::kFloat16 ? "float16" : "bfloat16") + R"(","hidden_size":)" +
        std::to_string(p.width) +
        R"(,"num_attention_heads":512,"num_key_value_heads":1,"head_dim":)" +
        std::to_string(p.out) + R"(,"quant":{"encoding":"gptq","bits":4,"group_size":)" +
        std::to_string(p.group) + R"(},"kv_cache":{"page_size":16,"dtype":")" +
        std::string(p.type == Type::kFloat16 ? "float16" : "bfloat16") + R"("}})");
    for (int n = 0; n < p.out; ++n) {
      for (int k = 0; k < p.width; ++k) {
        std::uint32_t word = 0;
        std::memcpy(&word, words.data() + 4 * (k / 8 * p.out + n), 4);
        const int code = static_cast<int>(word >> 4 * (k % 8) & 15) - 8;
        const double exact = code * scales[at(k / group * p.out + n)];
        values.push_back(from_bits(to_bits(static_cast<float>(exact), p.type), p.type));
      }
    }
    packed = pack(coded_rows(config, weights, Matrix::kK).value());
    matrix = packed.matrix;
    const std::int64_t tiles = matrix.rows / kCodedTile;
    const auto place = [&](const PackedPlane& from, CodedPlane& plane) {
      places.push_back({from.data.data(), from.data.size()});
      plane = {from.data.data(), from.bytes, from.shift,
               static_cast<std::int64_t>(from.data.size()) / tiles};
    };
    place(packed.codes, matrix.codes);
    place(packed.inner, matrix.inner);
  }
};

/// x, with NaN behind each row, bias, and room for y with columns that are not the product's.
struct Operands {
  std::vector<float> values;
  std::vector<std::uint16_t> x, y;
  std::vector<float> bias;
  int stride = 0;

  Operands(const Problem& p, std::mt19937_64& random) : stride(p.out + 3) {
    for (int i = 0; i < p.rows * p.width; ++i) {
      values.push_back(static_cast<float>(static_cast<int>(random() % 7) - 3));
      x.push_back(to_bits(values.back(), p.type));
      if ((i + 1) % p.width == 0) x.insert(x.end(), 8, 0x7fff);
    }
    for (int n = 0; n < p.out; ++n) bias.push_back(static_cast<float>(random() % 9) - 4.0f);
    y.assign(at(p.rows * stride), 0x7fff);
  }

  CodedGemmArguments arguments(const Problem& p, const Weight& weight) {
    CodedGemmArguments a;
    a.w = weight.matrix;
    a.x = x.data();
    a.x_type = a.out_type = p.type;
    a.x_stride = p.width + 8;
    a.k = p.width;
    a.bias = p.bias ? bias.data() : nullptr;
    a.clip = p.clip;
    a.y = y.data();
    a.y_stride = stride;
    a.m = p.rows;
    a.n = p.out;
    return a;
  }

  /// "" or where y is wrong.
  std::string mistake(const Problem& p, const Weight& weight) const {
    for (int m = 0; m < p.rows; ++m) {
      for (int n = 0; n < stride; ++n) {
        const std::uint16_t got = y[at(m * stride + n)];
        std::uint16_t want = 0x7fff;  // not of this product
        if (n < p.out) {
          double sum = 0.0;
          for (int k = 0; k < p.width; ++k) {
            sum += static_cast<double>(values[at(m * p.width + k)]) *
                   static_cast<double>(weight.values[at(n * p.width + k)]);
          }
          if (p.bias) sum += static_cast<double>(bias[at(n)]);
          const auto bound = static_cast<double>(p.clip);
          sum = sum > bound ? bound : sum < -bound ? -bound : sum;
          want = to_bits(static_cast<float>(sum), p.type);
        }
        if ((got & 0x7fff) == 0 && (want & 0x7fff) == 0) continue;  // zeros of either sign
        if (got == want) continue;
        std::ostringstream where;
        where << "row " << m << ", column " << n << ": " << from_bits(got, p.type) << ", wanted "
              << from_bits(want, p.type);
        return where.str();
      }
    }
    return "";
  }
};

}  // namespace attn::gpu::gptq_test
