#pragma once

// Products of gguf's weights for the tests of the streamed products: stored blocks, packed by the
// layer's own code, and x. To be included before kernel source.

#include <array>
#include <cstdint>
#include <cstring>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "gpu/layers/coded_weights.h"
#include "reference/core/quant_internal.h"
#include "tests/gpu/emulator/bits.h"
#include "tests/gpu/emulator/device.h"

namespace attn::gpu::stream_test {

struct Format {
  const char* name;
  QuantEncoding encoding;
};
inline constexpr std::array kFormats{
    Format{"q4_0", QuantEncoding::kQ4_0}, Format{"q8_0", QuantEncoding::kQ8_0},
    Format{"q4_k", QuantEncoding::kQ4_K}, Format{"q5_k", QuantEncoding::kQ5_K},
    Format{"q6_k", QuantEncoding::kQ6_K},
};

struct Problem {
  Format format = kFormats[0];
  int rows = 1, width = 256, out = 32;
  Type type = Type::kFloat32;  ///< of x and y
  bool bias = false;
  float clip = kNoBound;
  int multiprocessors = 1;

  std::int64_t block() const { return gguf_block(format.encoding).elements; }
  std::string text() const {
    std::ostringstream s;
    s << format.name << " rows " << rows << " width " << width << " out " << out << " type "
      << static_cast<int>(type) << " bias " << bias << " clip " << clip << " processors "
      << multiprocessors;
    return s.str();
  }
};

inline std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

inline void put_half(std::byte* to, float value) {
  const std::uint16_t bits = to_bits(value, Type::kFloat16);
  std::memcpy(to, &bits, sizeof bits);
}

/// Blocks of random bytes, with scales that no wider type is needed for and no narrower one enough.
inline Tensor random_blocks(const Problem& p, std::mt19937_64& random) {
  const GgufBlock size = gguf_block(p.format.encoding);
  const std::int64_t blocks = p.width / size.elements;
  Tensor stored(ElementType::kUInt8, {p.out, blocks * size.bytes});
  std::uniform_real_distribution<float> scale(1e-3f, 2e-2f);
  for (std::byte& b : stored.bytes()) b = static_cast<std::byte>(random() & 0xff);
  for (std::int64_t i = 0; i < p.out * blocks; ++i) {
    std::byte* const block = stored.data() + i * size.bytes;
    const auto sign = [&] { return random() % 2 == 0 ? 1.0f : -1.0f; };
    if (p.format.encoding == QuantEncoding::kQ6_K) {
      put_half(block + 208, sign() * scale(random));
      continue;
    }
    put_half(block, sign() * scale(random));
    if (size.elements == kCodedOuter) put_half(block + 2, sign() * scale(random));
  }
  return stored;
}

inline AttentionConfig config_of(const Problem& p) {
  return parse_config(R"({"variant":"gguf","entry_point":"materialize_kv_from_hidden",)"
                      R"("dtype":"float32","hidden_size":)" +
                      std::to_string(p.width) +
                      R"(,"num_attention_heads":256,"num_key_value_heads":1,"head_dim":)" +
                      std::to_string(p.out) + R"(,"quant":{"activation":"int8","encoding":")" +
                      p.format.name + R"("},"kv_cache":{"page_size":16,"dtype":"float32"}})");
}

/// A weight as the layer packs it, with its planes in host memory.
struct Weight {
  PackedWeight packed;
  CodedMatrix matrix;
  std::vector<emulator::Readable> places;

  Weight(const Problem& p, const Tensor& stored) {
    LayerWeights weights;
    weights.emplace("k_proj.weight", stored);
    packed = pack(coded_rows(config_of(p), weights, Matrix::kK).value());
    matrix = packed.matrix;
    const std::int64_t tiles = matrix.rows / kCodedTile;
    const auto place = [&](const PackedPlane& from, CodedPlane& plane) {
      if (from.data.empty()) return;
      places.push_back({from.data.data(), from.data.size()});
      plane = {from.data.data(), from.bytes, from.shift,
               static_cast<std::int64_t>(from.data.size()) / tiles};
    };
    place(packed.codes, matrix.codes);
    place(packed.high, matrix.high);
    place(packed.inner, matrix.inner);
    place(packed.inner_min, matrix.inner_min);
    place(packed.outer, matrix.outer);
    place(packed.outer_min, matrix.outer_min);
  }
};

/// Values of x in its type.
struct Input {
  std::vector<float> values;
  std::vector<float> wide;          ///< float32
  std::vector<std::uint16_t> bits;  ///< or 16 bits

  Input(const Problem& p, std::mt19937_64& random) {
    std::normal_distribution<float> normal;
    for (int i = 0; i < p.rows * p.width; ++i) {
      float v = normal(random) * (i / p.width % 3 == 1 ? 100.0f : 1.0f);
      if (random() % 16 == 0) v = 0.0f;
      if (p.type != Type::kFloat32) {
        bits.push_back(to_bits(v, p.type));
        v = from_bits(bits.back(), p.type);
      }
      values.push_back(v);
    }
    wide = values;
  }
  const void* data(const Problem& p) const {
    return p.type == Type::kFloat32 ? static_cast<const void*>(wide.data())
                                    : static_cast<const void*>(bits.data());
  }
};

}  // namespace attn::gpu::stream_test
